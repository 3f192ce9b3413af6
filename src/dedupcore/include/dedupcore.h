/*
 * dedupcore: find the frames of memory that hold equal bytes.
 *
 * A frame is a block of memory of one fixed size, a power of two from 8 bytes to 1 GiB. Frames are numbered from 0 in the
 * order of the spans that hold them. All frames with equal content form a class; its canonical frame is the lowest-numbered.
 *
 * Caveats first:
 *  - The memory is read, never written. If it changes while a job runs, the job stays within its bounds and ends soon, but
 *    the classes describe no single moment, or it fails with DEDUPCORE_ECHANGED. Take a copy of memory that changes.
 *  - A job allocates scratch memory, freed by dedupcore_job_destroy: 8 bytes a frame, 12 more a frame that is not zero, and a
 *    few MiB of tables, at its peak; in memory made for it, where nearly all frames agree in their sampled lines with a frame
 *    that they differ from, 4 more. `canonical`, 4 bytes a frame, is the caller's. Of the other calls only
 *    dedupcore_map_create, dedupcore_place and those of the pool and the TLB allocate.
 *  - No call starts a thread, takes a lock, or keeps state outside of what it is handed, but for dedupcore_map_* (below).
 *
 * Errors: functions that can fail return 0 (or a count) or a negative DEDUPCORE_E*; dedupcore_strerror names it.
 *
 * Threads: dedupcore_job_run may run side by side for different tasks of one phase. Every other call on a job needs the
 * job to itself. Different jobs are independent.
 */
#ifndef DEDUPCORE_H
#define DEDUPCORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DEDUPCORE_VERSION "0.1.0"

#define DEDUPCORE_MIN_FRAME_SIZE 8u
#define DEDUPCORE_MAX_FRAME_SIZE (1u << 30)
#define DEDUPCORE_MAX_FRAMES UINT32_MAX /* so that UINT32_MAX itself is never a frame number */

/* --- errors ------------------------------------------------------------------------------------------------------ */

#define DEDUPCORE_EINVAL (-1)  /* an argument is out of its range: frame size, task number, file range */
#define DEDUPCORE_ENOMEM (-2)  /* scratch memory could not be allocated */
#define DEDUPCORE_ETOOBIG (-3) /* more than DEDUPCORE_MAX_FRAMES frames */
#define DEDUPCORE_ESTATE (-4)  /* the call does not fit the job's state, as asking for a result before the end */
#define DEDUPCORE_ESYS (-5)    /* a system call failed; errno says why */
#define DEDUPCORE_ECHANGED (-6) /* the memory changes while it is read, so that equal hashes do not come to equal bytes */
#define DEDUPCORE_EFULL (-7)   /* a pool has fewer free frames than are needed */
#define DEDUPCORE_EBROKEN (-8) /* a pool contradicts itself: memory was overwritten, or a call ran beside another wrongly */

/* One line in English for a DEDUPCORE_E*; never NULL. */
const char *dedupcore_strerror(int error);

/* --- the CPU ----------------------------------------------------------------------------------------------------- */

/*
 * Rungs of instruction sets above the baseline. Results are the same on every rung.
 * There is none for AVX-512: the loops are bound by memory, and it was no faster than AVX2.
 */
#define DEDUPCORE_CPU_AVX2 1u

/* What this CPU and its operating system offer. */
unsigned dedupcore_cpu_detected(void);

/*
 * What jobs created from now on use: what was detected, less what the environment variable DEDUPCORE_DISABLE_CPU turns off
 * (names as printed by dedupcore_cpu_name, separated by commas; "all" turns every rung off). Read at each call, so that a
 * test can force every rung in one process. Turning a rung off turns off the rungs above it.
 */
unsigned dedupcore_cpu_used(void);

/* "avx2" for DEDUPCORE_CPU_AVX2 and so on, NULL for a bit that names no rung. */
const char *dedupcore_cpu_name(unsigned rung);

/* --- the key ----------------------------------------------------------------------------------------------------- */

/* The secret that keys every hash. Opaque; about 4 KiB; the same key may serve any number of jobs. */
typedef struct {
    uint64_t words[544];
} dedupcore_key;

/* A key from the operating system's random generator. Errors: DEDUPCORE_ESYS. */
int dedupcore_key_random(dedupcore_key *key);

/* A key from a number: for tests, and for work counters that must repeat to the last digit. Not secret. */
void dedupcore_key_seeded(dedupcore_key *key, uint64_t seed);

/* --- duplicates: a snapshot's frames -> classes of equal content ------------------------------------------------- */

/* n_frames consecutive frames at base, of any alignment; base NULL: frames known to be zero, stored nowhere. */
typedef struct {
    const void *base;
    uint64_t n_frames;
} dedupcore_span;

/* Exact counters of the work that was done: the same for any number of threads and any rung. */
typedef struct {
    uint64_t frames_signed;  /* zero-tested and signed */
    uint64_t bytes_signed;   /* read for that: whole zero frames, sampled lines of the others, and zeros that lead them */
    uint64_t frames_hashed;  /* read in full for a full hash; a frame counts once a time */
    uint64_t bytes_hashed;
    uint64_t frames_compared; /* comparisons of a frame with a candidate */
    uint64_t bytes_compared;  /* length compared, counted once for both sides; a difference ends it */
    uint64_t frames_not_read; /* non-zero frames neither compared nor hashed in full: of them only samples were read */
} dedupcore_work;

typedef struct {
    uint64_t n_frames;
    uint64_t n_zero;         /* frames of zero bytes */
    uint64_t n_distinct;     /* different contents among the others */
    uint32_t zero_canonical; /* the lowest zero frame; UINT32_MAX if there is none */
    dedupcore_work work;
} dedupcore_result;

