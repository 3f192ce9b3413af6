/*
 * A snapshot's frames -> classes of equal content.
 *
 *   sign       every frame in order: zero test and sampled signature                            -> hashes
 *   partition  the frames that are not zero, scattered by the top bits of their hash, in order  -> entries
 *   group      one partition after the other, each fits the cache: the first (so lowest) frame
 *              of each hash leads its group; the others are its members                         -> canonical[member] = lead
 *   compare    every member with its lead, lead after lead. Equal: it has its canonical frame
 *
 * Members that differ from their lead take part in another round: partition, group and compare, by another hash, until
 * there are none. In the second round that hash is of the block in which they were found to differ, its place, and the lead:
 * the comparison has just read it, and frames that are equal differ from their lead alike. From the third round on it is a
 * hash of all of their bytes, each round under another part of the key.
 *
 * Why the canonical frame is the lowest: equal frames have equal hashes, so all frames of a content stand in one group, and
 * each step keeps them in ascending order. If their lead has this content, too, it is the lowest of it, and the others find
 * it by comparing; if not, all of them meet again in the next round.
 * Why it ends: contents that differ hardly ever share a full hash (hash.h), so the third round is the last one but for luck.
 * Memory that somebody writes to meanwhile could go on for ever: it is given up after MAX_ROUNDS.
 *
 * A partition, or a range of frames, belongs to one thread at a time, and nothing depends on which. Comparing lead by lead
 * reads a lead from memory once for all of its members, and where guests hold the same run of pages both sides of
 * the comparisons are sequential.
 */
#define _GNU_SOURCE
#include "dedupcore.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hash.h"
#include "lead_table.h"
#include "scan_bytes.h"

enum {
    MAX_TASKS = 256,          /* enough to balance many threads, few enough for their histograms */
    MIN_TASK_BYTES = 1 << 20, /* below this a task costs more to hand out than to run */
    PARTITION_FRAMES = 8192,  /* a partition of this many entries and its table stay in the L2 cache */
    MAX_ROUNDS = 16,          /* only memory that changes meanwhile gets further than three, but for luck (hash.h) */
    MAX_PARTITION_BITS = 12,  /* as many streams as partitioning can write to side by side */
    HUGE_PAGE = 2 << 20,
    SAMPLES_AHEAD = 8,        /* frames between the fetch of samples and their use: memory's latency */
};

static const uint32_t NONE = UINT32_MAX; /* no frame's number */

typedef enum { CREATED, SIGN, HASH, PARTITION, GROUP, COMPARE, DONE } job_phase;

typedef struct {
    void *at; /* NULL: none */
    size_t size;
} pages;

typedef struct {
    const uint8_t *base; /* NULL: zero frames */
    uint64_t first;      /* number of its first frame; the next span's ends it */
} span_start;

/* A member and the lead of its group; takes the place of the entries of a partition that has been grouped. */
typedef struct {
    uint32_t lead;
    uint32_t member;
} pair;

/* What a task found: summed up between phases, so that tasks share nothing. */
typedef struct {
    dedupcore_work work;
    uint64_t zeros;
    uint64_t leads;
    uint64_t unresolved;
    uint64_t confirmed;            /* leads that proved equal to a member of the task */
    uint32_t first_zero;           /* frame, or NONE */
    uint32_t first_lead, last_lead; /* whose members the task began and ended with: tasks may share a lead */
    int first_confirmed, last_confirmed;
} tally;

struct dedupcore_job {
    signer signer;
    uint32_t *canonical;
    size_t frame_size;
    uint64_t n_frames;
    span_start *spans; /* n_spans of them and an end mark */
    size_t n_spans;

    job_phase phase;
    unsigned round;
    uint32_t n_tasks;     /* of the phase under way */
    uint64_t n_positions; /* frames that this round goes over */
    uint64_t n_members;
    uint64_t task_positions; /* positions a task of sign, hash and partition */
    uint32_t n_position_tasks;
    unsigned partition_bits;

