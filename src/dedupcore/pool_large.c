/*
 * Large pages: a range of a guest's pages, DEDUPCORE_LARGE_PAGE from a number divisible by it on, that lies in one block of
 * frames, page for frame, and is mapped there by one entry. Made at the first touch, broken, rebuilt.
 */
#include <string.h>

#include "pool.h"

/* The range, whose pages are mapped to the block already, is a large page from now on. */
static void make_large(dedupcore_pool *pool, pool_guest *guest, uint32_t range)
{
    for (uint64_t i = 0; pool->scan && i < DEDUPCORE_LARGE_PAGE; i++)
        scan_page_written(pool, guest->first + (uint64_t)range * DEDUPCORE_LARGE_PAGE + i);
    guest->large[range] = 1;
    pool->blocks[*pool_range(guest, range) / DEDUPCORE_LARGE_PAGE].large++;
    guest->n_large++;
    pool->n_large++;
}

int pool_is_unmixed(const dedupcore_pool *pool, uint32_t block)
{
    const uint32_t *refs = pool->refs + (size_t)block * DEDUPCORE_LARGE_PAGE;
    uint32_t more = 0;
    for (uint32_t i = 0; i < DEDUPCORE_LARGE_PAGE; i++)
        more |= refs[i] ^ 1;
    return more == 0;
}

/* --- first touch ------------------------------------------------------------------------------------------------- */

/* Whether a page of the range is paged out: what it holds cannot be a part of a large page before it is back. */
static int has_out(const pool_guest *guest, uint32_t range)
{
    const uint8_t *marks = guest->marks + (size_t)range * DEDUPCORE_LARGE_PAGE;
    uint8_t all = 0;
    for (uint32_t i = 0; i < DEDUPCORE_LARGE_PAGE && guest->n_out; i++)
        all |= marks[i];
    return all & DEDUPCORE_OUT;
}

static int is_untouched(const pool_guest *guest, uint32_t range)
{
    const uint32_t *pages = pool_range(guest, range);
    for (uint32_t i = 0; i < DEDUPCORE_LARGE_PAGE; i++) {
        if (pages[i] != DEDUPCORE_ABSENT)
            return 0;
    }
    return !has_out(guest, range);
}

/* A block of free frames, for the pages of one large page of the domain. */
static uint32_t new_block(dedupcore_pool *pool, uint16_t domain)
{
    const uint32_t first = frames_take_block(&pool->frames);
    for (uint32_t i = 0; i < DEDUPCORE_LARGE_PAGE; i++) {
        pool->refs[first + i] = 1;
        pool->domains[first + i] = domain;
    }
    return first;
}

/* Gives the range, which is untouched, a block of frames. */
static void fill_range(dedupcore_pool *pool, pool_guest *guest, uint32_t range)
{
    const uint32_t first = new_block(pool, guest->domain);
    for (uint32_t i = 0; i < DEDUPCORE_LARGE_PAGE; i++)
        pool_range(guest, range)[i] = first + i;
    guest->n_present += DEDUPCORE_LARGE_PAGE;
    pool->first_touches += DEDUPCORE_LARGE_PAGE;
    make_large(pool, guest, range);
}

void pool_touch_large(dedupcore_pool *pool, pool_guest *guest, const uint32_t *gpns, size_t n, uint64_t spare)
{
    enum { MET_WORDS = DEDUPCORE_LARGE_PAGE / 64 };
    const uint64_t n_ranges = pool_n_ranges(pool, guest);
    uint32_t seen = UINT32_MAX;
    for (size_t i = 0; i < n; i++)
        guest->met[gpns[i] / 64] |= UINT64_C(1) << gpns[i] % 64;
    for (size_t i = 0; i < n && pool_has_block(pool); i++) {
        const uint32_t range = gpns[i] / DEDUPCORE_LARGE_PAGE;
        if (range == seen || range >= n_ranges)
            continue;
        seen = range;
        uint64_t more = DEDUPCORE_LARGE_PAGE;
        for (size_t word = 0; word < MET_WORDS; word++)
            more -= (uint64_t)__builtin_popcountll(guest->met[(size_t)range * MET_WORDS + word]);
        if (more > spare || !is_untouched(guest, range))
            continue;
        spare -= more;
        fill_range(pool, guest, range);
    }
    for (size_t i = 0; i < n; i++)
        guest->met[gpns[i] / 64] = 0;
}

void pool_touch_one_large(dedupcore_pool *pool, pool_guest *guest, uint32_t gpn)
{
    const uint32_t range = gpn / DEDUPCORE_LARGE_PAGE;
    if (range < pool_n_ranges(pool, guest) && pool_has_block(pool) && is_untouched(guest, range))
        fill_range(pool, guest, range);
}

int dedupcore_pool_use_large(dedupcore_pool *pool, uint32_t number)
{
    if (number >= pool->n_guests || pool->frames.frame_size > DEDUPCORE_MAX_LARGE_FRAME)
        return DEDUPCORE_EINVAL;
    pool->guests[number].wants_large = 1;
    return 0;
}

