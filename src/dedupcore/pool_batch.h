/* What the batches of a pool share: what is wrong with one, and its steps. Part of the pool. */
#ifndef DEDUPCORE_POOL_BATCH_H
#define DEDUPCORE_POOL_BATCH_H

#include <string.h>

#include "pool.h"

enum {
    TABLE_AHEAD = 32, /* pages between the fetch of a table entry and its use: memory's latency */
    FRAME_AHEAD = 16, /* the same for what the entry leads to, so that the entry is there */
};

/* --- what is wrong with a batch: pool_batch.c -------------------------------------------------------------------- */

/* Whether all are pages of the guest; if not, *wrong is the first that is none. */
int batch_in_range(const pool_guest *guest, const uint32_t *gpns, size_t n, size_t *wrong);

/* In range, and none twice. */
int batch_is_distinct(pool_guest *guest, const uint32_t *gpns, size_t n, size_t *wrong);

/* In range, none twice, and none paged out. */
int batch_is_in(pool_guest *guest, const uint32_t *gpns, size_t n, size_t *wrong);

/* Whether the bytes of a caller's are apart from the pool's. */
int batch_is_outside(const dedupcore_pool *pool, const void *bytes, size_t n);

/* --- the steps of a batch ---------------------------------------------------------------------------------------- */

/* Fetches what the pages ahead of number i will need. */
static inline void fetch_ahead(const dedupcore_pool *pool, const pool_guest *guest, const uint32_t *gpns, size_t i,
                               size_t n)
{
    if (i + TABLE_AHEAD < n)
        __builtin_prefetch(guest->table + gpns[i + TABLE_AHEAD]);
    if (i + FRAME_AHEAD < n) {
        const uint32_t frame = guest->table[gpns[i + FRAME_AHEAD]];
        if (frame != DEDUPCORE_ABSENT) {
            __builtin_prefetch(pool->refs + frame);
            __builtin_prefetch(frames_at(&pool->frames, frame));
        }
    }
}

static inline void copy_frame(void *to, const void *from, size_t frame_size)
{
    if (frame_size == 8) /* content names: a call would take longer than the copy */
        memcpy(to, from, 8);
    else
        memcpy(to, from, frame_size);
}

/* The frame that the page's new content goes to; one that has none, or shares it, gets a free one, and there must be one. */
static inline uint32_t frame_to_write(dedupcore_pool *pool, pool_guest *guest, uint32_t gpn)
{
    const uint32_t before = guest->table[gpn];
    if (before != DEDUPCORE_ABSENT && pool->refs[before] == 1) {
        pool_forget_zero(pool, before);
        pool->cow_breaks += pool->scan && scan_unprotect(pool, before); /* the last page of a shared frame keeps it */
        return before;
    }
    if (before == DEDUPCORE_ABSENT) {
        guest->n_present++;
        pool->first_touches++;
    } else {
        pool_drop_ref(pool, before);
        pool->cow_breaks++;
    }
    return guest->table[gpn] = pool_new_frame(pool, guest->domain);
}

/* The page gives up its frame, and is absent; a large page that it is a part of becomes small ones. */
static inline void give_up_frame(dedupcore_pool *pool, pool_guest *guest, uint32_t gpn)
{
    const uint32_t frame = guest->table[gpn];
    if (pool_is_large(guest, gpn))
        pool_break_large(pool, guest, gpn);
    guest->table[gpn] = DEDUPCORE_ABSENT;
    if (pool->scan)
        scan_page_released(pool, guest->first + gpn);
    pool_drop_ref(pool, frame);
    guest->n_present--;
}

#endif
