/* What large pages hold: equal ones are shared whole; and hints say what sharing would find in them if they were broken. */
#include "pool.h"
#include "pool_group.h"

/* --- sharing whole ----------------------------------------------------------------------------------------------- */

static void move_large_pages(dedupcore_pool *pool, const uint32_t *lowest)
{
    for (size_t g = 0; g < pool->n_guests; g++) {
        const pool_guest *guest = pool->guests + g;
        for (uint32_t range = 0; range < pool_n_ranges(pool, guest); range++) {
            uint32_t *pages = pool_range(guest, range);
            const uint32_t into = guest->large[range] ? lowest[pages[0] / DEDUPCORE_LARGE_PAGE] : 0;
            if (!guest->large[range] || into == pages[0] / DEDUPCORE_LARGE_PAGE)
                continue;
            for (uint32_t i = 0; i < DEDUPCORE_LARGE_PAGE; i++)
                pages[i] = into * DEDUPCORE_LARGE_PAGE + i;
        }
    }
}

/* The large pages of one block were moved to another. Small pages beside them stay. */
static void count_moved(dedupcore_pool *pool, uint32_t from, uint32_t into)
{
    const uint32_t moved = pool->blocks[from].large;
    pool->blocks[into].large += moved;
    pool->blocks[from] = (pool_block){0, 0};
    pool->merged += (uint64_t)moved * DEDUPCORE_LARGE_PAGE;
    for (uint32_t i = 0; i < DEDUPCORE_LARGE_PAGE; i++) {
        const uint32_t frame = from * DEDUPCORE_LARGE_PAGE + i, other = into * DEDUPCORE_LARGE_PAGE + i;
        pool->n_shared += pool->refs[other] == 1;
        pool->refs[other] += moved;
        pool->n_shared -= pool->refs[frame] > 1 && pool->refs[frame] - moved <= 1;
        pool->refs[frame] -= moved;
        if (pool->refs[frame] == 0)
            frames_free(&pool->frames, frame);
    }
}

int dedupcore_pool_share_large(dedupcore_pool *pool, const dedupcore_key *key, dedupcore_work *work)
{
    pool_groups groups;
    if (work)
        *work = (dedupcore_work){0};
    if (pool->scan) /* which of its frames have several pages is the policy's business */
        return DEDUPCORE_EINVAL;
    if (pool->n_large == 0)
        return 0;
    const int rc = pool_group(&groups, pool, BLOCKS_OF_LARGE, key);
    if (rc == 0) {
        move_large_pages(pool, groups.lowest);
        for (uint32_t block = 0; block < groups.n; block++) {
            if (groups.lowest[block] != block)
                count_moved(pool, block, groups.lowest[block]);
        }
        frames_settle(&pool->frames);
        if (work)
            *work = groups.work;
    }
    pool_end_groups(&groups);
    return rc;
}

/* --- hints ------------------------------------------------------------------------------------------------------- */

/* A bit a frame: another one of its domain has the same content. */
static int mark_equal(const pool_groups *groups, region *memory)
{
    int rc = region_map(memory, (size_t)(groups->n + 63) / 64 * sizeof(uint64_t), 1, PAGES_HUGE);
    if (rc)
        return rc;
    uint64_t *bits = memory->at;
    for (uint32_t frame = 0; frame < groups->n; frame++) {
        const uint32_t lowest = groups->lowest[frame];
        if (lowest != frame) {
            bits[frame / 64] |= UINT64_C(1) << frame % 64;
            bits[lowest / 64] |= UINT64_C(1) << lowest % 64;
        }
    }
    return 0;
}

static dedupcore_large_hint hint_at(const dedupcore_pool *pool, const pool_groups *groups, const uint64_t *equal,
                                    uint32_t guest, uint32_t range)
{
    dedupcore_large_hint hint = {.guest = guest, .range = range};
    const uint32_t first = *pool_range(pool->guests + guest, range), zero = groups->zero[pool->guests[guest].domain];
    for (uint32_t frame = first; frame < first + DEDUPCORE_LARGE_PAGE; frame++) {
        const int is_zero = groups->lowest[frame] == zero;
        hint.zero += (uint16_t)is_zero;
        hint.shareable += (uint16_t)(!is_zero && (equal[frame / 64] >> frame % 64 & 1));
    }
    return hint;
}

int dedupcore_pool_large_hints(const dedupcore_pool *pool, const dedupcore_key *key, dedupcore_large_hint *hints,
                               size_t n, dedupcore_work *work)
{
    pool_groups groups;
    region equal = {NULL, 0};
    if (work)
        *work = (dedupcore_work){0};
    if (n != pool->n_large)
        return DEDUPCORE_EINVAL;
    if (n == 0)
        return 0;
    int rc = pool_group(&groups, pool, FRAMES_IN_USE, key);
    if (rc == 0)
        rc = mark_equal(&groups, &equal);
    for (uint32_t g = 0; rc == 0 && g < pool->n_guests; g++) {
        const pool_guest *guest = pool->guests + g;
        for (uint32_t range = 0; range < pool_n_ranges(pool, guest); range++) {
            if (guest->large[range])
                *hints++ = hint_at(pool, &groups, equal.at, g, range);
        }
    }
    if (rc == 0 && work)
        *work = groups.work;
    region_unmap(&equal);
    pool_end_groups(&groups);
    return rc;
}
