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

static const char *frame_flaw(const dedupcore_pool *pool, uint32_t frame)
{
    const scan *s = pool->scan;
    const int loose = scan_is_loose(s, frame), stable = scan_is_stable(s, frame);
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

static int check_frames(const dedupcore_pool *pool, dedupcore_flaw *flaw)
{
    const scan *s = pool->scan;
    uint64_t n_stable = 0, n_chained = 0, n_found = 0;
    for (uint32_t frame = 0; frame < pool->frames.touched; frame++) {
        const char *what = frame_flaw(pool, frame);
        if (what)
            return broken(flaw, what, UINT32_MAX, UINT64_MAX, frame);
        n_stable += scan_is_stable(s, frame);
        n_chained += scan_is_loose(s, frame) || (scan_is_stable(s, frame) && scan_has_room(pool, frame));
    }
    for (uint64_t chain = 0; chain >> s->index.bits == 0; chain++) {
        for (uint32_t frame = s->index.heads[chain]; frame != DEDUPCORE_ABSENT; frame = s->index.links[frame].next) {
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
    return 0;
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
    return rc ? rc : check_debts(pool, flaw);
}