const uint8_t *dedupcore_pool_large(const dedupcore_pool *pool, uint32_t number, uint64_t *n_ranges)
{
    if (number >= pool->n_guests)
        return NULL;
    if (n_ranges)
        *n_ranges = pool_n_ranges(pool, pool->guests + number);
    return pool->guests[number].large;
}

/* --- breaking and rebuilding ------------------------------------------------------------------------------------- */

/* Whether all are ranges of the guest, none comes twice, and each is large, or none. */
static int are_ranges(const dedupcore_pool *pool, pool_guest *guest, const uint32_t *ranges, size_t n, int large,
                      size_t *wrong)
{
    const uint64_t n_ranges = pool_n_ranges(pool, guest);
    size_t i = 0;
    for (; i < n && ranges[i] < n_ranges && guest->large[ranges[i]] == large; i++) {
        uint64_t *word = guest->met + ranges[i] / 64;
        if (*word >> ranges[i] % 64 & 1)
            break;
        *word |= UINT64_C(1) << ranges[i] % 64;
    }
    for (size_t j = 0; j < i; j++)
        guest->met[ranges[j] / 64] = 0;
    *wrong = i;
    return i == n;
}

int dedupcore_pool_break_large(dedupcore_pool *pool, uint32_t number, const uint32_t *ranges, size_t n, size_t *wrong)
{
    *wrong = n;
    if (number >= pool->n_guests)
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    if (!are_ranges(pool, guest, ranges, n, 1, wrong))
        return DEDUPCORE_EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (pool->scan)
            scan_break_large(pool, number, ranges[i]);
        else
            pool_break_large(pool, guest, ranges[i] * DEDUPCORE_LARGE_PAGE);
    }
    frames_settle(&pool->frames);
    return 0;
}

/* What a range of small pages is like. */
typedef struct {
    uint32_t present, shared; /* pages */
    int is_together;          /* they lie in one block, page for frame */
} range_state;

static range_state look_at(const dedupcore_pool *pool, const uint32_t *pages)
{
    range_state state = {.is_together = pages[0] != DEDUPCORE_ABSENT && pages[0] % DEDUPCORE_LARGE_PAGE == 0};
    for (uint32_t i = 0; i < DEDUPCORE_LARGE_PAGE; i++) {
        state.is_together &= pages[i] == pages[0] + i;
        if (pages[i] == DEDUPCORE_ABSENT)
            continue;
        state.present++;
        state.shared += pool->refs[pages[i]] > 1;
    }
    return state;
}

/* Copies what the range's pages hold to a block of their own; absent ones become zero pages. */
static void move_to_block(dedupcore_pool *pool, pool_guest *guest, uint32_t range, uint32_t first)
{
    uint32_t *pages = pool_range(guest, range);
    for (uint32_t i = 0; i < DEDUPCORE_LARGE_PAGE; i++) {
        if (pages[i] == DEDUPCORE_ABSENT) {
            guest->n_present++;
            pool->first_touches++;
        } else {
            memcpy(frames_at(&pool->frames, first + i), frames_at(&pool->frames, pages[i]), pool->frames.frame_size);
            pool_drop_ref(pool, pages[i]);
        }
        pages[i] = first + i;
    }
}

static int rebuild(dedupcore_pool *pool, pool_guest *guest, uint32_t range, uint32_t max_shared)
{
    uint32_t *pages = pool_range(guest, range);
    const range_state state = look_at(pool, pages);
    if (state.is_together && pool_holds_large(pool, pages[0])) {
        /* Broken off a large page of others, and as it was: it joins them again, and what is shared stays so. */
    } else if (state.present == 0 || state.shared > max_shared) {
        return 0;
    } else if (state.is_together && state.shared == 0) {
        for (uint32_t i = 0; i < DEDUPCORE_LARGE_PAGE; i++) {
            pool_forget_zero(pool, pages[i]); /* zero pages are counted where they are small */
            if (pool->scan)
                scan_frame_large(pool, pages[i]);
        }
    } else {
        if (!pool_has_block(pool) || has_out(guest, range))
            return 0;
        move_to_block(pool, guest, range, new_block(pool, guest->domain));
        frames_settle(&pool->frames); /* so that the next range may have these frames */
    }
    make_large(pool, guest, range);
    pool->large_rebuilds++;
    return 1;
}

int dedupcore_pool_rebuild_large(dedupcore_pool *pool, uint32_t number, const uint32_t *ranges, size_t n,
                                 uint32_t max_shared, uint8_t *rebuilt, size_t *wrong)
{
    *wrong = n;
    if (number >= pool->n_guests)
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    if (!are_ranges(pool, guest, ranges, n, 0, wrong))
        return DEDUPCORE_EINVAL;
    for (size_t i = 0; i < n; i++)
        rebuilt[i] = (uint8_t)rebuild(pool, guest, ranges[i], max_shared);
    return 0;
}
