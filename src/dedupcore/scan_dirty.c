/* The policy `dirty`: looks at what was written, and at nothing else. */
#include <string.h>

#include "scan.h"

enum { CHANGED = PAGE_CHANGED << AGE_BITS | NO_ITEM };

static void look_at(dedupcore_pool *pool, const look *batch, size_t i)
{
    scan *s = pool->scan;
    const uint32_t guest = batch->guest, gpn = batch->gpns[i], tag = batch->tags[i];
    const uint64_t page = pool->guests[guest].first + gpn;
    const uint32_t frame = pool->guests[guest].table[gpn];
    if (scan_state(s, page) == PAGE_STABLE) /* one before it in the batch is equal, and the page what it was */
        return;
    if (scan_is_loose(s, frame)) /* for what it held before */
        scan_forget(pool, frame);
    s->tags[page] = tag;
    if (batch->zero[i]) {
        scan_merge_zero(pool, guest, gpn);
        return;
    }
    for (uint32_t g = *index_head(&s->index, tag); g != DEDUPCORE_ABSENT; g = s->index.links[g].next) {
        if (scan_holds(pool, g, frame, tag)) {
            scan_merge(pool, guest, gpn, g);
            return;
        }
    }
    scan_set(s, page, PAGE_QUIET, NO_ITEM);
    scan_loosen(pool, page, frame);
}

/* Takes the next changed pages of the guest; *at goes on behind them. */
static void take_changed(const dedupcore_pool *pool, look *batch, uint64_t *at, uint64_t most)
{
    const pool_guest *guest = pool->guests + batch->guest;
    const uint8_t *pages = pool->scan->pages + guest->first;
    for (batch->n = 0; batch->n < most && *at < guest->n_pages; ++*at) {
        if (pages[*at] != CHANGED) { /* most often, or hardly ever */
            const uint8_t *found = memchr(pages + *at, CHANGED, (size_t)(guest->n_pages - *at));
            *at = found ? (uint64_t)(found - pages) : guest->n_pages;
            if (!found)
                return;
        }
        batch->gpns[batch->n++] = (uint32_t)*at;
    }
}

int scan_dirty(dedupcore_pool *pool, uint64_t n_pages)
{
    scan *s = pool->scan;
    const uint64_t most = look_most(pool->frames.frame_size);
    look batch;
    for (; s->guest < pool->n_guests; s->guest++, s->gpn = 0) {
        while (s->gpn < pool->guests[s->guest].n_pages) {
            if (n_pages == 0)
                return 0;
            batch.guest = s->guest;
            take_changed(pool, &batch, &s->gpn, n_pages < most ? n_pages : most);
            look_prepare(pool, &batch);
            for (size_t i = 0; i < batch.n; i++)
                look_at(pool, &batch, i);
            n_pages -= batch.n;
            s->done.pages_scanned += batch.n;
            s->done.pages_hashed += batch.n;
        }
    }
    s->guest = 0;
    s->gpn = 0;
    s->done.full_scans++;
    return 1;
}
