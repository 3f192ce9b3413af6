/*
 * Pairing heaps of numbered items, of which the one with the largest key is wanted. Fredman, Sedgewick, Sleator and Tarjan, "The
 * pairing heap", Algorithmica 1, 1986. Part of the scan; knows nothing of what the items are.
 *
 * Each item is in one heap, at first in one of its own. Those that are with others have nodes, which lie together, since such items
 * may be few and far between: 16 bytes each, as many as there were at one time, and 4 bytes a number around them. Every call
 * takes amortised O(log n) steps, n items being in the heap, and none recursion.
 */
#ifndef DEDUPCORE_PAIRING_HEAP_H
#define DEDUPCORE_PAIRING_HEAP_H

#include <stdint.h>

#include "dedupcore.h"
#include "region.h"

/* The nodes beside it; 0: none. */
typedef struct {
    uint32_t item;
    uint32_t child;  /* the first of those below it: none has a larger key */
    uint32_t next;   /* the next one below the same node; of one that is free, the next free one */
    uint32_t before; /* the one of which it is `child` or `next` */
} heap_node;

typedef struct {
    uint32_t *places;     /* [items] its node; 0: it is alone */
    heap_node *nodes;     /* [items + 1] without the first */
    uint32_t n_nodes;     /* that were ever in use */
    uint32_t free_node;   /* the first of those that are not; 0: none */
    const uint32_t *keys; /* [items] the caller's, who says which have changed: heap_fell */
    uint64_t n_below;     /* items that are not the largest of their heap: they are below others */
    region places_memory, nodes_memory;
} pairing_heap;

/* n_items: 1 to UINT32_MAX. Errors: DEDUPCORE_ENOMEM. */
int heap_open(pairing_heap *heap, const uint32_t *keys, uint64_t n_items);
void heap_close(pairing_heap *heap); /* one that is not open is fine */

/* Makes one heap of two, whose largest items are given; returns the larger, `a` if neither is. */
uint32_t heap_join(pairing_heap *heap, uint32_t a, uint32_t b);

uint32_t heap_fell_among(pairing_heap *heap, uint32_t item);
uint32_t heap_take_among(pairing_heap *heap, uint32_t item);

/* Whether it is not the largest of its heap. The key of the largest may grow without a word. */
static inline int heap_is_below(const pairing_heap *heap, uint32_t item)
{
    return heap->n_below && heap->nodes[heap->places[item]].before;
}

/* The key of the item has become smaller. Returns which one is now where it was: the largest, if it was that. */
static inline uint32_t heap_fell(pairing_heap *heap, uint32_t item)
{
    return heap->n_below && heap->places[item] ? heap_fell_among(heap, item) : item;
}

/* Takes the item, whatever its key is by now, out of its heap. Returns which one is now where it was, or DEDUPCORE_ABSENT. */
static inline uint32_t heap_take(pairing_heap *heap, uint32_t item)
{
    return heap->n_below && heap->places[item] ? heap_take_among(heap, item) : DEDUPCORE_ABSENT;
}

#endif
