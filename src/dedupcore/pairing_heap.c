#include "pairing_heap.h"

int heap_open(pairing_heap *heap, const uint32_t *keys, uint64_t n_items)
{
    const int rc = region_map(&heap->memory, (size_t)n_items * sizeof *heap->nodes, 1, PAGES_SMALL);
    heap->nodes = heap->memory.at;
    heap->keys = keys;
    heap->n_below = 0;
    return rc;
}

void heap_close(pairing_heap *heap)
{
    region_unmap(&heap->memory);
}

/* Puts the smaller of two items, both without neighbours, below the other one, which it returns. */
static uint32_t put_below(pairing_heap *heap, uint32_t a, uint32_t b)
{
    heap_node *nodes = heap->nodes;
    const uint32_t above = heap->keys[b] > heap->keys[a] ? b : a, below = above == a ? b : a;
    const uint32_t child = nodes[above].child;
    nodes[below].next = child;
    nodes[below].before = above + 1;
    if (child)
        nodes[child - 1].before = below + 1;
    nodes[above].child = below + 1;
    return above;
}

/* Makes one heap of all below the item, which keeps none of them. Returns its largest, or DEDUPCORE_ABSENT. */
static uint32_t pair_children(pairing_heap *heap, uint32_t item)
{
    heap_node *nodes = heap->nodes;
    uint32_t made = 0; /* the heap of the last pair, + 1, and in `next` that of the pair before it */
    uint32_t at = nodes[item].child;
    nodes[item].child = 0;
    while (at) {
        const uint32_t a = at - 1, b = nodes[a].next;
        at = b ? nodes[b - 1].next : 0;
        nodes[a].next = nodes[a].before = 0;
        uint32_t pair = a;
        if (b) {
            nodes[b - 1].next = nodes[b - 1].before = 0;
            pair = put_below(heap, a, b - 1);
        }
        nodes[pair].next = made;
        made = pair + 1;
    }
    if (!made)
        return DEDUPCORE_ABSENT;
    uint32_t all = made - 1;
    for (at = nodes[all].next, nodes[all].next = 0; at;) {
        const uint32_t pair = at - 1;
        at = nodes[pair].next;
        nodes[pair].next = 0;
        all = put_below(heap, all, pair);
    }
    return all;
}

/* Puts `by`, which has no neighbours, between those of an item that leaves them; DEDUPCORE_ABSENT: nothing. */
static void put_between(pairing_heap *heap, uint32_t item, uint32_t by, uint32_t before, uint32_t next)
{
    heap_node *nodes = heap->nodes;
    uint32_t after_it = next, before_it = before; /* what these see in its place */
    if (by != DEDUPCORE_ABSENT) {
        nodes[by].before = before;
        nodes[by].next = next;
        after_it = before_it = by + 1;
    }
    if (next)
        nodes[next - 1].before = before_it;
    if (before && nodes[before - 1].child == item + 1)
        nodes[before - 1].child = after_it;
    else if (before)
        nodes[before - 1].next = after_it;
}

uint32_t heap_join(pairing_heap *heap, uint32_t a, uint32_t b)
{
    heap->n_below++;
    return put_below(heap, a, b);
}

/*
 * The items below it may have larger keys now. Those above it have not: so the heap that is made of it and of all below it can be
 * where it was, and the largest of the whole heap need not be found.
 */
uint32_t heap_fell_among(pairing_heap *heap, uint32_t item)
{
    heap_node *node = heap->nodes + item;
    if (!node->child)
        return item;
    const uint32_t before = node->before, next = node->next, below = pair_children(heap, item);
    node->before = node->next = 0;
    const uint32_t largest = put_below(heap, item, below);
    put_between(heap, item, largest, before, next);
    return largest;
}

uint32_t heap_take_among(pairing_heap *heap, uint32_t item)
{
    heap_node *node = heap->nodes + item;
    const uint32_t before = node->before, next = node->next, below = pair_children(heap, item);
    heap->n_below -= before || below != DEDUPCORE_ABSENT;
    node->before = node->next = 0;
    put_between(heap, item, below, before, next);
    return below;
}
