/*
 * The policy `ksm`: what ksmd of Linux 6.18 does, page by page in the same order, without doing again what it has done.
 *
 * ksmd visits all pages, guest by guest. One that is not yet shared is taken for changing until its checksum is that of its
 * last visit. A settled page is looked for among the write-protected, shared ones (the stable tree), then among the settled
 * ones visited earlier in the same scan (the unstable tree, made anew by each scan), and else it is put there. So two equal
 * pages meet when the second of them is visited; here all settled pages stay in one index, and what is in the unstable tree is
 * known from where the scanner is. A settled page whose equal is not there now is busy: it is visited again until they meet.
 * Nothing can come of visiting other settled pages, and they are only counted.
 *
 * smart_scan visits a page that found nothing ever more rarely: after four visits it skips one, then 2, 4 and 8 in a row, and
 * 8 again. A page that is skipped is not in the unstable tree.
 */
#include <string.h>

#include "scan.h"

enum { REPEATS = 13, LAST = 22 }; /* a visit, and the next one like it */

static int skips(uint8_t age)
{
    return SCAN_SKIPPED >> age & 1;
}

static uint8_t older(uint8_t age)
{
    return age + 1 == LAST ? REPEATS : (uint8_t)(age + 1);
}

/* Whether a loose frame's page, not the visited one, is in the unstable tree when the scanner is at that one. */
static int in_unstable_tree(const scan *s, uint64_t page, uint64_t visited)
{
    const uint8_t as_settled = (uint8_t)(PAGE_QUIET << AGE_BITS | (s->pages[page] & AGE_MASK));
    return page < visited && !scan_is_hidden(as_settled);
}

/* The page found an equal that is not in the unstable tree: that one has to be visited, too. In this batch, if it comes. */
static void wake(dedupcore_pool *pool, look *batch, size_t i, uint64_t page)
{
    scan *s = pool->scan;
    const uint64_t first = pool->guests[batch->guest].first;
    if (scan_state(s, page) != PAGE_QUIET)
        return; /* busy already; or changed, and visited for that */
    const int comes = page > first + batch->gpns[i] && page < first + s->gpn && !scan_is_hidden(s->pages[page]);
    scan_set(s, page, PAGE_BUSY, s->pages[page] & AGE_MASK);
    if (!comes || batch->n == sizeof batch->gpns / sizeof *batch->gpns)
        return;
    size_t at = batch->n++;
    for (; first + batch->gpns[at - 1] > page; at--) {
        batch->gpns[at] = batch->gpns[at - 1];
        batch->tags[at] = batch->tags[at - 1];
        batch->zero[at] = batch->zero[at - 1];
    }
    batch->gpns[at] = (uint32_t)(page - first);
    batch->tags[at] = s->tags[page];
    batch->zero[at] = 0; /* or use_zero_pages is off: zero pages do not settle with it */
    s->done.stable_searches--; /* it was counted as one of which nothing comes */
    s->done.unstable_searches--;
}

static void visit(dedupcore_pool *pool, look *batch, size_t i)
{
    scan *s = pool->scan;
    const pool_guest *guest = pool->guests + batch->guest;
    const uint32_t gpn = batch->gpns[i], tag = batch->tags[i], frame = guest->table[gpn];
    const uint64_t page = guest->first + gpn;
    uint8_t age = s->pages[page] & AGE_MASK;
    if (scan_state(s, page) == PAGE_CHANGED) {
        if (scan_is_loose(s, frame)) /* for what it held before */
            scan_forget(pool, frame);
        const int is_new = age == NO_ITEM;
        if (is_new)
            age = s->policy.smart_scan != 0;
        s->n_items += is_new;
        const int settled = !is_new && s->tags[page] == tag;
        s->tags[page] = tag;
        scan_set(s, page, PAGE_CHANGED, age);
        if (!settled)
            return;
    }
    if (s->policy.use_zero_pages && batch->zero[i]) {
        scan_merge_zero(pool, batch->guest, gpn);
        return;
    }
    s->done.stable_searches++;
    uint32_t match = DEDUPCORE_ABSENT;
    int waits = 0;
    for (uint32_t g = *index_head(&s->index, tag); g != DEDUPCORE_ABSENT; g = s->index.links[g].next) {
        if (g == frame || !scan_holds(pool, g, frame, tag))
            continue;
        waits = 1;
        if (scan_is_stable(s, g)) { /* the fullest, as with stable_node_chains_prune_millisecs = 0 */
            scan_merge(pool, batch->guest, gpn, g);
            return;
        }
        if (in_unstable_tree(s, s->index.links[g].who, page))
            match = g;
    }
    s->done.unstable_searches++;
    if (match != DEDUPCORE_ABSENT) {
        scan_merge(pool, batch->guest, gpn, match);
        return;
    }
    for (uint32_t g = *index_head(&s->index, tag); waits && g != DEDUPCORE_ABSENT; g = s->index.links[g].next) {
        if (g != frame && scan_holds(pool, g, frame, tag))
            wake(pool, batch, i, s->index.links[g].who);
    }
    scan_set(s, page, waits ? PAGE_BUSY : PAGE_QUIET, age);
    if (!scan_is_loose(s, frame))
        scan_loosen(pool, page, frame);
}