/*
 * A job is a short sequence of phases; a phase is a number of independent tasks:
 *
 *     dedupcore_job *job;
 *     rc = dedupcore_job_create(&job, spans, n_spans, frame_size, &key, canonical);
 *     while (rc == 0 && (rc = dedupcore_job_next(job, &n_tasks)) == 1)
 *         for (rc = 0, t = 0; t < n_tasks && rc == 0; t++)      <- in any order, on any number of threads
 *             rc = dedupcore_job_run(job, t);
 *     dedupcore_job_result(job, &result);
 *     dedupcore_job_destroy(job);
 *
 * How many tasks there are depends on the memory alone, and so do the results.
 */
typedef struct dedupcore_job dedupcore_job;

/*
 * spans, the memory that they point at, key and canonical must outlive the job. canonical: one entry a frame, written by
 * the job; entry i becomes the number of the canonical frame of frame i.
 * Errors: DEDUPCORE_EINVAL (frame_size), DEDUPCORE_ETOOBIG, DEDUPCORE_ENOMEM; *job is then NULL.
 */
int dedupcore_job_create(dedupcore_job **job, const dedupcore_span *spans, size_t n_spans, size_t frame_size,
                         const dedupcore_key *key, uint32_t *canonical);

/* Begins the next phase: 1 and its number of tasks, or 0 when the job is done. Errors: DEDUPCORE_ENOMEM, _ECHANGED. */
int dedupcore_job_next(dedupcore_job *job, uint32_t *n_tasks);

/* What the phase under way does, in one word: "sign", "partition", "group", "compare" or "hash". */
const char *dedupcore_job_phase(const dedupcore_job *job);

/* Runs one task of the phase, each exactly once. Errors: DEDUPCORE_EINVAL (task), DEDUPCORE_ENOMEM. */
int dedupcore_job_run(dedupcore_job *job, uint32_t task);

/* Errors: DEDUPCORE_ESTATE before dedupcore_job_next returned 0. */
int dedupcore_job_result(const dedupcore_job *job, dedupcore_result *result);

/* Frees the scratch memory, at any state of the job; NULL is fine. */
void dedupcore_job_destroy(dedupcore_job *job);

/* The loop above on the calling thread. Errors: those of the calls in it. */
int dedupcore_find_duplicates(const dedupcore_span *spans, size_t n_spans, size_t frame_size, const dedupcore_key *key,
                              uint32_t *canonical, dedupcore_result *result);

/* --- classes and the guests that hold them ----------------------------------------------------------------------- */

typedef struct {
    uint64_t first, end;     /* its frames: first <= number < end */
    uint32_t zero_canonical; /* the canonical frame of zero frames in its domain; UINT32_MAX if there are none */
} dedupcore_guest;

typedef struct {
    uint64_t zero;          /* its zero frames */
    uint64_t distinct;      /* different contents among its others */
    uint64_t shared_across; /* its other frames whose content another guest holds, too */
} dedupcore_guest_counts;

/*
 * Counts, for classes as dedupcore_job makes them: copies[c] becomes the number of frames of the class with canonical frame
 * c, owners[c] the number of guests that hold it (both 0 where c is no canonical frame); counts has an entry a guest.
 * copies, owners and scratch: one entry a frame, zero at the call. Guests must not overlap; fewer than 2^32 - 1 of them.
 */
void dedupcore_count(const uint32_t *canonical, const dedupcore_guest *guests, size_t n_guests, uint32_t *copies,
                     uint32_t *owners, uint32_t *scratch, dedupcore_guest_counts *counts);

/* --- frames that stream by --------------------------------------------------------------------------------------- */

/*
 * The hash of each of n frames, one behind the other from `frames` on (of any alignment): 0 for a frame of zero bytes, never
 * 0 for another. Under one key equal frames have equal hashes, so frames whose hashes differ are not equal. That two others
 * share a hash has a chance of about 2^-64 (hash.h), so frames that share one are equal only if they are compared.
 * May run side by side. Errors: DEDUPCORE_EINVAL (frame_size).
 */
int dedupcore_hash_frames(const void *frames, size_t n, size_t frame_size, const dedupcore_key *key, uint64_t *hashes);

/*
 * Compares each of n frames, one behind the other from `frames` on, with the frame number places[i] of those from `originals`
 * on: same[i] becomes 1 where all bytes are equal, else 0. May run side by side. Errors: DEDUPCORE_EINVAL (frame_size).
 */
int dedupcore_match_frames(const void *frames, size_t n, size_t frame_size, const void *originals, const uint32_t *places,
                           uint8_t *same);

/* --- simulated guests -------------------------------------------------------------------------------------------- */

/*
 * A guest's memory as content names: an array of numbers, one a page, in which equal numbers are equal contents and 0
 * is the zero page. A template lists the pages that a guest allocates, region after region; dedupcore_place chooses
 * where in the guest's memory each lies, dedupcore_name_pages writes their names there, dedupcore_materialize turns
 * names into bytes. Results depend on the arguments alone: same key, same result, on every machine.
 * Threads: all five calls may run side by side, as long as what they write does not overlap.
 */

/*
 * Number i of the stream of random numbers `key`. Both may be any number; streams are unrelated, however close their
 * keys, and no number comes twice in one.
 */
uint64_t dedupcore_random(uint64_t key, uint64_t i);

#define DEDUPCORE_MAX_ORDER 10u               /* of a block of 2^order pages: 4 MiB of 4 KiB pages, as in Linux */
#define DEDUPCORE_ALWAYS (UINT64_C(1) << 32) /* the probability 1, of probabilities in units of 2^-32 */

