/*
 * The policy `esx`: content-based page sharing as in Waldspurger, "Memory resource management in VMware ESX Server", OSDI 2002,
 * section 4.
 *
 * Pages of a guest are looked at in random order, each once a pass. The hash of one that is not shared is looked up among the
 * shared frames and the hints. A hint is a page that was looked at and found alone: its hash is remembered, but it is not
 * write-protected, and so it may be another page by now. It is hashed again when its hash is met: if it has changed, the hint
 * is dropped; if not, and the contents are equal, both pages share one frame from then on. Contents that differ under one hash
 * are not shared. Looking again at a hint that was not written finds nothing, and is only counted.
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

/* --- passes ------------------------------------------------------------------------------------------------------ */

/* Takes the next pages of the guest's order that have to be looked at; *left: how many of the order are still to be taken. */
static void take_pages(dedupcore_pool *pool, const page_order *o, look *batch, uint64_t most, uint64_t *left)
{
    scan *s = pool->scan;
    pool_guest *guest = pool->guests + batch->guest;
    uint64_t ahead[LOOK_MOST];
    if (most > *left)
        most = *left;
    if (most > guest->n_pages - guest->looked)
        most = guest->n_pages - guest->looked;
    for (uint64_t i = 0; i < most; i++) {
        ahead[i] = page_order_at(o, guest->looked + i);
        __builtin_prefetch(s->pages + guest->first + ahead[i]);
    }
    batch->n = 0;
    for (uint64_t i = 0; i < most; i++) {
        const page_state state = scan_state(s, guest->first + ahead[i]);
        s->done.pages_scanned += state != PAGE_ABSENT;
        s->done.pages_hashed += state != PAGE_ABSENT && state != PAGE_STABLE;
        if (state == PAGE_CHANGED || state == PAGE_COLLIDED)
            batch->gpns[batch->n++] = (uint32_t)ahead[i];
    }
    guest->looked += most;
    *left -= most;
}

int dedupcore_pool_scan_guest(dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages, int *ended)
{
    scan *s = pool->scan;
    *ended = 0;
    if (!s || s->policy.kind != DEDUPCORE_POLICY_ESX || guest >= pool->n_guests)
        return DEDUPCORE_EINVAL;
    const uint64_t most = look_most(pool->frames.frame_size);
    const page_order o = page_order_of(pool->guests[guest].n_pages, random_mix(s->policy.seed) + guest,
                                       pool->guests[guest].passes);
    look batch = {.guest = guest};
    while (*n_pages && !*ended) {
        take_pages(pool, &o, &batch, most, n_pages);
        look_prepare(pool, &batch);
        for (size_t i = 0; i < batch.n; i++)
            look_at(pool, &batch, i);
        *ended = pool->guests[guest].looked == pool->guests[guest].n_pages;
    }
    if (*ended) {
        pool->guests[guest].looked = 0;
        pool->guests[guest].passes++;
        s->done.full_scans++;
    }
    frames_settle(&pool->frames);
    return 0;
}
