/* What the calls on a pool share: its parts, and the steps that keep its counts right. */
#ifndef DEDUPCORE_POOL_H
#define DEDUPCORE_POOL_H

#include "dedupcore.h"
#include "frames.h"

typedef struct {
    uint32_t *table;  /* [n_pages] frame or DEDUPCORE_ABSENT */
    uint64_t *met;    /* a bit a page, all zero between calls: which were met in a batch */
    uint8_t *marks;   /* [n_pages] DEDUPCORE_OUT and DEDUPCORE_ACCESSED_* */
    uint8_t *large;   /* [n_pages / DEDUPCORE_LARGE_PAGE + 1] 1: these pages are a large one; the last range may be short */
    uint64_t n_pages;
    uint64_t first; /* page 0 is page so many of all guests' */
    uint64_t looked, passes; /* of the policy esx: pages in this pass, and passes before it */
    uint16_t domain;
    uint64_t n_present, n_out; /* pages that have a frame, and that are paged out */
    uint64_t hands[2]; /* of the clocks of dedupcore_pool_oldest: of the host's marks, and of the guest's own */
    uint64_t picked, rounds; /* of dedupcore_pool_pick: pages in this round, and rounds before it */
    uint64_t n_large;
    uint8_t wants_large; /* 1: the first touch of a range makes it a large page */
    region table_memory, met_memory, marks_memory;
} pool_guest;

/* What lies in a block: DEDUPCORE_LARGE_PAGE frames, the first of which has a number divisible by it. */
typedef struct {
    uint32_t large; /* large pages */
    uint32_t mixed; /* 1: beside them there may be small pages, left of large ones that were broken */
} pool_block;

struct dedupcore_pool {
    frame_store frames;
    uint64_t limit; /* frames that may be in use, as far as more are given out */
    uint64_t seed;  /* of the order in which pages are picked */
    uint32_t *refs;    /* [capacity] pages mapped to the frame; 0: it is free, or will be at the end of the call */
    uint16_t *domains; /* [capacity] of the frame, while it is in use */
    pool_block *blocks; /* [capacity / DEDUPCORE_LARGE_PAGE + 1] */
    region refs_memory, domains_memory, blocks_memory;

    pool_guest *guests;
    size_t n_guests, room_for_guests;
    uint64_t n_pages; /* of all guests */

    uint32_t *zero_frames; /* [n_domains] the frame that all zero pages had when they were shared, or DEDUPCORE_ABSENT */
    size_t n_domains, room_for_domains;

    uint64_t n_shared; /* frames with several pages, zero frames included */
    uint64_t n_large;  /* large pages of all guests */
    uint64_t first_touches, cow_breaks, merged, released, large_breaks, large_rebuilds;

    struct scan *scan; /* of the sharing policy; NULL: it has none */
};

/* What the policy is told of: see scan.c. `left`: the pages that a frame still has. A page is written, or released, with its
 * frame changed already. scan_unprotect: the one page of a frame writes to it; returns whether the frame was a stable one.
 * scan_frame_large: its block is about to hold a large page, whose pages are then written, as far as the policy knows.
 * scan_large_broken: the large page that begins there was. scan_break_large: breaks one, and does what is due then. */
int scan_add_pages(dedupcore_pool *pool, uint64_t n_pages);
void scan_page_written(dedupcore_pool *pool, uint64_t page);
void scan_page_released(dedupcore_pool *pool, uint64_t page);
void scan_frame_left(dedupcore_pool *pool, uint32_t frame, uint32_t left);
int scan_unprotect(dedupcore_pool *pool, uint32_t frame);
void scan_frame_large(dedupcore_pool *pool, uint32_t frame);
void scan_large_broken(dedupcore_pool *pool, uint64_t page);
void scan_break_large(dedupcore_pool *pool, uint32_t guest, uint32_t range);
int scan_check(const dedupcore_pool *pool, dedupcore_flaw *flaw);
void scan_close(dedupcore_pool *pool);