/* What passing by has counted. */
typedef struct {
    uint64_t quiet, stable, skipped, left; /* of visits */
} passed;

/*
 * Passes by 8 pages if nothing can come of it and all are in the same state, as neighbours mostly are. Returns whether it did.
 */
static int pass_by_eight(scan *s, uint64_t page, passed *p)
{
    const uint64_t each = UINT64_C(0x0101010101010101);
    uint64_t bytes;
    memcpy(&bytes, s->pages + page, 8);
    const uint8_t first = (uint8_t)bytes;
    const page_state state = (page_state)(first >> AGE_BITS);
    if (p->left < 8 || (bytes & each * (0xff ^ AGE_MASK)) != each * (uint64_t)(first & ~AGE_MASK))
        return 0;
    if (state == PAGE_ABSENT)
        return 1;
    if (state == PAGE_STABLE) {
        p->stable += 8;
    } else if (state == PAGE_QUIET && !s->policy.smart_scan) {
        p->quiet += 8;
    } else if (state == PAGE_QUIET && bytes == each * first) {
        const uint8_t now = (uint8_t)(state << AGE_BITS | older(first & AGE_MASK));
        memset(s->pages + page, now, 8);
        s->n_hidden += 8 * (uint64_t)scan_is_hidden(now) - 8 * (uint64_t)scan_is_hidden(first);
        if (skips(first & AGE_MASK)) {
            p->skipped += 8;
            return 1;
        }
        p->quiet += 8;
    } else {
        return 0;
    }
    p->left -= 8;
    return 1;
}

/* Passes by a page. Returns whether it has to be visited for what may come of it. */
static int pass_by_one(scan *s, uint64_t page, passed *p)
{
    const page_state state = scan_state(s, page);
    const uint8_t age = s->pages[page] & AGE_MASK;
    switch (state) {
    case PAGE_ABSENT:
        return 0;
    case PAGE_LEFT:
        s->n_items--;
        scan_set(s, page, PAGE_ABSENT, 0);
        return 0;
    case PAGE_ZERO:
        s->n_items -= age != NO_ITEM;
        scan_set(s, page, PAGE_ZERO, NO_ITEM);
        return 0;
    case PAGE_STABLE:
        p->stable++;
        p->left--;
        return 0;
    default:
        break;
    }
    if (s->policy.smart_scan && age != NO_ITEM) {
        scan_set(s, page, state, older(age));
        if (skips(age)) {
            p->skipped++;
            return 0;
        }
    }
    p->left--;
    p->quiet += state == PAGE_QUIET;
    return state != PAGE_QUIET;
}

/* Passes by pages, as the scanner does, and takes those that have to be visited. Returns how many of n_pages are left. */
static uint64_t pass_by(dedupcore_pool *pool, look *batch, uint64_t most, uint64_t n_pages)
{
    scan *s = pool->scan;
    const pool_guest *guest = pool->guests + batch->guest;
    passed p = {.left = n_pages};
    uint64_t at = s->gpn;
    for (batch->n = 0; batch->n < most && p.left && at < guest->n_pages;) {
        if (at + 8 <= guest->n_pages && pass_by_eight(s, guest->first + at, &p)) {
            at += 8;
            continue;
        }
        if (pass_by_one(s, guest->first + at, &p))
            batch->gpns[batch->n++] = (uint32_t)at;
        at++;
    }
    s->gpn = at;
    s->done.pages_skipped += p.skipped;
    s->done.pages_scanned += n_pages - p.left;
    s->done.pages_hashed += n_pages - p.left - p.stable;
    s->done.stable_searches += p.quiet;
    s->done.unstable_searches += p.quiet;
    return p.left;
}

int scan_ksm(dedupcore_pool *pool, uint64_t n_pages)
{
    scan *s = pool->scan;
    const uint64_t most = look_most(pool->frames.frame_size);
    look batch;
    for (; s->guest < pool->n_guests; s->guest++, s->gpn = 0) {
        while (s->gpn < pool->guests[s->guest].n_pages) {
            if (n_pages == 0)
                return 0;
            batch.guest = s->guest;
            n_pages = pass_by(pool, &batch, most, n_pages);
            look_prepare(pool, &batch);
            for (size_t i = 0; i < batch.n; i++)
                visit(pool, &batch, i);
        }
    }
    if (n_pages == 0)
        return 0; /* it did not look for more, and finds that there is none when it wakes the next time */
    s->guest = 0;
    s->gpn = 0;
    s->done.full_scans++;
    return 1;
}