    uint32_t *cursors;      /* [n_position_tasks][partitions] first counts, then where the task writes its next entry */
    uint32_t *ends;         /* [partitions] where each partition ends in entries */
    uint32_t *pair_counts;  /* [partitions] */
    pages hashes;           /* uint64_t[n_positions]; 0: a zero frame */
    pages entries;          /* entry[]; later uint64_t[n_members]: next round's hashes, 0 for a member that is equal */
    pages places;           /* uint32_t[n_positions] for a lead: where its members stand in members */
    pages members;          /* uint32_t[n_members] positions, in the order of their leads */
    pages active;           /* uint32_t[n_positions] frames; none in the first round, in which all take part */

    tally total;
    tally tallies[MAX_TASKS];
};

/* --- memory ------------------------------------------------------------------------------------------------------ */

/*
 * Zeroed memory, in huge pages if they can be had: scattered writes would otherwise miss the TLB each time, and each small
 * page costs a fault. Huge pages need an address and a size that are multiples of theirs.
 */
static int map_pages(pages *p, size_t size)
{
    if (size == 0)
        return 0;
    const size_t huge = size < HUGE_PAGE ? 0 : HUGE_PAGE;
    if (huge)
        size = (size + huge - 1) / huge * huge;
    uint8_t *at = mmap(NULL, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return DEDUPCORE_ENOMEM;
    if (huge) {
        const size_t before = -(uintptr_t)at % huge;
        if (before)
            munmap(at, before);
        munmap(at + before + size, huge - before);
        at += before;
        (void)madvise(at, size, MADV_HUGEPAGE); /* a wish; may fail */
    }
    *p = (pages){at, size};
    return 0;
}

static void unmap_pages(pages *p)
{
    if (p->at)
        munmap(p->at, p->size);
    *p = (pages){NULL, 0};
}

/* Gives back what lies beyond the first `size` bytes. */
static void trim_pages(pages *p, size_t size)
{
    const size_t keep = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (keep < p->size) {
        munmap((uint8_t *)p->at + keep, p->size - keep);
        p->size = keep;
    }
}

/* --- frames ------------------------------------------------------------------------------------------------------ */

/* The span that holds the frame. `hint`: an index to try first, often right. */
static size_t span_of(const dedupcore_job *job, uint64_t frame, size_t hint)
{
    if (frame >= job->spans[hint].first && frame < job->spans[hint + 1].first)
        return hint;
    size_t low = 0, high = job->n_spans;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (job->spans[middle].first <= frame)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static const uint8_t *frame_at(const dedupcore_job *job, uint32_t frame, size_t *hint)
{
    *hint = span_of(job, frame, *hint);
    return job->spans[*hint].base + (frame - job->spans[*hint].first) * job->frame_size;
}

static uint32_t frame_of(const dedupcore_job *job, uint64_t position)
{
    return job->active.at ? ((const uint32_t *)job->active.at)[position] : (uint32_t)position;
}

static void task_range(const dedupcore_job *job, uint32_t task, uint64_t *first, uint64_t *end)
{
    *first = task * job->task_positions;
    *end = *first + job->task_positions < job->n_positions ? *first + job->task_positions : job->n_positions;
}

static size_t partitions(const dedupcore_job *job)
{
    return (size_t)1 << job->partition_bits;
}

static size_t partition_of(const dedupcore_job *job, uint64_t hash)
{
    return (size_t)(hash >> 1 >> (63 - job->partition_bits));
}

static uint32_t partition_begin(const dedupcore_job *job, size_t partition)
{
    return partition ? job->ends[partition - 1] : 0;
}

/* --- tasks ------------------------------------------------------------------------------------------------------- */

static void found_zeros(tally *t, uint64_t first, uint64_t n)
{
    if (n && t->first_zero == NONE)
        t->first_zero = (uint32_t)first;
    t->zeros += n;
}

/* Frames so short that each is read in full anyway. */
static void sign_short_frames(dedupcore_job *job, const uint8_t *base, uint64_t n, uint64_t first, uint32_t *counts, tally *t)
{
    uint64_t *hashes = (uint64_t *)job->hashes.at + first;
    for (uint64_t i = 0; i < n; i++) {
        hashes[i] = sign_whole(&job->signer, base + i * job->frame_size);
        if (hashes[i])
            counts[partition_of(job, hashes[i])]++;
        else
            found_zeros(t, first + i, 1);
    }
    t->work.bytes_signed += n * job->frame_size;
}

/*
 * Zero frames come in runs, so a frame whose samples are zero starts a search for the first byte that is not, however many
 * frames away: one stream, as fast as memory can be read. The other frames are read at their samples alone.
 */
static void sign_frames(dedupcore_job *job, const uint8_t *base, uint64_t n, uint64_t first, uint32_t *counts, tally *t)
{
    const size_t size = job->frame_size;
    uint64_t *hashes = (uint64_t *)job->hashes.at + first, fetched = 0;
    for (uint64_t i = 0; i < n; i++) {
        for (fetched = fetched > i ? fetched : i; fetched < n && fetched <= i + SAMPLES_AHEAD; fetched++)
            prefetch_samples(&job->signer, base + fetched * size);
        uint64_t hash = sign_samples(&job->signer, base + i * size);
        t->work.bytes_signed += SAMPLED_LINES * LINE;
        if (!hash) {
            uint64_t at = job->signer.scans->first_nonzero(base + i * size, (n - i) * size), zeros = at / size;
            t->work.bytes_signed += at;
            found_zeros(t, first + i, zeros); /* their hashes are zero as they were mapped */
            i += zeros;
            if (i == n)
                break;
            t->work.bytes_signed += BLOCK;
            if (zeros)
                hash = sign_samples(&job->signer, base + i * size);
            if (!hash)
                hash = hash_block(base + i * size + at % size, at % size, 0, job->signer.key);
        }
        hashes[i] = hash;
        counts[partition_of(job, hash)]++;
    }
}

static void sign_task(dedupcore_job *job, uint32_t task, tally *t)
{
    uint32_t *counts = job->cursors + task * partitions(job);
    uint64_t frame, end;
    task_range(job, task, &frame, &end);
    for (size_t s = span_of(job, frame, 0); frame < end; s++) {
        uint64_t stop = job->spans[s + 1].first < end ? job->spans[s + 1].first : end, n = stop - frame;
        const uint8_t *base = job->spans[s].base;
        if (!base) {
            found_zeros(t, frame, n); /* their hashes are zero as they were mapped */
        } else {
            base += (frame - job->spans[s].first) * job->frame_size;
            t->work.frames_signed += n;
            (job->frame_size < SAMPLED_FRAME_SIZE ? sign_short_frames : sign_frames)(job, base, n, frame, counts, t);
        }
        frame = stop;
    }
}

/* Whether the round's hashes were made by the comparisons of the one before. */
static int hashes_are_ready(const dedupcore_job *job)
{
    return job->round == 1 && job->frame_size >= SAMPLED_FRAME_SIZE;
}

static void hash_task(dedupcore_job *job, uint32_t task, tally *t)
{
    uint32_t *counts = job->cursors + task * partitions(job);
    uint64_t *hashes = job->hashes.at;
    const int ready = hashes_are_ready(job);
    uint64_t i, end;
    size_t hint = 0;
    for (task_range(job, task, &i, &end); i < end; i++) {
        if (!ready) {
            const uint8_t *frame = frame_at(job, frame_of(job, i), &hint);
            const uint8_t *next = i + 1 < end ? frame_at(job, frame_of(job, i + 1), &hint) : frame;
            hashes[i] = hash_frame(frame, job->frame_size, next, job->round, job->signer.key);
            t->work.frames_hashed++;
        }
        counts[partition_of(job, hashes[i])]++;
    }
    t->work.bytes_hashed = t->work.frames_hashed * job->frame_size;
}

static void partition_task(dedupcore_job *job, uint32_t task)
{
    uint32_t *cursors = job->cursors + task * partitions(job);
    const uint64_t *hashes = job->hashes.at;
    entry *entries = job->entries.at;
    uint64_t i, end;
    for (task_range(job, task, &i, &end); i < end; i++) {
        uint64_t hash = hashes[i];
        if (hash) {
            entry *e = entries + cursors[partition_of(job, hash)]++;
            e->position = (uint32_t)i;
            memcpy(e->hash, &hash, sizeof hash);
        } else { /* only in the first round, where position and frame are one */
            job->canonical[i] = job->total.first_zero;
        }
    }
}

static int group_partition(dedupcore_job *job, entry *part, uint32_t n, lead_table *table, tally *t)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *slot = table_find(table, part, entry_hash(part + i), job->partition_bits);
        uint32_t frame = frame_of(job, part[i].position);
        if (*slot) {
            const entry *lead = part + *slot - 1;
            job->canonical[frame] = frame_of(job, lead->position);
            part[i].hash[0] = lead->position; /* no lead, so nobody looks for its hash any more */
            continue;
        }
        *slot = i + 1;
        job->canonical[frame] = frame;
        t->leads++;
        if (++table->used >> (table->bits - 1) && table_grow(table, part, job->partition_bits))
            return DEDUPCORE_ENOMEM;
    }
    return 0;
}

