/*
 * Exact sharing of all that a pool holds: all pages are moved to the lowest equal frame of their domain. Memory is taken and
 * everything is found out before anything changes. Large pages stay as they are.
 */
#include <string.h>

#include "pool.h"
#include "pool_group.h"

static void move_pages(dedupcore_pool *pool, const uint32_t *lowest)
{
    for (size_t g = 0; g < pool->n_guests; g++) {
        uint32_t *table = pool->guests[g].table;
        for (uint64_t i = 0; i < pool->guests[g].n_pages; i++) {
            if (table[i] != DEDUPCORE_ABSENT && lowest[table[i]] != table[i])
                table[i] = lowest[table[i]];
        }
    }
}

/* A frame that takes over pages is lower than those that it replaces, so its own count is final in nothing but what they add. */
static void free_duplicates(dedupcore_pool *pool, const pool_groups *groups)
{
    uint32_t *refs = pool->refs;
    for (uint32_t frame = 0; frame < groups->n; frame++) {
        const uint32_t into = groups->lowest[frame];
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
    pool_groups groups;
    if (work)
        *work = (dedupcore_work){0};
    if (pool->scan)
        return DEDUPCORE_EINVAL;
    if (pool->frames.in_use == 0)
        return 0;
    const int rc = pool_group(&groups, pool, FRAMES_OF_SMALL, key);
    if (rc == 0) {
        move_pages(pool, groups.lowest);
        free_duplicates(pool, &groups);
        memcpy(pool->zero_frames, groups.zero, pool->n_domains * sizeof *groups.zero);
        if (work)
            *work = groups.work;
    }
    pool_end_groups(&groups);
    return rc;
}
