/* Where a guest's pages lie in its physical memory: a buddy allocator that hands out each page once. */
#include <stdlib.h>

#include "dedupcore.h"
#include "random.h"

enum { MAX_ORDER = DEDUPCORE_MAX_ORDER, ORDERS = MAX_ORDER + 1 };

/*
 * Which number of the key's stream decides what. Whether the block of an order at a page is split: page * 16 + order,
 * below 2^36. Entry j of an order's list when that is shuffled: above.
 */
#define SPLIT_NUMBER(page, order) ((page) << 4 | (order))
#define SHUFFLE_NUMBER(order, j) ((uint64_t)((order) + 1) << 40 | (j))

/* Pages that are taken: first <= page < end. */
typedef struct {
    uint64_t first, end;
} extent;

/* The free blocks of each order, by their first page; the last of a list is the next to be handed out. */
typedef struct {
    uint32_t *blocks[ORDERS];
    uint64_t n[ORDERS];
    uint32_t filled; /* bit k: list k is not empty */
    uint32_t *memory;
} free_lists;

/* The largest order up to `most` of which a block fits at offset `at`, aligned to its size, with `left` items left. */
static inline unsigned aligned_order(uint64_t at, uint64_t left, unsigned most)
{
    unsigned order = 63 - (unsigned)__builtin_clzll(left);
    if (at && (unsigned)__builtin_ctzll(at) < order)
        order = (unsigned)__builtin_ctzll(at);
    return order < most ? order : most;
}

/*
 * Cuts the free pages from..end into blocks in ascending order: the largest aligned ones that fit, each split in two
 * while the stream says so. After a block, its alignment tells the size of the half that is still to be decided on,
 * since halves of aligned blocks are aligned blocks. `fill` 0 only counts.
 */
static inline void cut(free_lists *lists, uint64_t from, uint64_t end, uint64_t stream, uint64_t fragmentation,
                       int fill)
{
    for (uint64_t page = from, step; page < end; page += step) {
        unsigned order = aligned_order(page, end - page, MAX_ORDER);
        while (order && random_at(stream, SPLIT_NUMBER(page, order)) >> 32 < fragmentation)
            order--;
        if (fill) /* from the far end, so that the lowest is handed out first */
            *--lists->blocks[order] = (uint32_t)page;
        else
            lists->n[order]++;
        step = (uint64_t)1 << order;
    }
}

/* The pages between the taken extents, which ascend. */
static inline void cut_all(free_lists *lists, const extent *taken, size_t n_taken, uint64_t n_pages, uint64_t stream,
                           uint64_t fragmentation, int fill)
{
    uint64_t from = 0;
    for (size_t i = 0; i < n_taken; i++) {
        cut(lists, from, taken[i].first, stream, fragmentation, fill);
        from = taken[i].end;
    }
    cut(lists, from, n_pages, stream, fragmentation, fill);
}

/* Makes the lists: once to count, once to fill, so that they take no more memory than there are blocks. */
static int make_lists(free_lists *lists, const extent *taken, size_t n_taken, uint64_t n_pages, uint64_t key,
                      uint64_t fragmentation)
{
    const uint64_t stream = random_stream(key);
    uint64_t n_blocks = 0;

    *lists = (free_lists){0};
    cut_all(lists, taken, n_taken, n_pages, stream, fragmentation, 0);
    /* When a block is split for want of smaller ones, each half kept goes to an empty list: room for one is enough. */
    for (unsigned order = 0; order < ORDERS; order++)
        n_blocks += lists->n[order] ? lists->n[order] : 1;
    lists->memory = malloc(n_blocks * sizeof *lists->memory);
    if (!lists->memory)
        return DEDUPCORE_ENOMEM;

    uint32_t *end = lists->memory;
    for (unsigned order = 0; order < ORDERS; order++) {
        end += lists->n[order] ? lists->n[order] : 1;
        lists->blocks[order] = lists->n[order] ? end : end - 1;
        lists->filled |= (uint32_t)(lists->n[order] > 0) << order;
    }
    cut_all(lists, taken, n_taken, n_pages, stream, fragmentation, 1);
    for (unsigned order = 0; fragmentation && order < ORDERS; order++) {
        uint32_t *blocks = lists->blocks[order];
        for (uint64_t j = lists->n[order]; j-- > 1;) {
            const uint64_t other = random_below(random_at(stream, SHUFFLE_NUMBER(order, j)), j + 1);
            const uint32_t block = blocks[j];
            blocks[j] = blocks[other];
            blocks[other] = block;
        }
    }
    return 0;
}

