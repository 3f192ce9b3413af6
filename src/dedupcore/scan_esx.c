/*
 * The policy `esx`: content-based page sharing as in Waldspurger, "Memory resource management in VMware ESX Server", OSDI 2002,
 * section 4.
 *
 * Pages of a guest are looked at in random order, each once a pass. The hash of one that is not shared is looked up among the
 * shared frames and the hints. A hint is a page that was looked at and found alone: its hash is remembered, but it is not
 * write-protected, and so it may be another page by now. It is hashed again when its hash is met: if it has changed, the hint
 * is dropped; if not, and the contents are equal, both pages share one frame from then on. Contents that differ under one hash
 * are not shared. Looking again at a hint that was not written finds nothing, and is only counted: when no page is left that
 * something can come of, not even at once. How far the scanner got is known then, and which pages it came by is found out before
 * one of them changes.
 *
 * Pages of large pages are hashed and remembered, too, as busy ones with HINTED below, in no chain, where nobody finds them:
 * when a large page is broken, they are looked at again.
 */
#include <string.h>

#include "page_order.h"
#include "scan.h"

/* --- pages ------------------------------------------------------------------------------------------------------- */

static void look_at(dedupcore_pool *pool, const look *batch, size_t i)
{
    scan *s = pool->scan;
    const pool_guest *guest = pool->guests + batch->guest;
    const uint32_t gpn = batch->gpns[i], tag = batch->tags[i], frame = guest->table[gpn];
    const uint64_t page = guest->first + gpn;
    if (scan_state(s, page) == PAGE_STABLE) { /* one before it in the batch has found its hint, and the hint good */
        s->done.pages_hashed--;
        return;
    }
    if (scan_is_loose(s, frame)) /* a hint of what it held before */
        scan_forget(pool, frame);
    s->tags[page] = tag;
    if (pool_is_large(guest, gpn)) {
        scan_set(s, page, PAGE_BUSY, HINTED);
        return;
    }
    for (uint32_t g = *index_head(&s->index, tag), next; g != DEDUPCORE_ABSENT; g = next) {
        next = s->index.links[g].next;
        if (index_tag(&s->index, s->tags, g) != tag)
            continue;
        const int hinted = scan_is_loose(s, g);
        s->done.hints_matched += (uint64_t)hinted;
        s->done.pages_hashed += (uint64_t)hinted; /* the hint's page, once more */
        if (scan_holds(pool, g, frame, tag)) {
            scan_merge(pool, batch->guest, gpn, g);
            if (batch->zero[i])
                pool->zero_frames[guest->domain] = g;
            return;
        }
        const uint64_t hash = scan_hash(pool, g);
        s->done.frames_hashed++;
        if (hinted && scan_tag_of(pool->domains[g], hash) != tag) {
            s->done.hints_stale++;
            scan_forget(pool, g);
        } else if (hash == scan_hash(pool, frame)) {
            s->done.collisions++;
            scan_set(s, page, PAGE_COLLIDED, NO_ITEM);
            return;
        }
    }
    scan_set(s, page, PAGE_QUIET, NO_ITEM); /* a hint */
    scan_loosen(pool, page, frame);
}

/* --- large pages -------------------------------------------------------------------------------------------------- */

void scan_large_broken(dedupcore_pool *pool, uint64_t page)
{
    scan *s = pool->scan;
    if (s->policy.kind != DEDUPCORE_POLICY_ESX)
        return;
    if (s->owes)
        scan_make_up(pool);
    for (uint64_t i = page; i < page + DEDUPCORE_LARGE_PAGE; i++) {
        if ((s->pages[i] & AGE_MASK) == HINTED && s->pages[i])
            scan_set(s, i, PAGE_CHANGED, NO_ITEM);
    }
}

void scan_break_large(dedupcore_pool *pool, uint32_t number, uint32_t range)
{
    const scan *s = pool->scan;
    pool_guest *guest = pool->guests + number;
    const uint32_t first = range * DEDUPCORE_LARGE_PAGE;
    const size_t most = look_most(pool->frames.frame_size);
    uint32_t hinted[DEDUPCORE_LARGE_PAGE];
    size_t n = 0;
    for (uint32_t gpn = first; gpn < first + DEDUPCORE_LARGE_PAGE; gpn++) {
        const uint8_t page = s->pages[guest->first + gpn];
        if (s->policy.kind == DEDUPCORE_POLICY_ESX && page && (page & AGE_MASK) == HINTED)
            hinted[n++] = gpn;
    }
    pool_break_large(pool, guest, first);
    for (size_t at = 0; at < n; at += most) {
        look batch = {.guest = number, .n = n - at < most ? n - at : most};
        memcpy(batch.gpns, hinted + at, batch.n * sizeof *hinted);
        look_prepare(pool, &batch);
        for (size_t i = 0; i < batch.n; i++)
            look_at(pool, &batch, i);
        pool->scan->done.pages_hashed += batch.n;
    }
}

/* --- visits of which nothing comes ------------------------------------------------------------------------------- */

static page_order order_of(const dedupcore_pool *pool, uint32_t number, uint64_t pass)
{
    return page_order_of(pool->guests[number].n_pages, random_mix(pool->scan->policy.seed) + number, pass);
}

static inline void count_visit(scan *s, page_state state)
{
    s->done.pages_scanned += state != PAGE_ABSENT;
    s->done.pages_hashed += state != PAGE_ABSENT && state != PAGE_STABLE;
}

