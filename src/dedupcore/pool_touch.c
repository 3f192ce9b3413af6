/*
 * What guests do: accesses in order, reads and writes, pages as often as they come.
 *
 * Most are accesses to a page that may be accessed, and most writes go to a frame that may be written. So accesses are taken
 * some at a time: first the writes of them are listed, then what these need is fetched, then they are done, and at last all of
 * them, reads too, leave their marks. A read does nothing else: so that it is marked after a later write cannot be told.
 */
#include <string.h>

#include "pool_batch.h"
#include "scan.h"

enum {
    TOGETHER = 64,
    ACCESSED = DEDUPCORE_ACCESSED_BY_HOST | DEDUPCORE_ACCESSED_BY_GUEST,
};

/* Some accesses, and which of them are writes: their numbers and pages, in order. */
typedef struct {
    const uint32_t *gpns;
    size_t n, n_writes;
    uint8_t which[TOGETHER];
    uint32_t written[TOGETHER];
} turn;

/* Lists the writes among the accesses from number `at` on, and fetches what is known by their pages. */
static inline void list_writes(const dedupcore_pool *pool, const pool_guest *guest, turn *t, const uint32_t *gpns,
                               const uint8_t *writes, size_t at, size_t n)
{
    size_t n_writes = 0;
    t->gpns = gpns + at;
    t->n = at >= n ? 0 : n - at < TOGETHER ? n - at : TOGETHER;
    for (size_t i = 0; i < t->n; i++)
        __builtin_prefetch(guest->marks + t->gpns[i], 1);
    for (size_t i = 0; writes && i < t->n; i++) {
        t->which[n_writes] = (uint8_t)i;
        t->written[n_writes] = t->gpns[i];
        n_writes += writes[at + i] != 0;
    }
    for (size_t i = 0; i < n_writes; i++)
        __builtin_prefetch(guest->table + t->written[i]);
    for (size_t i = 0; pool->scan && i < n_writes; i++)
        __builtin_prefetch(pool->scan->pages + guest->first + t->written[i]);
    t->n_writes = n_writes;
}

/* Fetches what is known by the frames of the pages that are written. */
static inline void fetch_frames(const dedupcore_pool *pool, const pool_guest *guest, const turn *t)
{
    for (size_t i = 0; i < t->n_writes; i++) {
        const uint32_t frame = guest->table[t->written[i]];
        if (frame != DEDUPCORE_ABSENT) {
            __builtin_prefetch(pool->refs + frame);
            __builtin_prefetch(frames_at(&pool->frames, frame), 1);
            if (pool->scan)
                __builtin_prefetch(pool->scan->index.stable + frame / 64);
        }
    }
}

/* Whether the page is a part of a large one of which it is not known that it may be written in place. */
static inline int is_protected(const dedupcore_pool *pool, const pool_guest *guest, uint32_t gpn, uint32_t frame)
{
    const pool_block *block = pool->blocks + frame / DEDUPCORE_LARGE_PAGE;
    return guest->n_large && pool_is_large(guest, gpn) && (block->large != 1 || block->mixed);
}

/* The frame that the page is written to if it takes nothing but that, or DEDUPCORE_ABSENT. */
static inline uint32_t frame_in_place(const dedupcore_pool *pool, const pool_guest *guest, uint32_t gpn)
{
    const uint32_t frame = guest->table[gpn];
    if (frame == DEDUPCORE_ABSENT || pool->refs[frame] != 1 || pool->zero_frames[guest->domain] == frame ||
        is_protected(pool, guest, gpn, frame) || (pool->scan && scan_is_stable(pool->scan, frame)))
        return DEDUPCORE_ABSENT;
    return frame;
}