/*
 * Places regions of pages in a memory of n_pages, as a buddy allocator would whose free memory is fragmented so much:
 * places[j] becomes the page where page j of the regions lies, one region after the other; none is given twice.
 *
 * Regions with a fixed place (fixed[r] is its first page; -1: it has none) take their pages first. What lies between
 * them is cut into the largest aligned blocks that fit, of 2^10 pages at most, and each is split into its halves with
 * probability fragmentation / 2^32, and these again, down to pages. The free blocks of one size are handed out in
 * random order, where fragmentation is 0 in ascending order. Then comes region by region: at page `at` with `left`
 * pages to go it asks for 2^order pages, order being the least of max_orders[r], the trailing zero bits of `at`, and
 * log2(left), so that large blocks hold aligned parts of the region, as large folios do. It gets the next block of that
 * order; where there is none, the lower half of the next larger one, split as often as it takes; where there is none
 * either, the next of the largest blocks there are.
 *
 * counts, max_orders, fixed: one entry a region. places: one entry a page, the sum of counts.
 * Scratch memory: 4 bytes a free block, of which there are no more than pages, and 16 bytes a region.
 * Errors: DEDUPCORE_EINVAL (n_pages beyond DEDUPCORE_MAX_FRAMES; fragmentation beyond DEDUPCORE_ALWAYS; more pages than
 * n_pages; an order beyond DEDUPCORE_MAX_ORDER; fixed regions that overlap or lie outside), DEDUPCORE_ENOMEM.
 */
int dedupcore_place(uint64_t key, uint64_t n_pages, uint64_t fragmentation, const uint64_t *counts,
                    const uint8_t *max_orders, const int64_t *fixed, size_t n_regions, uint32_t *places);

/* What all guests of a kind have in common; an entry a page in each array. */
typedef struct {
    size_t n_pages;
    const uint64_t *names;
    const uint16_t *variables; /* which variable of dedupcore_variation a page depends on */
    const uint8_t *regions;    /* whatever number the caller gives to the region that the page belongs to */
    uint64_t first;            /* the number of the first of these pages, where they are a part of a template */
} dedupcore_template;

/* What one guest makes of it; an entry a variable in each array. */
typedef struct {
    size_t n_variables;
    const uint64_t *values;  /* OR-ed to the names of the variable's pages */
    const uint32_t *chances; /* probability in units of 2^-32 that such a page diverged, to what no other guest has */
    uint64_t own;            /* OR-ed to a page's number in the template, this is the name of a page that diverged */
    uint64_t key;            /* page number i diverged if dedupcore_random(key, i) >> 32 is below its chance */
} dedupcore_variation;

/*
 * Writes each page of the template to its place: its name as the guest has it to names[places[i]], its region to
 * regions[places[i]]; the other of the n_pages entries of both stay as they are. That no two contents get one name is
 * up to the bits that the caller gives to names, values and own.
 * Errors: DEDUPCORE_EINVAL when a page has a place beyond n_pages or a variable that there is none of; *wrong is then
 * the first such page, those before it are written, and those from it on are not.
 */
int dedupcore_name_pages(const dedupcore_template *pages, const dedupcore_variation *variation, const uint32_t *places,
                         uint64_t *names, uint8_t *regions, size_t n_pages, size_t *wrong);

#define DEDUPCORE_QUANTILES 65536u

/*
 * Draws accesses: gpns[i] becomes one of the n_pages pages of working_set, which are ranked from the hottest to the coldest, and
 * writes[i] becomes 1 with probability write_chance / 2^32, else 0. quantiles[k], of DEDUPCORE_QUANTILES + 1 that ascend from 0,
 * is the rank where the first k / DEDUPCORE_QUANTILES of the probability end; between two of them all ranks are equally likely,
 * as long as these are no more than 65536. A rank beyond the last page is that page's.
 *
 * Access i is made of dedupcore_random(key, first + i): with r being that, k its highest 16 bits and part the next 16, the rank
 * is quantiles[k] + (quantiles[k + 1] - quantiles[k]) * part / 65536, rounded down; it is a write if r's lowest 32 bits are below
 * write_chance.
 * Errors: DEDUPCORE_EINVAL (no pages; write_chance beyond DEDUPCORE_ALWAYS).
 */
int dedupcore_draw_accesses(uint64_t key, uint64_t first, const uint32_t *working_set, size_t n_pages,
                            const uint32_t *quantiles, uint64_t write_chance, uint32_t *gpns, uint8_t *writes, size_t n);

#define DEDUPCORE_MIN_TEXTURED_SIZE 64u

/* Textures: what the bytes of a frame look like, apart from the name that stands in them. */
#define DEDUPCORE_SPARSE 0u   /* zero but for one word */
#define DEDUPCORE_NOISE 1u    /* random bytes */
#define DEDUPCORE_ONE_BYTE 2u /* names that agree in all but their lowest 8 bits differ in one byte of noise */
#define DEDUPCORE_PREFIX 3u   /* all frames agree in all but their last 8 bytes */
#define DEDUPCORE_MIXED 4u    /* of 16 runs of 256 names 12 are NOISE, 2 SPARSE, 1 ONE_BYTE, 1 PREFIX */

/*
 * Writes the bytes that stand for n names, of any alignment, frame after frame: zero bytes for name 0, and different
 * bytes for different names, by construction. Names and bytes must not overlap.
 * Errors: DEDUPCORE_EINVAL (frame_size: a power of two from DEDUPCORE_MIN_TEXTURED_SIZE to DEDUPCORE_MAX_FRAME_SIZE;
 * texture).
 */