/* Counts the visits of a pass from number `from` to `to`; of whole passes all at once. */
static void count_visits(const dedupcore_pool *pool, uint32_t number, uint64_t pass, uint64_t from, uint64_t to)
{
    enum { AHEAD = 32 };
    const pool_guest *guest = pool->guests + number;
    const uint8_t *pages = pool->scan->pages + guest->first;
    const page_order o = order_of(pool, number, pass);
    uint64_t ahead[AHEAD];
    for (uint64_t at = from; at < to; at += AHEAD) {
        const uint64_t n = to - at < AHEAD ? to - at : AHEAD;
        for (uint64_t i = 0; i < n; i++) {
            ahead[i] = page_order_at(&o, at + i);
            __builtin_prefetch(pages + ahead[i]);
        }
        for (uint64_t i = 0; i < n; i++)
            count_visit(pool->scan, scan_state(pool->scan, guest->first + ahead[i]));
    }
}

static void count_passes(const dedupcore_pool *pool, const pool_guest *guest, uint64_t n_passes)
{
    const uint8_t *pages = pool->scan->pages + guest->first;
    uint64_t present = 0, stable = 0;
    for (uint64_t i = 0; n_passes && i < guest->n_pages; i++) {
        present += pages[i] >> AGE_BITS != PAGE_ABSENT;
        stable += pages[i] >> AGE_BITS == PAGE_STABLE;
    }
    pool->scan->done.pages_scanned += n_passes * present;
    pool->scan->done.pages_hashed += n_passes * (present - stable);
}

void scan_make_up(const dedupcore_pool *pool)
{
    pool->scan->owes = 0;
    for (uint32_t number = 0; number < pool->n_guests; number++) {
        pool_guest *guest = pool->guests + number;
        if (guest->counted_passes == guest->passes) {
            count_visits(pool, number, guest->passes, guest->counted, guest->looked);
        } else {
            uint64_t whole = guest->passes - guest->counted_passes;
            if (guest->counted) {
                count_visits(pool, number, guest->counted_passes, guest->counted, guest->n_pages);
                whole--;
            }
            count_passes(pool, guest, whole);
            count_visits(pool, number, guest->passes, 0, guest->looked);
        }
        guest->counted = guest->looked;
        guest->counted_passes = guest->passes;
    }
}

/* --- passes ------------------------------------------------------------------------------------------------------ */

/*
 * Takes the next pages of the guest's order that have to be looked at, up to `most`, and passes by others; *left: how many of
 * the order are still to be taken.
 */
static void take_pages(dedupcore_pool *pool, const page_order *o, look *batch, uint64_t most, uint64_t *left)
{
    enum { WINDOW = 16 }; /* times `most` pages that are passed by at once, at the most */
    scan *s = pool->scan;
    pool_guest *guest = pool->guests + batch->guest;
    uint64_t ahead[LOOK_MOST];
    batch->n = 0;
    for (int part = 0; part < WINDOW && batch->n < most; part++) {
        uint64_t n = most - batch->n;
        if (n > *left)
            n = *left;
        if (n > guest->n_pages - guest->looked)
            n = guest->n_pages - guest->looked;
        for (uint64_t i = 0; i < n; i++) {
            ahead[i] = page_order_at(o, guest->looked + i);
            __builtin_prefetch(s->pages + guest->first + ahead[i]);
        }
        for (uint64_t i = 0; i < n; i++) {
            const page_state state = scan_state(s, guest->first + ahead[i]);
            count_visit(s, state);
            if (state == PAGE_CHANGED || state == PAGE_COLLIDED)
                batch->gpns[batch->n++] = (uint32_t)ahead[i];
        }
        guest->looked += n;
        *left -= n;
    }
    guest->counted = guest->looked;
}

/* The same for pages of which none has to be looked at. */
static void owe_pages(scan *s, pool_guest *guest, uint64_t *left)
{
    const uint64_t to_end = guest->n_pages - guest->looked, n = *left < to_end ? *left : to_end;
    s->owes = 1;
    guest->looked += n;
    *left -= n;
}

static int is_idle(const scan *s)
{
    return s->n_state[PAGE_CHANGED] + s->n_state[PAGE_COLLIDED] == 0;
}

int dedupcore_pool_scan_guest(dedupcore_pool *pool, uint32_t number, uint64_t *n_pages, int *ended)
{
    scan *s = pool->scan;
    *ended = 0;
    if (!s || s->policy.kind != DEDUPCORE_POLICY_ESX || number >= pool->n_guests)
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    const uint64_t most = look_most(pool->frames.frame_size);
    const page_order o = order_of(pool, number, guest->passes);
    look batch = {.guest = number};
    while (*n_pages && guest->looked < guest->n_pages) {
        if (is_idle(s)) {
            owe_pages(s, guest, n_pages);
            break;
        }
        take_pages(pool, &o, &batch, most, n_pages);
        look_prepare(pool, &batch);
        for (size_t i = 0; i < batch.n; i++)
            look_at(pool, &batch, i);
    }
    if (guest->looked == guest->n_pages) {
        *ended = 1;
        guest->looked = 0;
        guest->passes++;
        s->done.full_scans++;
    }
    if (guest->counted == guest->n_pages) {
        guest->counted = 0;
        guest->counted_passes++;
    }
    frames_settle(&pool->frames);
    return 0;
}