/* The same if it takes more: a free frame, or a large page made or broken. DEDUPCORE_ABSENT: it cannot be, and nothing changed. */
static __attribute__((noinline)) uint32_t frame_for(dedupcore_pool *pool, pool_guest *guest, uint32_t gpn)
{
    const uint32_t frame = guest->table[gpn];
    if ((frame == DEDUPCORE_ABSENT || pool->refs[frame] > 1) && pool_n_free(pool) == 0)
        return DEDUPCORE_ABSENT;
    if (frame == DEDUPCORE_ABSENT && guest->wants_large)
        pool_touch_one_large(pool, guest, gpn);
    else if (frame != DEDUPCORE_ABSENT && pool_is_large(guest, gpn) && !pool_owns_block(pool, frame))
        pool_break_large(pool, guest, gpn);
    return frame_to_write(pool, guest, gpn);
}

/* Does the writes, and returns the number of the first access that cannot be done; t->n if all can. */
static inline size_t do_writes(dedupcore_pool *pool, pool_guest *guest, const turn *t, const uint8_t *data)
{
    const size_t size = pool->frames.frame_size;
    for (size_t i = 0; i < t->n_writes; i++) {
        const uint32_t gpn = t->written[i];
        uint32_t frame = frame_in_place(pool, guest, gpn);
        if (frame == DEDUPCORE_ABSENT && (frame = frame_for(pool, guest, gpn)) == DEDUPCORE_ABSENT)
            return t->which[i];
        if (pool->scan && scan_state(pool->scan, guest->first + gpn) != PAGE_CHANGED)
            scan_page_written(pool, guest->first + gpn);
        copy_frame(frames_at(&pool->frames, frame), data + i * size, size);
    }
    return t->n;
}

/* Ends the accesses before the first one whose page is out. */
static void end_before_out(const pool_guest *guest, turn *t)
{
    size_t i = 0;
    while (i < t->n && !pool_is_out(guest, t->gpns[i]))
        i++;
    t->n = i;
    while (t->n_writes && t->which[t->n_writes - 1] >= i)
        t->n_writes--;
}

static uint64_t count_writes(const uint8_t *writes, size_t n)
{
    uint64_t count = 0;
    for (size_t i = 0; writes && i < n; i++)
        count += writes[i] != 0;
    return count;
}

int dedupcore_pool_touch(dedupcore_pool *pool, uint32_t number, const uint32_t *gpns, const uint8_t *writes,
                         const void *data, size_t n, dedupcore_touched *touched, size_t *wrong)
{
    *touched = (dedupcore_touched){0, 0, 0};
    *wrong = n;
    if (number >= pool->n_guests || !batch_is_outside(pool, data, count_writes(writes, n)))
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    if (!batch_in_range(guest, gpns, n, wrong))
        return DEDUPCORE_EINVAL;
    const uint64_t first_touches = pool->first_touches, cow_breaks = pool->cow_breaks;
    const uint8_t *from = data;
    turn turns[3]; /* under way: one is done, the frames of the next one are fetched, and the pages of that after it */
    size_t done = 0;
    list_writes(pool, guest, turns, gpns, writes, 0, n);
    list_writes(pool, guest, turns + 1, gpns, writes, TOGETHER, n);
    fetch_frames(pool, guest, turns);
    for (size_t at = 0, which = 0; at < n; at += TOGETHER, which = which == 2 ? 0 : which + 1) {
        turn *t = turns + which;
        const size_t wanted = t->n;
        list_writes(pool, guest, turns + (which + 2) % 3, gpns, writes, at + 2 * TOGETHER, n);
        fetch_frames(pool, guest, turns + (which + 1) % 3);
        if (guest->n_out)
            end_before_out(guest, t);
        const size_t n_done = do_writes(pool, guest, t, from);
        for (size_t i = 0; i < n_done; i++)
            guest->marks[t->gpns[i]] |= ACCESSED;
        from += t->n_writes * pool->frames.frame_size;
        done += n_done;
        if (n_done < wanted)
            break;
    }
    *touched = (dedupcore_touched){done, pool->first_touches - first_touches, pool->cow_breaks - cow_breaks};
    return 0;
}