/* Replaces the entries of a grouped partition by its pairs. Returns how many there are. */
static uint32_t keep_pairs(const dedupcore_job *job, entry *part, uint32_t n)
{
    pair *pairs = (pair *)part;
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t frame = frame_of(job, part[i].position);
        if (job->canonical[frame] != frame) {
            pair p = {part[i].hash[0], part[i].position};
            memcpy(pairs + count++, &p, sizeof p); /* pairs are smaller than entries: never ahead of i */
        }
    }
    return count;
}

static int group_task(dedupcore_job *job, uint32_t task, tally *t)
{
    size_t first = partitions(job) * task / job->n_tasks, end = partitions(job) * (task + 1) / job->n_tasks;
    lead_table table = {NULL, 0, 0};
    int rc = 0;
    for (size_t p = first; p < end; p++) {
        uint32_t n = job->ends[p] - partition_begin(job, p);
        entry *part = (entry *)job->entries.at + partition_begin(job, p);
        rc = table_clear(&table, n);
        if (rc == 0)
            rc = group_partition(job, part, n, &table, t);
        if (rc)
            break;
        if (job->frame_size > 8)
            job->pair_counts[p] = keep_pairs(job, part, n);
    }
    free(table.slots);
    if (job->frame_size == 8) { /* the hash is the content (hash.h): looking it up has compared it */
        t->work.frames_compared = job->ends[end - 1] - partition_begin(job, first) - t->leads;
        t->work.bytes_compared = 8 * t->work.frames_compared;
    }
    return rc;
}

