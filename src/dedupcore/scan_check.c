/* Whether what a policy knows of its pool is so. Shares no step with the policies: it looks at each page and frame anew. */
#include <string.h>

#include "scan.h"

static int broken(dedupcore_flaw *flaw, const char *what, uint32_t guest, uint64_t page, uint64_t frame)
{
    *flaw = (dedupcore_flaw){what, guest, page, frame};
    return DEDUPCORE_EBROKEN;
}

/* What is wrong with a page, or NULL. */
static const char *page_flaw(const dedupcore_pool *pool, const pool_guest *guest, uint64_t gpn)
{
    const scan *s = pool->scan;
    const uint64_t page = guest->first + gpn;
    const uint32_t frame = guest->table[gpn];
    const page_state state = scan_state(s, page);
    if ((frame == DEDUPCORE_ABSENT) != (state == PAGE_ABSENT || state == PAGE_LEFT))
        return "the policy takes a page for present that is absent, or the other way round";
    switch (state) {
    case PAGE_STABLE:
        return scan_is_stable(s, frame) ? NULL : "a page that was shared is mapped to a frame that is not stable";
    case PAGE_ZERO:
        return frame == pool->zero_frames[guest->domain] ? NULL : "a zero page is not mapped to the zero frame";
    case PAGE_BUSY:
        if (s->policy.kind == DEDUPCORE_POLICY_ESX)
            return pool_is_large(guest, (uint32_t)gpn) && !scan_is_loose(s, frame) ? NULL : "a hint is left of a large page";
        /* fall through */
    case PAGE_QUIET:
        if (!scan_is_loose(s, frame) || s->index.links[frame].who != page)
            return "the frame of a settled page is not in the index for it";
        return s->tags[page] == scan_tag(pool, frame) ? NULL : "a settled page holds another thing than when looked at";
    case PAGE_CHANGED:
        return scan_is_stable(s, frame) ? "a changed page is mapped to a stable frame" : NULL;
    default:
        return NULL;
    }
}

static int check_pages(const dedupcore_pool *pool, dedupcore_flaw *flaw)
{
    const scan *s = pool->scan;
    uint64_t n_state[PAGE_STATES] = {0}, n_items = 0, n_hidden = 0;
    for (uint32_t g = 0; g < pool->n_guests; g++) {
        const pool_guest *guest = pool->guests + g;
        for (uint64_t gpn = 0; gpn < guest->n_pages; gpn++) {
            const char *what = page_flaw(pool, guest, gpn);
            const uint8_t page = s->pages[guest->first + gpn];
            if (what)
                return broken(flaw, what, g, gpn, guest->table[gpn]);
            n_state[page >> AGE_BITS]++;
            n_items += page >> AGE_BITS != PAGE_ABSENT && (page & AGE_MASK) != NO_ITEM;
            n_hidden += (uint64_t)scan_is_hidden(page);
        }
    }
    if (memcmp(n_state, s->n_state, sizeof n_state) || n_hidden != s->n_hidden ||
        (s->policy.kind == DEDUPCORE_POLICY_KSM && n_items != s->n_items))
        return broken(flaw, "the policy's counts of pages are wrong", UINT32_MAX, UINT64_MAX, UINT64_MAX);
    return 0;
}

/* Whether another page may be mapped to the frame, which is stable. */
static int is_open(const dedupcore_pool *pool, uint32_t frame)
{
    return scan_is_stable(pool->scan, frame) && scan_has_room(pool, frame);
}

static const char *frame_flaw(const dedupcore_pool *pool, uint32_t frame)
{
    const scan *s = pool->scan;
    const int loose = scan_is_loose(s, frame), stable = scan_is_stable(s, frame);
    const uint32_t place = s->room.places[frame];
    if (place && !is_open(pool, frame))
        return "a frame that has no room is in a heap";
    if (place && (place > s->room.n_nodes || s->room.nodes[place].item != frame))
        return "a frame with room has the place of another one";
    if (!loose && !stable)
        return NULL;
    if (!pool_is_mapped(pool, frame))
        return "a free frame is in the index";
    if (loose && (stable || pool->refs[frame] != 1))
        return "a loose frame has several pages, or is stable";
    if (stable && s->index.links[frame].who != scan_tag(pool, frame))
        return "a stable frame holds another thing than when it was shared";
    if (stable && pool->refs[frame] > s->policy.max_page_sharing)
        return "a stable frame has more pages than it may";
    return NULL;
}

