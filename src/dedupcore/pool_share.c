/*
 * Exact sharing of all that a pool holds: the frames of each domain are grouped as a snapshot, and then all pages are moved
 * to the canonical frame of theirs. Memory is taken and everything is found out before anything changes.
 */
#include <stdlib.h>
#include <string.h>

#include "pool.h"

/* What is found out: where frames go, and each domain's zero frame. */
typedef struct {
    uint64_t n;          /* frames from this one on were never in use */
    uint32_t *forward;   /* [n] the frame that takes over the pages of each; not set for free ones */
    uint32_t *zero;      /* [n_domains] or DEDUPCORE_ABSENT */
    uint64_t *starts;    /* [n_domains + 1] where each domain's frames begin in `frames` */
    uint32_t *frames;    /* domain after domain, each in ascending order */
    uint32_t *canonical; /* of a domain's frames, numbered from 0 */
    region forward_memory, frames_memory, canonical_memory;
    dedupcore_work work;
} plan;

static void add_work(dedupcore_work *sum, const dedupcore_work *more)
{
    sum->frames_signed += more->frames_signed;
    sum->bytes_signed += more->bytes_signed;
    sum->frames_hashed += more->frames_hashed;
    sum->bytes_hashed += more->bytes_hashed;
    sum->frames_compared += more->frames_compared;
    sum->bytes_compared += more->bytes_compared;
    sum->frames_not_read += more->frames_not_read;
}

/* --- finding out ------------------------------------------------------------------------------------------------- */

static int group_spans(const dedupcore_pool *pool, plan *p, const dedupcore_span *spans, size_t n_spans,
                       const dedupcore_key *key, uint32_t *canonical, uint32_t *zero)
{
    dedupcore_result found;
    const int rc = dedupcore_find_duplicates(spans, n_spans, pool->frames.frame_size, key, canonical, &found);
    if (rc)
        return rc;
    add_work(&p->work, &found.work);
    *zero = found.zero_canonical; /* UINT32_MAX, which is DEDUPCORE_ABSENT, if there is none */
    return 0;
}

/* The frames of one domain, as runs of neighbours. */
static int group_domain(const dedupcore_pool *pool, plan *p, size_t domain, const dedupcore_key *key)
{
    const uint32_t *frames = p->frames + p->starts[domain];
    const uint64_t n = p->starts[domain + 1] - p->starts[domain];
    uint64_t n_spans = 0;
    uint32_t zero;
    if (n == 0)
        return 0;
    for (uint64_t i = 0; i < n; i++)
        n_spans += i == 0 || frames[i] != frames[i - 1] + 1;
    dedupcore_span *spans = malloc(n_spans * sizeof *spans);
    if (!spans)
        return DEDUPCORE_ENOMEM;
    n_spans = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (i == 0 || frames[i] != frames[i - 1] + 1)
            spans[n_spans++] = (dedupcore_span){frames_at(&pool->frames, frames[i]), 0};
        spans[n_spans - 1].n_frames++;
    }
    const int rc = group_spans(pool, p, spans, n_spans, key, p->canonical, &zero);
    free(spans);
    if (rc)
        return rc;
    for (uint64_t i = 0; i < n; i++)
        p->forward[frames[i]] = frames[p->canonical[i]];
    if (zero != DEDUPCORE_ABSENT)
        p->zero[domain] = frames[zero];
    return 0;
}

/* How many frames each domain has; returns the only domain that has any, or n_domains if there are several. */
static size_t count_domains(const dedupcore_pool *pool, plan *p)
{
    size_t only = pool->n_domains;
    for (uint32_t frame = 0; frame < p->n; frame++) {
        if (frames_in_use(&pool->frames, frame))
            p->starts[pool->domains[frame] + 1]++;
    }
    for (size_t domain = 0; domain < pool->n_domains; domain++) {
        if (p->starts[domain + 1] == pool->frames.in_use)
            only = domain;
        p->starts[domain + 1] += p->starts[domain];
    }
    return only;
}