/* How many bytes of the two frames are equal; next_*: the frames of the next comparison. */
static size_t equal_bytes(const dedupcore_job *job, const uint8_t *a, const uint8_t *b, const uint8_t *next_a,
                          const uint8_t *next_b)
{
    if (job->frame_size >= SAMPLED_FRAME_SIZE)
        return job->signer.scans->first_difference(a, b, job->frame_size, next_a, next_b);
    return memcmp(a, b, job->frame_size) == 0 ? job->frame_size : 0;
}

static void compare_task(dedupcore_job *job, uint32_t task, tally *t)
{
    const size_t size = job->frame_size;
    const uint32_t *members = job->members.at;
    uint64_t *next_hashes = job->entries.at;
    uint64_t first = job->n_members * task / job->n_tasks, end = job->n_members * (task + 1) / job->n_tasks;
    size_t lead_hint = 0, member_hint = 0;
    uint32_t member = frame_of(job, members[first]), lead = job->canonical[member];
    const uint8_t *a = frame_at(job, lead, &lead_hint), *b = frame_at(job, member, &member_hint);
    int confirmed = 0;
    t->first_lead = lead;
    for (uint64_t k = first; k < end; k++) {
        uint32_t next_lead = lead;
        const uint8_t *next_a = a, *next_b = b;
        if (k + 1 < end) {
            member = frame_of(job, members[k + 1]);
            next_lead = job->canonical[member];
            next_a = next_lead == lead ? a : frame_at(job, next_lead, &lead_hint);
            next_b = frame_at(job, member, &member_hint);
        }
        size_t equal = equal_bytes(job, a, b, next_a, next_b);
        t->work.frames_compared++;
        if (equal == size) {
            t->work.bytes_compared += size;
            next_hashes[k] = 0;
            t->confirmed += !confirmed;
            confirmed = 1;
        } else {
            t->work.bytes_compared += size >= SAMPLED_FRAME_SIZE ? equal + BLOCK : size;
            t->unresolved++;
            next_hashes[k] = size >= SAMPLED_FRAME_SIZE ? hash_block(b + equal, equal, lead, job->signer.key) : 1;
        }
        if (next_lead != lead || k + 1 == end) {
            if (lead == t->first_lead)
                t->first_confirmed = confirmed;
            t->last_lead = lead;
            t->last_confirmed = confirmed;
            confirmed = 0;
        }
        lead = next_lead;
        a = next_a;
        b = next_b;
    }
}