int dedupcore_materialize(const uint64_t *names, size_t n, size_t frame_size, unsigned texture, void *out);

/* --- files mapped for reading ------------------------------------------------------------------------------------ */

/*
 * A read-only private mapping of the first `size` bytes of a file. When the file shrinks under the mapping, pages that it
 * lost read as zero bytes, and dedupcore_map_shrank tells, where the kernel would end the process with SIGBUS.
 * For that the first mapping installs a SIGBUS handler for the process; faults elsewhere go to whoever handled them before.
 * Whoever installs one later must pass on what is not theirs, or a file that shrinks ends the process again.
 * Threads: the calls take a lock among themselves; they are not for signal handlers.
 */
typedef struct dedupcore_map dedupcore_map;

/* Errors: DEDUPCORE_EINVAL (size 0), DEDUPCORE_ENOMEM, DEDUPCORE_ESYS; *map is then NULL. fd may be closed afterwards. */
int dedupcore_map_create(dedupcore_map **map, int fd, size_t size);
const void *dedupcore_map_base(const dedupcore_map *map);
int dedupcore_map_shrank(const dedupcore_map *map);
void dedupcore_map_destroy(dedupcore_map *map); /* NULL is fine */

/* --- the pool: live guests over frames that they share ------------------------------------------------------------ */

/*
 * A pool has a fixed number of frames, and guests whose pages are mapped to them: each page to one frame or to none (it is
 * absent), each frame to any number of pages. A page gets a frame at its first write, and its own at a write to one that is
 * shared (copy on write). Frames of several guests meet only if these are of one domain.
 *
 * Pages are named by guest and gpn (guest page number, from 0), and calls take batches of them. A call that fails has changed
 * nothing. `wrong`, where a call has it, becomes the index in the batch of what it refused; n where that is not one page.
 *
 * Large pages: see below. Until a guest has some, there is nothing to know about them.
 *
 * Memory: frames are mapped at once, but take memory only while they are in use if they are of at least a page of the
 * machine's: freed ones go back to the operating system, in runs of neighbours, at the end of a batch. Smaller ones are zeroed
 * and kept, but for runs of 64 KiB. Bookkeeping: 6.2 bytes a frame that was ever in use, 4.2 a page of a guest, and 1 more a page
 * that was ever touched or paged out (see below).
 * A free frame is zero bytes; the lowest free one is given first, so that results depend on the calls alone.
 *
 * Threads: dedupcore_pool_read, _memory, _table, _marks, _out, _limit, _large, _large_hints, _count and _check may run side
 * by side.
 * Every other call needs the pool to itself: one writer, and nobody who reads meanwhile, its memory and its page tables
 * included. A child after fork has a copy of its own, which is whole if no call was under way. Different pools are independent.
 */
typedef struct dedupcore_pool dedupcore_pool;

#define DEDUPCORE_ABSENT UINT32_MAX    /* in a page table: the page has no frame */
#define DEDUPCORE_MAX_DOMAINS 65536u
#define DEDUPCORE_OUT 1u               /* a mark of a page: it is paged out */
#define DEDUPCORE_ACCESSED_BY_HOST 2u  /* it was touched since the host last cleared that */
#define DEDUPCORE_ACCESSED_BY_GUEST 4u /* the same, as far as the guest's own kernel has cleared it */
#define DEDUPCORE_LARGE_PAGE 512u      /* pages of a large one, frames of a block: 2 MiB of 4 KiB */
#define DEDUPCORE_MAX_LARGE_FRAME (DEDUPCORE_MAX_FRAME_SIZE / DEDUPCORE_LARGE_PAGE) /* larger frames make none */

/* Frames unless it says pages; since the pool was made, from first_touches on, except large_pages. */
typedef struct {
    uint64_t capacity;
    uint64_t in_use;
    uint64_t pages_present;  /* pages that have a frame; what storing each by itself would take */
    uint64_t zero_frames;    /* in use for zero pages, as far as sharing has found out; apart from the next three */
    uint64_t zero_pages;     /* pages mapped to them */
    uint64_t pages_shared;   /* frames that several pages are mapped to, which is what Linux calls so */
    uint64_t pages_sharing;  /* how many pages more than these frames: what is saved, zero pages apart */
    uint64_t pages_unshared; /* frames that one page is mapped to */
    uint64_t first_touches;  /* absent pages that got a frame */
    uint64_t cow_breaks;     /* pages that got a frame of their own at a write to a shared one */
    uint64_t pages_merged;   /* pages that were moved to an equal frame */
    uint64_t pages_released; /* pages that had a frame, and were released */
    uint64_t large_pages;    /* there are now; each is 512 pages in the numbers above */
    uint64_t large_breaks;   /* large pages that became small ones */
    uint64_t large_rebuilds; /* large pages made of small ones */
} dedupcore_pool_counts;

/*
 * capacity: frames, from 1 to DEDUPCORE_MAX_FRAMES. All frames together are one mapping, aligned to the frame size, or to 2 MiB.
 * Errors: DEDUPCORE_EINVAL (capacity, frame_size), DEDUPCORE_ENOMEM; *pool is then NULL.
 */
int dedupcore_pool_create(dedupcore_pool **pool, uint64_t capacity, size_t frame_size);
void dedupcore_pool_destroy(dedupcore_pool *pool); /* NULL is fine */

/* Frame 0, and behind it the others, at the same place as long as the pool lives. Not to be written. */
const void *dedupcore_pool_memory(const dedupcore_pool *pool);