static int list_frames(const dedupcore_pool *pool, plan *p)
{
    uint64_t most = 0, at = 0;
    for (size_t domain = 0; domain < pool->n_domains; domain++) {
        const uint64_t n = p->starts[domain + 1] - p->starts[domain];
        most = n > most ? n : most;
    }
    int rc = region_map(&p->frames_memory, pool->frames.in_use * sizeof *p->frames, 1, PAGES_HUGE);
    if (rc == 0)
        rc = region_map(&p->canonical_memory, most * sizeof *p->canonical, 1, PAGES_HUGE);
    if (rc)
        return rc;
    p->frames = p->frames_memory.at;
    p->canonical = p->canonical_memory.at;
    for (uint32_t frame = 0; frame < p->n; frame++) {
        if (frames_in_use(&pool->frames, frame))
            p->frames[p->starts[pool->domains[frame]]++] = frame;
    }
    for (size_t domain = 0; domain < pool->n_domains; domain++) { /* each start has become the next one */
        const uint64_t next = p->starts[domain];
        p->starts[domain] = at;
        at = next;
    }
    return 0;
}

static int make_plan(const dedupcore_pool *pool, plan *p, const dedupcore_key *key)
{
    p->n = pool->frames.touched;
    p->zero = malloc((pool->n_domains + 1) * sizeof *p->zero);
    p->starts = calloc(pool->n_domains + 1, sizeof *p->starts);
    if (!p->zero || !p->starts)
        return DEDUPCORE_ENOMEM;
    memset(p->zero, 0xff, pool->n_domains * sizeof *p->zero); /* DEDUPCORE_ABSENT */
    int rc = region_map(&p->forward_memory, p->n * sizeof *p->forward, 1, PAGES_HUGE);
    if (rc)
        return rc;
    p->forward = p->forward_memory.at;
    const size_t only = count_domains(pool, p);
    if (only < pool->n_domains && pool->frames.in_use == p->n) { /* the engine numbers them as the pool does */
        const dedupcore_span all = {pool->frames.base, p->n};
        return group_spans(pool, p, &all, 1, key, p->forward, p->zero + only);
    }
    rc = list_frames(pool, p);
    for (size_t domain = 0; rc == 0 && domain < pool->n_domains; domain++)
        rc = group_domain(pool, p, domain, key);
    return rc;
}

static void end_plan(plan *p)
{
    region_unmap(&p->forward_memory);
    region_unmap(&p->frames_memory);
    region_unmap(&p->canonical_memory);
    free(p->zero);
    free(p->starts);
}

/* --- doing it ---------------------------------------------------------------------------------------------------- */

static void move_pages(dedupcore_pool *pool, const uint32_t *forward)
{
    for (size_t g = 0; g < pool->n_guests; g++) {
        uint32_t *table = pool->guests[g].table;
        for (uint64_t i = 0; i < pool->guests[g].n_pages; i++) {
            if (table[i] != DEDUPCORE_ABSENT && forward[table[i]] != table[i])
                table[i] = forward[table[i]];
        }
    }
}

/* A canonical frame is lower than those that it replaces, so its own count is final in nothing but what they add. */
static void free_duplicates(dedupcore_pool *pool, const plan *p)
{
    uint32_t *refs = pool->refs;
    for (uint32_t frame = 0; frame < p->n; frame++) {
        const uint32_t into = p->forward[frame];
        if (!frames_in_use(&pool->frames, frame) || into == frame)
            continue;
        pool->n_shared += refs[into] == 1;
        pool->n_shared -= refs[frame] > 1;
        pool->merged += refs[frame];
        refs[into] += refs[frame];
        refs[frame] = 0;
        frames_free(&pool->frames, frame);
    }
    frames_settle(&pool->frames);
}

int dedupcore_pool_share(dedupcore_pool *pool, const dedupcore_key *key, dedupcore_work *work)
{
    plan p = {0};
    if (pool->scan)
        return DEDUPCORE_EINVAL;
    int rc = pool->frames.in_use ? make_plan(pool, &p, key) : 0;
    if (rc == 0 && p.n) {
        move_pages(pool, p.forward);
        free_duplicates(pool, &p);
        memcpy(pool->zero_frames, p.zero, pool->n_domains * sizeof *p.zero);
    }
    if (rc == 0 && work)
        *work = p.work;
    end_plan(&p);
    return rc;
}