/* Takes a block of the order from the lists, one of which is not empty; where there is none so large, a smaller one. */
static inline uint32_t take(free_lists *lists, unsigned *order)
{
    const unsigned largest = 31 - (unsigned)__builtin_clz(lists->filled);
    if (*order > largest)
        *order = largest;
    unsigned from = *order + (unsigned)__builtin_ctz(lists->filled >> *order);
    const uint32_t page = lists->blocks[from][--lists->n[from]];
    if (lists->n[from] == 0)
        lists->filled &= ~((uint32_t)1 << from);
    while (from > *order) { /* the lower half is given */
        from--;
        lists->blocks[from][0] = page + ((uint32_t)1 << from);
        lists->n[from] = 1;
        lists->filled |= (uint32_t)1 << from;
    }
    return page;
}

static int by_first(const void *a, const void *b)
{
    const extent *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

/* The fixed regions in ascending order; DEDUPCORE_EINVAL when they do not fit in memory, or two in one place. */
static int take_fixed(const uint64_t *counts, const int64_t *fixed, size_t n_regions, uint64_t n_pages, extent *taken,
                      size_t *n_taken)
{
    size_t n = 0;
    for (size_t r = 0; r < n_regions; r++) {
        if (fixed[r] == -1)
            continue;
        if (fixed[r] < 0 || (uint64_t)fixed[r] > n_pages || counts[r] > n_pages - (uint64_t)fixed[r])
            return DEDUPCORE_EINVAL;
        if (counts[r])
            taken[n++] = (extent){(uint64_t)fixed[r], (uint64_t)fixed[r] + counts[r]};
    }
    if (n)
        qsort(taken, n, sizeof *taken, by_first);
    for (size_t i = 1; i < n; i++) {
        if (taken[i].first < taken[i - 1].end)
            return DEDUPCORE_EINVAL;
    }
    *n_taken = n;
    return 0;
}

int dedupcore_place(uint64_t key, uint64_t n_pages, uint64_t fragmentation, const uint64_t *counts,
                    const uint8_t *max_orders, const int64_t *fixed, size_t n_regions, uint32_t *places)
{
    uint64_t left = n_pages;
    size_t n_taken = 0;
    free_lists lists;
    int rc;

    if (n_pages > DEDUPCORE_MAX_FRAMES || fragmentation > DEDUPCORE_ALWAYS)
        return DEDUPCORE_EINVAL;
    for (size_t r = 0; r < n_regions; r++) {
        if (counts[r] > left || max_orders[r] > MAX_ORDER)
            return DEDUPCORE_EINVAL;
        left -= counts[r];
    }
    extent *taken = calloc(n_regions + 1, sizeof *taken);
    if (!taken)
        return DEDUPCORE_ENOMEM;
    rc = take_fixed(counts, fixed, n_regions, n_pages, taken, &n_taken);
    if (rc == 0)
        rc = make_lists(&lists, taken, n_taken, n_pages, key, fragmentation);
    free(taken);
    if (rc)
        return rc;

    for (size_t r = 0; r < n_regions; r++) {
        for (uint64_t at = 0, size; at < counts[r]; at += size) {
            unsigned order = 0;
            uint32_t page;
            if (fixed[r] >= 0) {
                page = (uint32_t)fixed[r];
                size = counts[r];
            } else {
                order = aligned_order(at, counts[r] - at, max_orders[r]);
                page = take(&lists, &order);
                size = (uint64_t)1 << order;
            }
            for (uint64_t i = 0; i < size; i++)
                places[i] = page + (uint32_t)i;
            places += size;
        }
    }
    free(lists.memory);
    return 0;
}