/*
 * A guest of n_pages pages, all absent; *guest becomes its number: 0, 1 and so on. domain: a number below
 * DEDUPCORE_MAX_DOMAINS, best one of the lowest. The guests of a pool have at most DEDUPCORE_MAX_FRAMES pages together, so
 * that 32 bits count the pages of a frame exactly, whatever they do. Takes 4 bytes a page, and 1 more of those that are touched.
 * Errors: DEDUPCORE_EINVAL (no pages, domain), DEDUPCORE_ETOOBIG, DEDUPCORE_ENOMEM.
 */
int dedupcore_pool_add_guest(dedupcore_pool *pool, uint64_t n_pages, uint32_t domain, uint32_t *guest);

/*
 * The frame of each page of the guest, or DEDUPCORE_ABSENT; at the same place as long as the pool lives. NULL: no such guest.
 * *n_pages, unless it is NULL, becomes how many pages it has.
 */
const uint32_t *dedupcore_pool_table(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages);

/*
 * Writes whole pages: page gpns[i] becomes frame i of data. No gpn may come twice.
 * Errors: DEDUPCORE_EINVAL (guest; a gpn out of range, for the second time or paged out; data within the pool's memory),
 * DEDUPCORE_EFULL: the batch takes more frames than are free.
 */
int dedupcore_pool_write(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const void *data, size_t n,
                         size_t *wrong);

/* Frame i of out becomes what page gpns[i] holds; zero bytes where it is absent, which stays so. Gpns may repeat.
 * Errors: DEDUPCORE_EINVAL (guest; a gpn out of range or paged out; out within the pool's memory). */
int dedupcore_pool_read(const dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, void *out, size_t n,
                        size_t *wrong);

/* The pages become absent, those that are so already, too. Errors: DEDUPCORE_EINVAL as for dedupcore_pool_write. */
int dedupcore_pool_release(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n, size_t *wrong);

/*
 * What policies are made of: moves page gpns[i] to frame into[i], one after the other, each if a comparison finds both
 * equal; merged[i] becomes 1 if it is mapped there now. A frame that the batch itself has freed takes no page any more.
 * Errors: DEDUPCORE_EINVAL (guest; a gpn out of range, for the second time, absent or paged out; a frame that is free or of
 * another domain).
 */
int dedupcore_pool_merge(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const uint32_t *into, size_t n,
                         uint8_t *merged, size_t *wrong);

/*
 * Stores each content once a domain: of equal frames of one domain, which dedupcore_find_duplicates finds, the lowest stays,
 * and gets the pages of the others. *work, unless it is NULL, becomes what finding them took.
 * Scratch memory: that of a job, and 4 bytes a frame; where frames are of several domains or some between are free 8 more, and
 * 32 for each run of neighbours of one domain.
 * Errors: DEDUPCORE_ENOMEM.
 */
int dedupcore_pool_share(dedupcore_pool *pool, const dedupcore_key *key, dedupcore_work *work);

/*
 * A host with too little memory. A guest's accesses are applied as they come, up to the first that cannot be; to go on, pages are
 * paged out: they give up their frames, and what they hold is kept by the caller, who puts it back when they are wanted. Which
 * pages: dedupcore_pool_oldest and _pick tell.
 */

/* Of a batch of accesses: how many were done, pages that got a frame having been absent, and COW breaks among these. */
typedef struct {
    uint64_t done;
    uint64_t first_touches;
    uint64_t cow_breaks;
} dedupcore_touched;

/*
 * Accesses to pages, one after the other; gpns may repeat. Access i is a write if writes[i] is not 0 (writes NULL: all are
 * reads), and the k-th write puts frame k of data into its page, exactly as dedupcore_pool_write does for one page. A read of an
 * absent page leaves it absent. Each access sets both ACCESSED marks of its page; dedupcore_pool_read and _write set none.
 *
 * Stops before an access that cannot be done: its page is paged out (the mark OUT tells), or it takes a frame and none can be
 * given out. touched->done is then less than n.
 * Errors: DEDUPCORE_EINVAL (guest; a gpn out of range; data within the pool's memory).
 */
int dedupcore_pool_touch(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const uint8_t *writes,
                         const void *data, size_t n, dedupcore_touched *touched, size_t *wrong);

/*
 * No more than so many frames are in use, as far as more are given out: where more are already, none is given out until there
 * are fewer. The capacity, until it is set. Errors: DEDUPCORE_EINVAL: more than the capacity.
 */
int dedupcore_pool_set_limit(dedupcore_pool *pool, uint64_t n_frames);
uint64_t dedupcore_pool_limit(const dedupcore_pool *pool);

/*
 * Pages out: frame i of out becomes what page gpns[i] holds, and the page gives up its frame, and is out. Large pages that they
 * are parts of are broken. To the sharing policy they are released.
 * Errors: DEDUPCORE_EINVAL (guest; a gpn out of range, for the second time, absent or out already; out within the pool's
 * memory).
 */
int dedupcore_pool_page_out(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, void *out, size_t n, size_t *wrong);

/*
 * Pages in: page gpns[i], which is out, becomes frame i of data, in a frame of its own, as a page that was just written to the
 * sharing policy. Sets no mark, and is no first touch.
 * Errors: DEDUPCORE_EINVAL (guest; a gpn out of range, for the second time or not out; data within the pool's memory),
 * DEDUPCORE_EFULL: fewer frames than pages can be given out.
 */
int dedupcore_pool_page_in(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const void *data, size_t n,
                           size_t *wrong);

/* Pages that are out become absent: what they held is given up, or lost. Errors: DEDUPCORE_EINVAL as above. */
int dedupcore_pool_forget(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n, size_t *wrong);

/* How many pages of the guest are present, and how many are out; 0 if there is no such guest. */
uint64_t dedupcore_pool_present(const dedupcore_pool *pool, uint32_t guest);
uint64_t dedupcore_pool_out(const dedupcore_pool *pool, uint32_t guest);

