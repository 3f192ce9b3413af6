#include "pairing_heap.h"

int heap_open(pairing_heap *heap, const uint32_t *keys, uint64_t n_items)
{
    int rc = region_map(&heap->places_memory, (size_t)n_items * sizeof *heap->places, 1, PAGES_SMALL);
    if (rc == 0)
        rc = region_map(&heap->nodes_memory, ((size_t)n_items + 1) * sizeof *heap->nodes, 1, PAGES_SMALL);
    heap->places = heap->places_memory.at;
    heap->nodes = heap->nodes_memory.at;
    heap->keys = keys;
    return rc;
}

void heap_close(pairing_heap *heap)
{
    region_unmap(&heap->places_memory);
    region_unmap(&heap->nodes_memory);
}

/* --- nodes: 0 is none -------------------------------------------------------------------------------------------- */

static uint32_t node_of(pairing_heap *heap, uint32_t item)
{
    if (!heap->places[item]) {
        const uint32_t node = heap->free_node ? heap->free_node : ++heap->n_nodes;
        heap->free_node = heap->nodes[node].next;
        heap->nodes[node] = (heap_node){.item = item};
        heap->places[item] = node;
    }
    return heap->places[item];
}

static void free_node(pairing_heap *heap, uint32_t node)
{
    heap->places[heap->nodes[node].item] = 0;
    heap->nodes[node] = (heap_node){.next = heap->free_node};
    heap->free_node = node;
}

/* Puts the smaller of two below the other one, which it returns, and whose neighbours are the caller's to set. */
static uint32_t put_below(pairing_heap *heap, uint32_t a, uint32_t b)
{
    heap_node *nodes = heap->nodes;
    const uint32_t above = heap->keys[nodes[b].item] > heap->keys[nodes[a].item] ? b : a, below = above == a ? b : a;
    const uint32_t child = nodes[above].child;
    nodes[below].next = child;
    nodes[below].before = above;
    if (child)
        nodes[child].before = below;
    nodes[above].child = below;
    return above;
}

/* Makes one heap of all below the node, which keeps none of them. Returns its largest. */
static uint32_t pair_children(pairing_heap *heap, uint32_t node)
{
    heap_node *nodes = heap->nodes;
    uint32_t at = nodes[node].child;
    uint32_t made = 0; /* the heap of the last pair, and in `next` that of the pair before it */
    nodes[node].child = 0;
    while (at) {
        const uint32_t a = at, b = nodes[a].next;
        at = nodes[b].next;
        const uint32_t pair = b ? put_below(heap, a, b) : a;
        nodes[pair].next = made;
        made = pair;
    }
    uint32_t all = made;
    for (at = nodes[all].next; at;) {
        const uint32_t pair = at;
        at = nodes[pair].next;
        all = put_below(heap, all, pair);
    }
    return all;
}

/* Puts `by`, or none, between the neighbours of a node that leaves them. */
static void put_between(pairing_heap *heap, uint32_t node, uint32_t by, uint32_t before, uint32_t next)
{
    heap_node *nodes = heap->nodes;
    uint32_t after_it = next, before_it = before; /* what these see in its place */
    if (by) {
        nodes[by].before = before;
        nodes[by].next = next;
        after_it = before_it = by;
    }
    if (next)
        nodes[next].before = before_it;
    if (before && nodes[before].child == node)
        nodes[before].child = after_it;
    else if (before)
        nodes[before].next = after_it;
}

/* --- heaps ------------------------------------------------------------------------------------------------------- */

uint32_t heap_join(pairing_heap *heap, uint32_t a, uint32_t b)
{
    const uint32_t node = node_of(heap, a), other = node_of(heap, b);
    heap->n_below++;
    return heap->nodes[put_below(heap, node, other)].item;
}

/*
 * The items below it may have larger keys now. Those above it have not: so the heap that is made of it and of all below it can be
 * where it was, and the largest of the whole heap need not be found.
 */
uint32_t heap_fell_among(pairing_heap *heap, uint32_t item)
{
    heap_node *nodes = heap->nodes;
    const uint32_t node = heap->places[item], before = nodes[node].before, next = nodes[node].next;
    if (!nodes[node].child)
        return item;
    const uint32_t largest = put_below(heap, node, pair_children(heap, node));
    put_between(heap, node, largest, before, next);
    return nodes[largest].item;
}

uint32_t heap_take_among(pairing_heap *heap, uint32_t item)
{
    heap_node *nodes = heap->nodes;
    const uint32_t node = heap->places[item], before = nodes[node].before, next = nodes[node].next;
    const uint32_t below = nodes[node].child ? pair_children(heap, node) : 0;
    const uint32_t now = below ? nodes[below].item : DEDUPCORE_ABSENT;
    put_between(heap, node, below, before, next);
    free_node(heap, node);
    heap->n_below--;
    const uint32_t rest = before ? before : below;
    if (!nodes[rest].before && !nodes[rest].child)
        free_node(heap, rest); /* it is alone now */
    return now;
}