/* --- between phases ---------------------------------------------------------------------------------------------- */

static void clear_tallies(dedupcore_job *job)
{
    memset(job->tallies, 0, sizeof job->tallies);
    for (int i = 0; i < MAX_TASKS; i++)
        job->tallies[i].first_zero = NONE;
}

/* Adds the tasks' tallies to the total. */
static void sum_up(dedupcore_job *job)
{
    job->total.unresolved = job->total.confirmed = 0;
    for (uint32_t i = 0; i < job->n_tasks; i++) {
        const tally *t = job->tallies + i, *before = i ? t - 1 : NULL;
        dedupcore_work *sum = &job->total.work;
        sum->frames_signed += t->work.frames_signed;
        sum->bytes_signed += t->work.bytes_signed;
        sum->frames_hashed += t->work.frames_hashed;
        sum->bytes_hashed += t->work.bytes_hashed;
        sum->frames_compared += t->work.frames_compared;
        sum->bytes_compared += t->work.bytes_compared;
        job->total.zeros += t->zeros;
        job->total.leads += t->leads;
        if (t->first_zero < job->total.first_zero)
            job->total.first_zero = t->first_zero;
        job->total.unresolved += t->unresolved;
        job->total.confirmed += t->confirmed;
        if (job->phase == COMPARE && before && before->last_lead == t->first_lead) { /* one lead: counted once */
            job->total.confirmed -= before->last_confirmed && t->first_confirmed;
            if (t->first_lead == t->last_lead)
                job->tallies[i].last_confirmed |= before->last_confirmed;
        }
    }
    clear_tallies(job);
}

static void begin(dedupcore_job *job, job_phase phase, uint64_t n_tasks)
{
    job->phase = phase;
    job->n_tasks = n_tasks < MAX_TASKS ? (uint32_t)n_tasks : MAX_TASKS;
}

/* A round over n_positions frames: sizes its tasks and partitions. */
static int begin_round(dedupcore_job *job, job_phase phase, uint64_t n_positions)
{
    job->n_positions = n_positions;
    uint64_t per_task = (n_positions + MAX_TASKS - 1) / MAX_TASKS, at_least = MIN_TASK_BYTES / job->frame_size;
    job->task_positions = per_task > at_least ? per_task : at_least ? at_least : 1;
    job->n_position_tasks = (uint32_t)((n_positions + job->task_positions - 1) / job->task_positions);
    job->partition_bits = 0;
    while (job->partition_bits < MAX_PARTITION_BITS && n_positions >> job->partition_bits > PARTITION_FRAMES)
        job->partition_bits++;

    free(job->cursors);
    free(job->ends);
    free(job->pair_counts);
    job->cursors = calloc(job->n_position_tasks * partitions(job), sizeof *job->cursors);
    job->ends = malloc(partitions(job) * sizeof *job->ends);
    job->pair_counts = malloc(partitions(job) * sizeof *job->pair_counts);
    if (!job->cursors || !job->ends || !job->pair_counts)
        return DEDUPCORE_ENOMEM;
    begin(job, phase, job->n_position_tasks);
    return 0;
}

/* Turns the tasks' counts into the places where each writes: partition by partition, in each the tasks in order. */
static int begin_partition(dedupcore_job *job)
{
    uint64_t at = 0;
    for (size_t p = 0; p < partitions(job); p++) {
        for (uint32_t task = 0; task < job->n_position_tasks; task++) {
            uint32_t *cursor = job->cursors + task * partitions(job) + p, count = *cursor;
            *cursor = (uint32_t)at;
            at += count;
        }
        job->ends[p] = (uint32_t)at;
    }
    begin(job, PARTITION, job->n_position_tasks);
    return map_pages(&job->entries, at * sizeof(entry));
}

