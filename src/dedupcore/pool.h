/* What the calls on a pool share: its parts, and the steps that keep its counts right. */
#ifndef DEDUPCORE_POOL_H
#define DEDUPCORE_POOL_H

#include "dedupcore.h"
#include "frames.h"

typedef struct {
    uint32_t *table;  /* [n_pages] frame or DEDUPCORE_ABSENT */
    uint64_t *marks;  /* a bit a page, all zero between calls: which were met in a batch */
    uint64_t n_pages;
    uint64_t first; /* page 0 is page so many of all guests' */
    uint64_t looked, passes; /* of the policy esx: pages in this pass, and passes before it */
    uint16_t domain;
    region table_memory, marks_memory;
} pool_guest;

struct dedupcore_pool {
    frame_store frames;
    uint32_t *refs;    /* [capacity] pages mapped to the frame; 0: it is free, or will be at the end of the call */
    uint16_t *domains; /* [capacity] of the frame, while it is in use */
    region refs_memory, domains_memory;

    pool_guest *guests;
    size_t n_guests, room_for_guests;
    uint64_t n_pages; /* of all guests */

    uint32_t *zero_frames; /* [n_domains] the frame that all zero pages had when they were shared, or DEDUPCORE_ABSENT */
    size_t n_domains, room_for_domains;

    uint64_t n_present;
    uint64_t n_shared; /* frames with several pages, zero frames included */
    uint64_t first_touches, cow_breaks, merged, released;

    struct scan *scan; /* of the sharing policy; NULL: it has none */
};

/* What the policy is told of: see scan.c. `left`: the pages that a frame still has. A page is written, or released, with its
 * frame changed already. scan_unprotect: the one page of a frame writes to it; returns whether the frame was a stable one. */
int scan_add_pages(dedupcore_pool *pool, uint64_t n_pages);
void scan_page_written(dedupcore_pool *pool, uint64_t page);
void scan_page_released(dedupcore_pool *pool, uint64_t page);
void scan_frame_left(dedupcore_pool *pool, uint32_t frame, uint32_t left);
int scan_unprotect(dedupcore_pool *pool, uint32_t frame);
int scan_check(const dedupcore_pool *pool, dedupcore_flaw *flaw);
void scan_close(dedupcore_pool *pool);

static inline uint64_t pool_n_free(const dedupcore_pool *pool)
{
    return pool->frames.capacity - pool->frames.in_use;
}

/* Whether a page can be mapped to the frame: 0 for one that is in use only until the end of the call. */
static inline int pool_is_mapped(const dedupcore_pool *pool, uint32_t frame)
{
    return frame < pool->frames.touched && frames_in_use(&pool->frames, frame) && pool->refs[frame];
}

/* A frame for the one page of the domain that the caller maps to it; there must be a free one. */
static inline uint32_t pool_new_frame(dedupcore_pool *pool, uint16_t domain)
{
    const uint32_t frame = frames_take(&pool->frames);
    pool->refs[frame] = 1;
    pool->domains[frame] = domain;
    return frame;
}

static inline void pool_add_ref(dedupcore_pool *pool, uint32_t frame)
{
    pool->n_shared += ++pool->refs[frame] == 2;
}

/* Its content is about to be another one, or it is given up. */
static inline void pool_forget_zero(dedupcore_pool *pool, uint32_t frame)
{
    uint32_t *zero = pool->zero_frames + pool->domains[frame];
    if (*zero == frame)
        *zero = DEDUPCORE_ABSENT;
}

static inline void pool_drop_ref(dedupcore_pool *pool, uint32_t frame)
{
    const uint32_t left = --pool->refs[frame];
    pool->n_shared -= left == 1;
    if (pool->scan)
        scan_frame_left(pool, frame, left);
    if (left == 0) {
        pool_forget_zero(pool, frame);
        frames_free(&pool->frames, frame);
    }
}

#endif