/* How many frames can be given out. */
static inline uint64_t pool_n_free(const dedupcore_pool *pool)
{
    return pool->frames.in_use < pool->limit ? pool->limit - pool->frames.in_use : 0;
}

/* Whether the frames of a large page can be: so many of them, and in one block. */
static inline int pool_has_block(const dedupcore_pool *pool)
{
    return pool_n_free(pool) >= DEDUPCORE_LARGE_PAGE && frames_have_block(&pool->frames);
}

/* Whether the page has no frame, and what it holds is elsewhere. */
static inline int pool_is_out(const pool_guest *guest, uint64_t gpn)
{
    return guest->marks[gpn] & DEDUPCORE_OUT;
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

/*
 * --- large pages: pool_large.c
 *
 * A block that holds a large page has its 512 frames in use, each mapped by every large page that lies there. A small page is
 * mapped to one of them only if it is what was left, at its place, when such a large page was broken; no other is moved there.
 */

/* How many ranges of DEDUPCORE_LARGE_PAGE pages can be large ones: the last pages, if they are fewer, cannot. */
static inline uint64_t pool_n_ranges(const dedupcore_pool *pool, const pool_guest *guest)
{
    return pool->frames.frame_size <= DEDUPCORE_MAX_LARGE_FRAME ? guest->n_pages / DEDUPCORE_LARGE_PAGE : 0;
}

/* The part of the page table that is the range's. */
static inline uint32_t *pool_range(const pool_guest *guest, uint32_t range)
{
    return guest->table + (size_t)range * DEDUPCORE_LARGE_PAGE;
}

/* Whether the page is a part of a large one. It then shares no frame by itself, and takes no other page into its own. */
static inline int pool_is_large(const pool_guest *guest, uint32_t gpn)
{
    return guest->large[gpn / DEDUPCORE_LARGE_PAGE];
}

/* Whether a large page lies in the frame's block: then no small page may be moved to the frame. */
static inline int pool_holds_large(const dedupcore_pool *pool, uint32_t frame)
{
    return pool->blocks[frame / DEDUPCORE_LARGE_PAGE].large != 0;
}

/* Whether the block's only large page shares no frame of it with small ones, once `mixed` says that it may. */
int pool_is_unmixed(const dedupcore_pool *pool, uint32_t block);

/*
 * Whether the large page that lies in the frame's block is alone there, so that it may be written in place: as with real page
 * tables, where one entry protects all of a large page, or nothing of it.
 */
static inline int pool_owns_block(dedupcore_pool *pool, uint32_t frame)
{
    pool_block *block = pool->blocks + frame / DEDUPCORE_LARGE_PAGE;
    if (block->large == 1 && block->mixed)
        block->mixed = !pool_is_unmixed(pool, frame / DEDUPCORE_LARGE_PAGE);
    return block->large == 1 && !block->mixed;
}

/*
 * Makes large pages, all zero, of ranges that these pages of the guest are of: of each that has no frame yet, in the order of
 * the pages, as long as there is a free block, and as writing the pages then takes at most `spare` frames more than as small
 * ones.
 */
void pool_touch_large(dedupcore_pool *pool, pool_guest *guest, const uint32_t *gpns, size_t n, uint64_t spare);

/* The same for the page alone, which is absent; there must be a free frame. */
void pool_touch_one_large(dedupcore_pool *pool, pool_guest *guest, uint32_t gpn);

/* The large page that the page is a part of becomes small ones, where they are. */
static inline void pool_break_large(dedupcore_pool *pool, pool_guest *guest, uint32_t gpn)
{
    pool_block *block = pool->blocks + guest->table[gpn] / DEDUPCORE_LARGE_PAGE;
    guest->large[gpn / DEDUPCORE_LARGE_PAGE] = 0;
    block->large--;
    block->mixed = block->large != 0;
    guest->n_large--;
    pool->n_large--;
    pool->large_breaks++;
    if (pool->scan)
        scan_large_broken(pool, guest->first + gpn / DEDUPCORE_LARGE_PAGE * DEDUPCORE_LARGE_PAGE);
}

#endif