/* The members in the order of their leads, by counting; each lead's in ascending order, as they stand in its partition. */
static int begin_compare(dedupcore_job *job)
{
    unmap_pages(&job->hashes);
    job->n_members = 0;
    for (size_t p = 0; p < partitions(job); p++)
        job->n_members += job->pair_counts[p];
    begin(job, COMPARE, job->n_members);
    if (job->n_members == 0)
        return 0;
    int rc = map_pages(&job->places, job->n_positions * sizeof(uint32_t));
    if (rc == 0)
        rc = map_pages(&job->members, job->n_members * sizeof(uint32_t));
    if (rc)
        return rc;
    uint32_t *places = job->places.at, *members = job->members.at;
    for (int placing = 0; placing < 2; placing++) {
        for (size_t p = 0; p < partitions(job); p++) {
            const pair *pairs = (const pair *)((const entry *)job->entries.at + partition_begin(job, p));
            for (uint32_t i = 0; i < job->pair_counts[p]; i++) {
                uint32_t at = places[pairs[i].lead]++;
                if (placing)
                    members[at] = pairs[i].member;
            }
        }
        for (uint64_t i = 0, at = 0; !placing && i < job->n_positions; i++) {
            uint32_t count = places[i];
            places[i] = (uint32_t)at;
            at += count;
        }
    }
    return 0;
}

/* The members that differ from their leads, in the order of those, take part in another round. */
static int begin_next_round(dedupcore_job *job)
{
    unmap_pages(&job->places);
    if (++job->round == MAX_ROUNDS)
        return DEDUPCORE_ECHANGED;
    uint32_t *members = job->members.at;
    uint64_t *hashes = job->entries.at, n = 0;
    for (uint64_t k = 0; k < job->n_members; k++) {
        if (hashes[k]) {
            members[n] = frame_of(job, members[k]);
            hashes[n++] = hashes[k];
        }
    }
    unmap_pages(&job->active);
    job->active = job->members;
    job->hashes = job->entries;
    job->members = job->entries = (pages){NULL, 0};
    trim_pages(&job->active, n * sizeof *members);
    trim_pages(&job->hashes, n * sizeof *hashes);
    return begin_round(job, HASH, n);
}

static void finish(dedupcore_job *job)
{
    pages *all[] = {&job->hashes, &job->entries, &job->places, &job->members, &job->active};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        unmap_pages(all[i]);
    begin(job, DONE, 0);
}

/* Moves on to the next phase, which may turn out to have no tasks. */
static int advance(dedupcore_job *job)
{
    const uint64_t leads_before = job->total.leads;
    sum_up(job);
    switch (job->phase) {
    case CREATED:
        return begin_round(job, SIGN, job->n_frames);
    case SIGN:
    case HASH:
        return begin_partition(job);
    case PARTITION:
        begin(job, GROUP, partitions(job));
        return 0;
    case GROUP:
        /* Of a lead nothing but samples has been read, unless comparing it goes to the end, or the hash was a full one. */
        if (job->frame_size >= SAMPLED_FRAME_SIZE && job->round < 2)
            job->total.work.frames_not_read += job->total.leads - leads_before;
        if (job->frame_size > 8)
            return begin_compare(job);
        finish(job);
        return 0;
    case COMPARE:
        if (job->frame_size >= SAMPLED_FRAME_SIZE && job->round < 2)
            job->total.work.frames_not_read -= job->total.confirmed;
        if (job->total.unresolved)
            return begin_next_round(job);
        finish(job);
        return 0;
    case DONE:
        break;
    }
    return 0;
}

/* --- the job ----------------------------------------------------------------------------------------------------- */

/* Spans that follow each other in memory, too, become one. */
static void copy_spans(dedupcore_job *job, const dedupcore_span *spans, size_t n_spans)
{
    uint64_t first = 0;
    for (size_t i = 0; i < n_spans; i++) {
        if (spans[i].n_frames == 0)
            continue;
        const span_start *last = job->n_spans ? job->spans + job->n_spans - 1 : NULL;
        const uint8_t *base = spans[i].base;
        if (!last || base != (last->base ? last->base + (first - last->first) * job->frame_size : NULL))
            job->spans[job->n_spans++] = (span_start){base, first};
        first += spans[i].n_frames;
    }
    job->spans[job->n_spans] = (span_start){NULL, first};
}