static int hold_same(const dedupcore_pool *pool, uint32_t a, uint32_t b)
{
    const size_t size = pool->frames.frame_size;
    return pool->domains[a] == pool->domains[b] && !memcmp(frames_at(&pool->frames, a), frames_at(&pool->frames, b), size);
}

/* What is wrong between a frame and those right below it in its heap, which are counted; or NULL. */
static const char *heap_flaw(const dedupcore_pool *pool, uint32_t node, uint64_t most, uint64_t *n_below)
{
    const pairing_heap *heap = &pool->scan->room;
    const heap_node *nodes = heap->nodes;
    const uint32_t frame = nodes[node].item;
    uint32_t before = node;
    for (uint32_t at = nodes[node].child; at; at = nodes[at].next) {
        if (at > heap->n_nodes || nodes[at].before != before || *n_below == most)
            return "the neighbours of a frame in a heap are others";
        const uint32_t below = nodes[at].item;
        if (below >= pool->frames.touched || heap->places[below] != at)
            return "a frame with room has the place of another one";
        if (!hold_same(pool, below, frame))
            return "a frame with room is below one that holds another thing";
        if (pool->refs[below] > pool->refs[frame])
            return "a frame with room is below one with fewer pages";
        before = at;
        ++*n_below;
    }
    return NULL;
}

/* The node after it, as they come when those below a node come before the next one beside it; 0: none. */
static uint32_t next_in_heap(const heap_node *nodes, uint32_t node)
{
    if (nodes[node].child)
        return nodes[node].child;
    while (!nodes[node].next) {
        uint32_t below;
        do {
            if (!nodes[node].before)
                return 0;
            below = node;
            node = nodes[node].before;
        } while (nodes[node].child != below);
    }
    return nodes[node].next;
}

/* Those below the stable frame of a chain; they are counted. */
static int check_heap(const dedupcore_pool *pool, uint32_t top, uint64_t most, uint64_t *n_below, dedupcore_flaw *flaw)
{
    const pairing_heap *heap = &pool->scan->room;
    const uint64_t before = *n_below;
    uint64_t n_met = 0;
    for (uint32_t node = heap->places[top]; node; node = next_in_heap(heap->nodes, node)) {
        const char *what = heap_flaw(pool, node, most, n_below);
        if (!what && *n_below == before)
            what = "a frame that is alone has a place in a heap";
        if (!what && n_met++ > *n_below - before)
            what = "a heap of frames has no end";
        if (what)
            return broken(flaw, what, UINT32_MAX, UINT64_MAX, heap->nodes[node].item);
    }
    return 0;
}

/* Whether KSM would find another frame with room for the same content: only the fullest of them is in the chain. */
static int has_equal_behind(const dedupcore_pool *pool, uint32_t frame)
{
    const scan *s = pool->scan;
    uint32_t g = s->policy.kind == DEDUPCORE_POLICY_KSM ? s->index.links[frame].next : DEDUPCORE_ABSENT;
    while (g != DEDUPCORE_ABSENT && !(scan_is_stable(s, g) && hold_same(pool, g, frame)))
        g = s->index.links[g].next;
    return g != DEDUPCORE_ABSENT;
}

static int check_rooms(const dedupcore_pool *pool, uint64_t most, dedupcore_flaw *flaw)
{
    const scan *s = pool->scan;
    uint64_t n_below = 0;
    for (uint64_t chain = 0; chain >> s->index.bits == 0; chain++) {
        for (uint32_t frame = s->index.heads[chain]; frame != DEDUPCORE_ABSENT; frame = s->index.links[frame].next) {
            if (!scan_is_stable(s, frame))
                continue;
            if (has_equal_behind(pool, frame))
                return broken(flaw, "two frames with room that hold the same are in a chain", UINT32_MAX, UINT64_MAX, frame);
            const int rc = check_heap(pool, frame, most, &n_below, flaw);
            if (rc)
                return rc;
        }
    }
    if (n_below != most || n_below != s->room.n_below)
        return broken(flaw, "frames with room are not found", UINT32_MAX, UINT64_MAX, UINT64_MAX);
    return 0;
}