/*
 * The marks of each page of the guest: DEDUPCORE_OUT and DEDUPCORE_ACCESSED_*; at the same place as long as the pool lives.
 * NULL: no such guest. *n_pages, unless it is NULL, becomes how many pages it has. The ACCESSED marks stay as they are when a page is
 * released, paged out or paged in.
 */
const uint8_t *dedupcore_pool_marks(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages);

/*
 * accessed[i] becomes whether page gpns[i] has the mark `by`, DEDUPCORE_ACCESSED_BY_HOST or DEDUPCORE_ACCESSED_BY_GUEST, and the
 * mark is cleared. Gpns may repeat. Errors: DEDUPCORE_EINVAL (guest; by; a gpn out of range).
 */
int dedupcore_pool_take_accessed(dedupcore_pool *pool, uint32_t guest, unsigned by, const uint32_t *gpns, size_t n,
                                 uint8_t *accessed, size_t *wrong);

/*
 * Up to n pages that were not accessed for long, by second chance: a hand, one for each guest and mark `by`, goes round its pages
 * from where it was. A page that has the mark loses it and is passed over; one without it is taken, until there are n, or the
 * hand has gone round twice. Those that have no frame are passed over, and those whose byte in `eligible` (NULL: all are) is 0,
 * untouched. For the host, too, those whose frames have other pages: paging them out frees nothing. For the guest, those that
 * are out are there as ever: its own kernel cannot know.
 * gpns[0] to gpns[*found - 1] become those taken. Nothing else happens to them.
 * Errors: DEDUPCORE_EINVAL (guest; by).
 */
int dedupcore_pool_oldest(dedupcore_pool *pool, uint32_t guest, unsigned by, const uint8_t *eligible, uint32_t *gpns,
                          size_t n, size_t *found);

/*
 * The next n pages of the guest that are present, alone in their frames and eligible (as above), in random order: each page is
 * considered once a round, and each round has an order of its own, which the seed decides. Ends with what is left of a round and
 * a whole one, if there are fewer than n. gpns[0] to gpns[*found - 1] become those pages, each once.
 * Errors: DEDUPCORE_EINVAL (guest).
 */
int dedupcore_pool_pick(dedupcore_pool *pool, uint32_t guest, const uint8_t *eligible, uint32_t *gpns, size_t n,
                        size_t *found);

/* The seed of these orders, 0 until it is set. */
void dedupcore_pool_set_seed(dedupcore_pool *pool, uint64_t seed);

/*
 * alone[i] becomes 1 if page gpns[i] has a frame to which no other page is mapped, so that paging it out frees that; else 0.
 * Gpns may repeat. Errors: DEDUPCORE_EINVAL (guest; a gpn out of range).
 */
int dedupcore_pool_alone(const dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n, uint8_t *alone,
                         size_t *wrong);

/*
 * Large pages. Range r of a guest is its pages 512 r to 512 r + 511 (DEDUPCORE_LARGE_PAGE; what is left at the end is in none),
 * block b of the pool its frames 512 b to 512 b + 511. A range is a large page if it lies in one block, page for frame, and is
 * mapped by one entry, as 2 MiB of memory are. Its 512 pages are read and written like others, and have their entries in the
 * page table. But what they hold is not shared: dedupcore_pool_merge and _share neither move them nor move others to
 * their frames, until the large page is broken. Large pages that are equal as a whole are shared as a whole.
 *
 * One entry protects all of a large page or nothing of it. So only one that shares none of its frames is written in place; a
 * write to one that shares some breaks it, and then goes to the page alone: to a frame of its own if its frame is shared. The
 * other 511 pages stay where they are, and so do other large pages in the block. Releasing a page of a large one breaks it first.
 */

/*
 * From now on the first touch of a range of the guest makes it a large page: when a page of it is written, none of which is
 * present, all of it becomes so, zero but for what is written, in the lowest block of free frames. Small pages as ever where no
 * block is free, where one of them is paged out, or where the batch would not fit with it; so a batch is refused only if it does
 * not fit in small pages.
 * Errors: DEDUPCORE_EINVAL (guest; frames above DEDUPCORE_MAX_LARGE_FRAME).
 */
int dedupcore_pool_use_large(dedupcore_pool *pool, uint32_t guest);

/*
 * An entry for each range of the guest, 1 if it is a large page, else 0; at the same place as long as the pool lives. NULL: no
 * such guest. *n_ranges, unless it is NULL, becomes how many ranges it has: none of frames above DEDUPCORE_MAX_LARGE_FRAME.
 */
const uint8_t *dedupcore_pool_large(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_ranges);

/* The large pages become 512 small ones each, where they are. `wrong` is of ranges.
 * Errors: DEDUPCORE_EINVAL (guest; a range that is out of range, there for the second time, or no large page). */
int dedupcore_pool_break_large(dedupcore_pool *pool, uint32_t guest, const uint32_t *ranges, size_t n, size_t *wrong);

/*
 * Ranges of small pages become large pages, one after the other; rebuilt[i] becomes 1 if ranges[i] did, 0 if it stays as it is.
 *  - Broken from a block that holds other large pages, and not changed since: it is one of them again, as shared as before.
 *  - Else, if more than max_shared of its pages share their frames, or none is present, it stays as it is.
 *  - Else, if it still has a block of its own, page for frame, it stays there.
 *  - Else its pages are copied to the lowest block of free frames, absent ones become zero pages, and their frames go to
 *    whom they are left to. Where no block is free, or a page is paged out, it stays as it is.
 * Errors: DEDUPCORE_EINVAL (guest; a range that is out of range, there for the second time, or a large page).
 */