int dedupcore_job_create(dedupcore_job **created, const dedupcore_span *spans, size_t n_spans, size_t frame_size,
                         const dedupcore_key *key, uint32_t *canonical)
{
    *created = NULL;
    if (!is_frame_size(frame_size))
        return DEDUPCORE_EINVAL;
    uint64_t n_frames = 0;
    for (size_t i = 0; i < n_spans; i++) {
        if (spans[i].n_frames > DEDUPCORE_MAX_FRAMES - n_frames)
            return DEDUPCORE_ETOOBIG;
        n_frames += spans[i].n_frames;
    }
    dedupcore_job *job = calloc(1, sizeof *job);
    if (!job)
        return DEDUPCORE_ENOMEM;
    job->signer = signer_for(frame_size, key, byte_scans_for(dedupcore_cpu_used()));
    job->canonical = canonical;
    job->frame_size = frame_size;
    job->n_frames = n_frames;
    job->total.first_zero = NONE;
    clear_tallies(job);
    job->spans = malloc((n_spans + 1) * sizeof *job->spans);
    if (!job->spans || map_pages(&job->hashes, n_frames * sizeof(uint64_t))) {
        dedupcore_job_destroy(job);
        return DEDUPCORE_ENOMEM;
    }
    copy_spans(job, spans, n_spans);
    *created = job;
    return 0;
}

int dedupcore_job_next(dedupcore_job *job, uint32_t *n_tasks)
{
    *n_tasks = 0;
    if (job->n_frames == 0)
        finish(job);
    while (job->phase != DONE) {
        int rc = advance(job);
        if (rc)
            return rc;
        if (job->n_tasks) {
            *n_tasks = job->n_tasks;
            return 1;
        }
    }
    return 0;
}

const char *dedupcore_job_phase(const dedupcore_job *job)
{
    static const char *const names[] = {
        [CREATED] = "created", [SIGN] = "sign",       [HASH] = "hash", [PARTITION] = "partition",
        [GROUP] = "group",     [COMPARE] = "compare", [DONE] = "done",
    };
    return names[job->phase];
}

int dedupcore_job_run(dedupcore_job *job, uint32_t task)
{
    if (task >= job->n_tasks)
        return DEDUPCORE_EINVAL;
    tally mine = {.first_zero = NONE};
    int rc = 0;
    switch (job->phase) {
    case SIGN:
        sign_task(job, task, &mine);
        break;
    case HASH:
        hash_task(job, task, &mine);
        break;
    case PARTITION:
        partition_task(job, task);
        break;
    case GROUP:
        rc = group_task(job, task, &mine);
        break;
    case COMPARE:
        compare_task(job, task, &mine);
        break;
    case CREATED:
    case DONE:
        return DEDUPCORE_ESTATE;
    }
    job->tallies[task] = mine;
    return rc;
}

int dedupcore_job_result(const dedupcore_job *job, dedupcore_result *result)
{
    if (job->phase != DONE)
        return DEDUPCORE_ESTATE;
    *result = (dedupcore_result){
        .n_frames = job->n_frames,
        .n_zero = job->total.zeros,
        .n_distinct = job->total.leads,
        .zero_canonical = job->total.first_zero,
        .work = job->total.work,
    };
    return 0;
}

void dedupcore_job_destroy(dedupcore_job *job)
{
    if (!job)
        return;
    finish(job);
    free(job->pair_counts);
    free(job->ends);
    free(job->cursors);
    free(job->spans);
    free(job);
}

int dedupcore_find_duplicates(const dedupcore_span *spans, size_t n_spans, size_t frame_size, const dedupcore_key *key,
                              uint32_t *canonical, dedupcore_result *result)
{
    dedupcore_job *job;
    uint32_t n_tasks;
    int rc = dedupcore_job_create(&job, spans, n_spans, frame_size, key, canonical);
    while (rc == 0 && (rc = dedupcore_job_next(job, &n_tasks)) == 1) {
        rc = 0;
        for (uint32_t task = 0; task < n_tasks && rc == 0; task++)
            rc = dedupcore_job_run(job, task);
    }
    if (rc == 0)
        rc = dedupcore_job_result(job, result);
    dedupcore_job_destroy(job);
    return rc;
}