/* Whether the places of heaps are used, or known to be free. */
static int check_places(const dedupcore_pool *pool, dedupcore_flaw *flaw)
{
    const pairing_heap *heap = &pool->scan->room;
    uint64_t n = 0;
    for (uint32_t frame = 0; frame < pool->frames.touched; frame++)
        n += heap->places[frame] != 0;
    for (uint32_t node = heap->free_node; node && node <= heap->n_nodes && n <= heap->n_nodes; n++)
        node = heap->nodes[node].next;
    if (n != heap->n_nodes)
        return broken(flaw, "places in heaps of frames are lost", UINT32_MAX, UINT64_MAX, UINT64_MAX);
    return 0;
}

static int is_below(const scan *s, uint32_t frame)
{
    const heap_node *node = s->room.nodes + s->room.places[frame];
    return node->before || node->next;
}

static int check_frames(const dedupcore_pool *pool, dedupcore_flaw *flaw)
{
    const scan *s = pool->scan;
    uint64_t n_stable = 0, n_chained = 0, n_below = 0, n_found = 0;
    for (uint32_t frame = 0; frame < pool->frames.touched; frame++) {
        const char *what = frame_flaw(pool, frame);
        if (what)
            return broken(flaw, what, UINT32_MAX, UINT64_MAX, frame);
        n_stable += scan_is_stable(s, frame);
        n_chained += scan_is_loose(s, frame) || (is_open(pool, frame) && !is_below(s, frame));
        n_below += is_below(s, frame);
    }
    for (uint64_t chain = 0; chain >> s->index.bits == 0; chain++) {
        for (uint32_t frame = s->index.heads[chain]; frame != DEDUPCORE_ABSENT; frame = s->index.links[frame].next) {
            if (is_below(s, frame))
                return broken(flaw, "a frame of a chain is below another in a heap", UINT32_MAX, UINT64_MAX, frame);
            if (n_found++ == n_chained)
                return broken(flaw, "a chain of the index has no end", UINT32_MAX, UINT64_MAX, frame);
            if (!scan_is_loose(s, frame) && !scan_is_stable(s, frame))
                return broken(flaw, "a frame that is nothing is in the index", UINT32_MAX, UINT64_MAX, frame);
            if (index_tag(&s->index, s->tags, frame) >> (32 - s->index.bits) != chain)
                return broken(flaw, "a frame is in another chain than looked for", UINT32_MAX, UINT64_MAX, frame);
        }
    }
    if (n_found != n_chained || n_found != s->index.n)
        return broken(flaw, "frames of the index are not found", UINT32_MAX, UINT64_MAX, UINT64_MAX);
    if (n_stable != s->n_stable)
        return broken(flaw, "the number of stable frames is wrong", UINT32_MAX, UINT64_MAX, UINT64_MAX);
    return check_rooms(pool, n_below, flaw);
}

/* Whether visits are owed only where nothing comes of them, and where that is said. */
static int check_debts(const dedupcore_pool *pool, dedupcore_flaw *flaw)
{
    const scan *s = pool->scan;
    if (s->owes && s->n_state[PAGE_CHANGED] + s->n_state[PAGE_COLLIDED])
        return broken(flaw, "visits are owed, but pages have changed", UINT32_MAX, UINT64_MAX, UINT64_MAX);
    for (uint32_t g = 0; g < pool->n_guests; g++) {
        const pool_guest *guest = pool->guests + g;
        if (!s->owes && (guest->counted != guest->looked || guest->counted_passes != guest->passes))
            return broken(flaw, "visits are not counted, and not said to be owed", g, guest->looked, UINT64_MAX);
    }
    return 0;
}

int scan_check(const dedupcore_pool *pool, dedupcore_flaw *flaw)
{
    int rc = check_pages(pool, flaw);
    if (rc == 0)
        rc = check_frames(pool, flaw);
    if (rc == 0)
        rc = check_places(pool, flaw);
    return rc ? rc : check_debts(pool, flaw);
}