int dedupcore_pool_rebuild_large(dedupcore_pool *pool, uint32_t guest, const uint32_t *ranges, size_t n,
                                 uint32_t max_shared, uint8_t *rebuilt, size_t *wrong);

/*
 * Stores equal large pages once a domain: of blocks that hold them and are equal as a whole, which dedupcore_find_duplicates
 * finds, the lowest stays, and gets the large pages of the others. Memory and work as for dedupcore_pool_share, where a block
 * is a frame. Errors: DEDUPCORE_ENOMEM.
 */
int dedupcore_pool_share_large(dedupcore_pool *pool, const dedupcore_key *key, dedupcore_work *work);

/* What sharing would find in a large page if it were broken. */
typedef struct {
    uint32_t guest;
    uint32_t range;
    uint16_t zero;      /* of its pages: those of zero bytes */
    uint16_t shareable; /* others that are equal to what another frame in use of the domain holds, in this large page or not */
} dedupcore_large_hint;

/*
 * The hints for all n large pages (there are as many as dedupcore_pool_count says), by guest and range; breaks none. Exact:
 * all frames in use are grouped. Memory and work as for dedupcore_pool_share, and a bit a frame.
 * Errors: DEDUPCORE_EINVAL (n), DEDUPCORE_ENOMEM.
 */
int dedupcore_pool_large_hints(const dedupcore_pool *pool, const dedupcore_key *key, dedupcore_large_hint *hints,
                               size_t n, dedupcore_work *work);

void dedupcore_pool_count(const dedupcore_pool *pool, dedupcore_pool_counts *counts);

/* --- sharing policies: the scanners of real systems, over a pool ---------------------------------------------------- */

#define DEDUPCORE_POLICY_DIRTY 1u /* what was written, and nothing else: a dirty log says what */
#define DEDUPCORE_POLICY_KSM 2u   /* Linux 6.18, mm/ksm.c */
#define DEDUPCORE_POLICY_ESX 3u   /* Waldspurger, "Memory resource management in VMware ESX Server", OSDI 2002 */

typedef struct {
    uint32_t kind;             /* DEDUPCORE_POLICY_* */
    uint32_t max_page_sharing; /* KSM: pages that one frame may have, 2 or more */
    uint32_t use_zero_pages;   /* KSM: 0 or 1 */
    uint32_t smart_scan;       /* KSM: 0 or 1 */
    uint64_t seed;             /* ESX: of the order in which pages are looked at */
} dedupcore_policy;

/* Since the policy was set; and, from pages_stable on, now. Pages, unless it says frames. */
typedef struct {
    uint64_t full_scans;    /* of all guests; ESX: of one */
    uint64_t pages_scanned; /* that the original would have looked at */
    uint64_t pages_skipped; /* by smart_scan */
    uint64_t pages_hashed;  /* of these, that it would have read whole for a checksum or hash */
    uint64_t stable_searches, unstable_searches; /* KSM: of its trees */
    uint64_t hints_matched; /* ESX: times that a page's hash was that of a hint, */
    uint64_t hints_stale;   /* of which the hint's page had changed, */
    uint64_t collisions;    /* or held another content with the same hash */
    uint64_t frames_hashed; /* that were really read for it, and */
    uint64_t frames_compared;
    uint64_t pages_stable;  /* mapped to stable frames */
    uint64_t frames_stable; /* write-protected; zero frames apart */
    uint64_t pages_settled; /* KSM: in the unstable tree, which are pages_unshared; ESX: hints */
    uint64_t pages_items;   /* KSM: that it keeps an item for */
    uint64_t pages_changed; /* that the scanner has yet to look at, or, KSM, takes for changing */
} dedupcore_scan_counts;

/*
 * The pool shares by this policy from now on, and then by it alone: dedupcore_pool_share, dedupcore_pool_share_large and
 * dedupcore_pool_merge refuse (DEDUPCORE_EINVAL). It must have neither guests nor a policy.
 *
 * Takes 8.3 bytes a frame that was ever in use, 2 to 4 more a frame that is being shared or could be, and 5 a page of a guest.
 * KSM takes 16 more for each of several shared frames that hold the same and have room, and up to 4 a frame around them.
 * Errors: DEDUPCORE_EINVAL, DEDUPCORE_ENOMEM; the pool is then as it was.
 */
int dedupcore_pool_set_policy(dedupcore_pool *pool, const dedupcore_policy *policy, const dedupcore_key *key);

/*
 * Lets the scanner go on for up to n_pages pages, as its original counts them. *ended becomes 1 if it met the end of the last
 * guest, where it stops, and goes on with the first one at the next call; else 0.
 * DIRTY: pages that were written, in ascending order, each merged with an equal one if there is any; zero pages are stored once
 * apart. KSM: see its source and documentation; one call is one time that it wakes up.
 * A page that was ever merged is written by copy on write even if its frame has no other page left, as in the originals.
 * Errors: DEDUPCORE_EINVAL (no policy, or ESX).
 */
int dedupcore_pool_scan(dedupcore_pool *pool, uint64_t n_pages, int *ended);

/*
 * The same for one guest under the policy ESX: *n_pages more of its pages, absent ones too, in an order that is random and
 * another one in each pass. If its pass ends it stops; *ended becomes 1, and *n_pages how many are left; else 0 and 0.
 * Errors: DEDUPCORE_EINVAL (another policy, or none; guest).
 */
int dedupcore_pool_scan_guest(dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages, int *ended);

/* All zero if the pool has no policy. */
void dedupcore_pool_scan_count(const dedupcore_pool *pool, dedupcore_scan_counts *counts);

