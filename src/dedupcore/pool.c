/* A pool and its guests: made, counted, ended. */
#include "pool.h"

#include <stdlib.h>
#include <string.h>

int dedupcore_pool_create(dedupcore_pool **created, uint64_t capacity, size_t frame_size)
{
    *created = NULL;
    if (capacity == 0 || capacity > DEDUPCORE_MAX_FRAMES || frame_size < DEDUPCORE_MIN_FRAME_SIZE ||
        frame_size > DEDUPCORE_MAX_FRAME_SIZE || (frame_size & (frame_size - 1)))
        return DEDUPCORE_EINVAL;
    dedupcore_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return DEDUPCORE_ENOMEM;
    int rc = frames_open(&pool->frames, capacity, frame_size);
    if (rc == 0)
        rc = region_map(&pool->refs_memory, (size_t)capacity * sizeof *pool->refs, 1, PAGES_HUGE);
    if (rc == 0)
        rc = region_map(&pool->domains_memory, (size_t)capacity * sizeof *pool->domains, 1, PAGES_HUGE);
    if (rc == 0)
        rc = region_map(&pool->blocks_memory, (size_t)(capacity / DEDUPCORE_LARGE_PAGE + 1) * sizeof *pool->blocks, 1,
                        PAGES_SMALL);
    if (rc) {
        dedupcore_pool_destroy(pool);
        return rc;
    }
    pool->limit = capacity;
    pool->refs = pool->refs_memory.at;
    pool->domains = pool->domains_memory.at;
    pool->blocks = pool->blocks_memory.at;
    *created = pool;
    return 0;
}

void dedupcore_pool_destroy(dedupcore_pool *pool)
{
    if (!pool)
        return;
    for (size_t i = 0; i < pool->n_guests; i++) {
        region_unmap(&pool->guests[i].table_memory);
        region_unmap(&pool->guests[i].met_memory);
        region_unmap(&pool->guests[i].marks_memory);
        free(pool->guests[i].large);
    }
    scan_close(pool);
    frames_close(&pool->frames);
    region_unmap(&pool->refs_memory);
    region_unmap(&pool->domains_memory);
    region_unmap(&pool->blocks_memory);
    free(pool->guests);
    free(pool->zero_frames);
    free(pool);
}

const void *dedupcore_pool_memory(const dedupcore_pool *pool)
{
    return pool->frames.base;
}

/* --- guests ------------------------------------------------------------------------------------------------------ */

/* Makes room for `needed` items, twice as many as before at least. Returns where they are, or NULL; then all is as before. */
static void *grown(void *items, size_t *room, size_t needed, size_t item_size)
{
    if (needed <= *room)
        return items;
    const size_t larger = needed > 2 * *room ? needed : 2 * *room;
    void *moved = realloc(items, larger * item_size);
    if (moved)
        *room = larger;
    return moved;
}

static int room_for(dedupcore_pool *pool, uint32_t domain)
{
    pool_guest *guests = grown(pool->guests, &pool->room_for_guests, pool->n_guests + 1, sizeof *guests);
    if (!guests)
        return DEDUPCORE_ENOMEM;
    pool->guests = guests;
    uint32_t *zero = grown(pool->zero_frames, &pool->room_for_domains, (size_t)domain + 1, sizeof *zero);
    if (!zero)
        return DEDUPCORE_ENOMEM;
    pool->zero_frames = zero;
    return 0;
}

int dedupcore_pool_add_guest(dedupcore_pool *pool, uint64_t n_pages, uint32_t domain, uint32_t *number)
{
    if (n_pages == 0 || domain >= DEDUPCORE_MAX_DOMAINS)
        return DEDUPCORE_EINVAL;
    if (n_pages > DEDUPCORE_MAX_FRAMES - pool->n_pages)
        return DEDUPCORE_ETOOBIG;
    pool_guest guest = {.n_pages = n_pages, .first = pool->n_pages, .domain = (uint16_t)domain};
    int rc = room_for(pool, domain);
    if (rc == 0)
        rc = region_map(&guest.table_memory, (size_t)n_pages * sizeof *guest.table, 1, PAGES_HUGE);
    if (rc == 0)
        rc = region_map(&guest.met_memory, (size_t)(n_pages + 63) / 64 * sizeof *guest.met, 1, PAGES_SMALL);
    if (rc == 0)
        rc = region_map(&guest.marks_memory, (size_t)n_pages * sizeof *guest.marks, 1, PAGES_HUGE);
    if (rc == 0 && !(guest.large = calloc((size_t)(n_pages / DEDUPCORE_LARGE_PAGE + 1), 1)))
        rc = DEDUPCORE_ENOMEM;
    if (rc == 0 && pool->scan)
        rc = scan_add_pages(pool, n_pages);
    if (rc) {
        region_unmap(&guest.table_memory);
        region_unmap(&guest.met_memory);
        region_unmap(&guest.marks_memory);
        free(guest.large);
        return rc;
    }
    guest.table = guest.table_memory.at;
    guest.met = guest.met_memory.at;
    guest.marks = guest.marks_memory.at;
    memset(guest.table, 0xff, (size_t)n_pages * sizeof *guest.table); /* DEDUPCORE_ABSENT */
    for (; pool->n_domains <= domain; pool->n_domains++)
        pool->zero_frames[pool->n_domains] = DEDUPCORE_ABSENT;
    *number = (uint32_t)pool->n_guests;
    pool->guests[pool->n_guests++] = guest;
    pool->n_pages += n_pages;
    return 0;
}

const uint32_t *dedupcore_pool_table(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages)
{
    if (guest >= pool->n_guests)
        return NULL;
    if (n_pages)
        *n_pages = pool->guests[guest].n_pages;
    return pool->guests[guest].table;
}

uint64_t dedupcore_pool_limit(const dedupcore_pool *pool)
{
    return pool->limit;
}

int dedupcore_pool_set_limit(dedupcore_pool *pool, uint64_t n_frames)
{
    if (n_frames > pool->frames.capacity)
        return DEDUPCORE_EINVAL;
    pool->limit = n_frames;
    return 0;
}

/* --- counts ------------------------------------------------------------------------------------------------------ */

void dedupcore_pool_count(const dedupcore_pool *pool, dedupcore_pool_counts *counts)
{
    uint64_t n_present = 0, zero_frames = 0, zero_pages = 0, shared_zero_frames = 0;
    for (size_t guest = 0; guest < pool->n_guests; guest++)
        n_present += pool->guests[guest].n_present;
    for (size_t domain = 0; domain < pool->n_domains; domain++) {
        const uint32_t frame = pool->zero_frames[domain];
        if (frame == DEDUPCORE_ABSENT)
            continue;
        zero_frames++;
        zero_pages += pool->refs[frame];
        shared_zero_frames += pool->refs[frame] > 1;
    }
    const uint64_t others = pool->frames.in_use - zero_frames, shared = pool->n_shared - shared_zero_frames;
    *counts = (dedupcore_pool_counts){
        .capacity = pool->frames.capacity,
        .in_use = pool->frames.in_use,
        .pages_present = n_present,
        .zero_frames = zero_frames,
        .zero_pages = zero_pages,
        .pages_shared = shared,
        .pages_sharing = n_present - zero_pages - others,
        .pages_unshared = others - shared,
        .first_touches = pool->first_touches,
        .cow_breaks = pool->cow_breaks,
        .pages_merged = pool->merged,
        .pages_released = pool->released,
        .large_pages = pool->n_large,
        .large_breaks = pool->large_breaks,
        .large_rebuilds = pool->large_rebuilds,
    };
}