/* What dedupcore_pool_check found, and where: UINT32_MAX, UINT64_MAX for what it is not about. */
typedef struct {
    const char *what; /* one line in English */
    uint32_t guest;
    uint64_t page;
    uint64_t frame;
} dedupcore_flaw;

/*
 * Proves that the pool is as it says: every page's frame is in use and of its domain; pages that are out have none, and are as
 * many as counted; every frame is mapped as often as counted, and in use if it is mapped at all; large pages lie in one block
 * each, where no small page was moved to; free frames are zero bytes, and frames said to be zero are; the free frames and blocks
 * are found; all counters are right. Reads everything; takes 4 bytes a frame that was ever in use.
 * Errors: DEDUPCORE_EBROKEN, and *flaw is the first that was found; DEDUPCORE_ENOMEM.
 */
int dedupcore_pool_check(const dedupcore_pool *pool, dedupcore_flaw *flaw);

/* --- the TLB: what translation costs ------------------------------------------------------------------------------- */

#define DEDUPCORE_PAGE_4K 0u /* page sizes */
#define DEDUPCORE_PAGE_2M 1u
#define DEDUPCORE_PAGE_1G 2u
#define DEDUPCORE_PAGE_SIZES 3u
#define DEDUPCORE_MAX_CACHES 16u
#define DEDUPCORE_DATA_CACHES 3u
#define DEDUPCORE_NO_CACHE UINT8_MAX
#define DEDUPCORE_MAX_CACHE (1u << 26) /* entries of a cache */

/*
 * A cache of which the least recently used entry of a set makes room. ways must divide entries, and entries / ways, the sets, be
 * a power of two; as many ways as entries is fully associative. 0 entries: it holds nothing.
 */
typedef struct {
    uint32_t entries;
    uint32_t ways;
} dedupcore_cache;

/*
 * A CPU's caches of translations, and which of them holds what: the number of a cache, or DEDUPCORE_NO_CACHE; what has the same
 * number shares it. l1, l2: the two levels of TLB, for pages of each size. l2_as: the size of the entries as which L2 holds
 * pages of a size, no larger than that: AMD holds 1 GiB as 2 MiB there. walk[l]: entries of page tables that cover 2 MiB (l = 0),
 * 1 GiB and 512 GiB, and point to a table (Intel's paging-structure caches, AMD's page directory cache). nested: under a host,
 * where guest-physical pages are, of all sizes; host_walk: as walk, of the host's tables.
 * data: L1 to L3, of lines of 64 bytes, which hold what is accessed and page table entries; if data[0] has no entries, there are
 * none, and all lines count as found in memory.
 */
typedef struct {
    dedupcore_cache caches[DEDUPCORE_MAX_CACHES];
    uint8_t l1[DEDUPCORE_PAGE_SIZES], l2[DEDUPCORE_PAGE_SIZES], l2_as[DEDUPCORE_PAGE_SIZES];
    uint8_t walk[3], nested, host_walk[3];
    dedupcore_cache data[DEDUPCORE_DATA_CACHES];
} dedupcore_tlb_geometry;

/*
 * Accesses by where their translation was found, and by page size: under a host, of the smaller of the two pages. references: page
 * table entries that walks read, of the addresses' own tables and of the host's. walk_hits, host_walk_hits, nested_hits: reads
 * that caches saved. references_found, data_found: the data cache in which lines were found; the last one is memory.
 */
typedef struct {
    uint64_t l1_hits[DEDUPCORE_PAGE_SIZES], l2_hits[DEDUPCORE_PAGE_SIZES], walks[DEDUPCORE_PAGE_SIZES];
    uint64_t references[2];
    uint64_t walk_hits[3], host_walk_hits[3], nested_hits;
    uint64_t references_found[DEDUPCORE_DATA_CACHES + 1], data_found[DEDUPCORE_DATA_CACHES + 1];
} dedupcore_tlb_counts;

typedef struct dedupcore_tlb dedupcore_tlb;

/* Of empty caches, and no memory. Errors: DEDUPCORE_EINVAL (a cache, a number or an l2_as that cannot be), DEDUPCORE_ENOMEM. */
int dedupcore_tlb_create(dedupcore_tlb **tlb, const dedupcore_tlb_geometry *geometry);
void dedupcore_tlb_destroy(dedupcore_tlb *tlb); /* NULL is fine */

/*
 * Gives it n_ranges of 2 MiB of memory, from address 0, and empties all caches. sizes: of the page that each range is in or
 * consists of; a page of 1 GiB is 512 aligned ranges. host_sizes: the same of the host's pages under them, or NULL: no host.
 * table_size: of the host's pages under the guest's page tables. *wrong: the first range that is wrong, or n_ranges.
 * Errors: DEDUPCORE_EINVAL (no such size, a part of a page of 1 GiB, no ranges or more than 2^27), DEDUPCORE_ENOMEM.
 */
int dedupcore_tlb_map(dedupcore_tlb *tlb, const uint8_t *sizes, const uint8_t *host_sizes, size_t n_ranges,
                      unsigned table_size, size_t *wrong);

/*
 * Accesses these addresses, in bytes, in order. Allocates nothing.
 * Errors: DEDUPCORE_EINVAL (address *wrong is beyond the memory); nothing was accessed.
 */
int dedupcore_tlb_access(dedupcore_tlb *tlb, const uint64_t *addresses, size_t n, size_t *wrong);

/* What was counted since it was made. */
void dedupcore_tlb_count(const dedupcore_tlb *tlb, dedupcore_tlb_counts *counts);

#ifdef __cplusplus
}
#endif
#endif
