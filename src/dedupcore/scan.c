/* A pool's sharing policy: set, told what happens to pages and frames, and the steps that all policies have in common. */
#include "scan.h"

#include <stdlib.h>
#include <string.h>

enum { COMPARE_CALL = 64 /* frames from this size on are compared by the wide loops */ };

int dedupcore_pool_set_policy(dedupcore_pool *pool, const dedupcore_policy *policy, const dedupcore_key *key)
{
    if (pool->scan || pool->n_guests)
        return DEDUPCORE_EINVAL;
    if (policy->kind < DEDUPCORE_POLICY_DIRTY || policy->kind > DEDUPCORE_POLICY_ESX ||
        (policy->kind == DEDUPCORE_POLICY_KSM && policy->max_page_sharing < 2))
        return DEDUPCORE_EINVAL;
    scan *s = calloc(1, sizeof *s);
    if (!s)
        return DEDUPCORE_ENOMEM;
    pool->scan = s;
    s->policy = *policy;
    if (policy->kind != DEDUPCORE_POLICY_KSM)
        s->policy.max_page_sharing = UINT32_MAX;
    s->key = *key;
    s->signer = signer_for(pool->frames.frame_size, &s->key, byte_scans_for(dedupcore_cpu_used()));
    const int rc = index_open(&s->index, pool->frames.capacity);
    if (rc)
        scan_close(pool);
    return rc;
}

void scan_close(dedupcore_pool *pool)
{
    scan *s = pool->scan;
    if (!s)
        return;
    index_close(&s->index);
    region_unmap(&s->pages_memory);
    region_unmap(&s->tags_memory);
    free(s);
    pool->scan = NULL;
}

int scan_add_pages(dedupcore_pool *pool, uint64_t n_pages)
{
    scan *s = pool->scan;
    const size_t n = (size_t)(pool->n_pages + n_pages);
    int rc = region_grow(&s->pages_memory, n * sizeof *s->pages, PAGES_HUGE);
    if (rc == 0)
        s->pages = s->pages_memory.at;
    if (rc == 0)
        rc = region_grow(&s->tags_memory, n * sizeof *s->tags, PAGES_SMALL);
    if (rc)
        return rc;
    s->tags = s->tags_memory.at;
    s->n_state[PAGE_ABSENT] += n_pages;
    return 0;
}

int dedupcore_pool_scan(dedupcore_pool *pool, uint64_t n_pages, int *ended)
{
    *ended = 0;
    if (!pool->scan || pool->scan->policy.kind == DEDUPCORE_POLICY_ESX)
        return DEDUPCORE_EINVAL;
    *ended = pool->scan->policy.kind == DEDUPCORE_POLICY_KSM ? scan_ksm(pool, n_pages) : scan_dirty(pool, n_pages);
    frames_settle(&pool->frames);
    return 0;
}

void dedupcore_pool_scan_count(const dedupcore_pool *pool, dedupcore_scan_counts *counts)
{
    memset(counts, 0, sizeof *counts);
    const scan *s = pool->scan;
    if (!s)
        return;
    *counts = s->done;
    counts->pages_stable = s->n_state[PAGE_STABLE];
    counts->frames_stable = s->n_stable;
    counts->pages_settled = s->n_state[PAGE_QUIET] + s->n_state[PAGE_BUSY] - s->n_hidden;
    counts->pages_items = s->n_items;
    counts->pages_changed = s->n_state[PAGE_CHANGED];
}

/* --- what the pool tells ----------------------------------------------------------------------------------------- */

void scan_page_written(dedupcore_pool *pool, uint64_t page)
{
    scan *s = pool->scan;
    const uint8_t before = s->pages[page];
    scan_set(s, page, PAGE_CHANGED, before ? before & AGE_MASK : NO_ITEM);
}

void scan_page_released(dedupcore_pool *pool, uint64_t page)
{
    scan *s = pool->scan;
    const uint8_t age = s->pages[page] & AGE_MASK;
    if (age == NO_ITEM)
        scan_set(s, page, PAGE_ABSENT, 0);
    else
        scan_set(s, page, PAGE_LEFT, age);
}

/* Other pages that hold the same may have waited for that: they are looked at again. */
static void let_in(dedupcore_pool *pool, uint32_t frame)
{
    scan *s = pool->scan;
    const uint32_t tag = s->index.links[frame].who;
    for (uint32_t g = *index_head(&s->index, tag); g != DEDUPCORE_ABSENT; g = s->index.links[g].next) {
        const uint32_t page = s->index.links[g].who;
        if (scan_is_loose(s, g) && scan_state(s, page) == PAGE_QUIET && s->tags[page] == tag && scan_same(pool, g, frame))
            scan_set(s, page, PAGE_BUSY, s->pages[page] & AGE_MASK);
    }
    index_put(&s->index, s->tags, frame);
}

void scan_frame_left(dedupcore_pool *pool, uint32_t frame, uint32_t left)
{
    scan *s = pool->scan;
    if (scan_is_stable(s, frame)) {
        if (left == 0) {
            index_take(&s->index, s->tags, frame);
            index_flip(s->index.stable, frame);
            s->n_stable--;
        } else if (left == s->policy.max_page_sharing - 1) {
            let_in(pool, frame);
        }
    } else if (left == 0 && scan_is_loose(s, frame)) {
        scan_forget(pool, frame);
    }
}

int scan_unprotect(dedupcore_pool *pool, uint32_t frame)
{
    scan *s = pool->scan;
    if (!scan_is_stable(s, frame))
        return 0;
    index_take(&s->index, s->tags, frame);
    index_flip(s->index.stable, frame);
    s->n_stable--;
    return 1;
}

void scan_frame_large(dedupcore_pool *pool, uint32_t frame)
{
    if (!scan_unprotect(pool, frame) && scan_is_loose(pool->scan, frame))
        scan_forget(pool, frame);
}

/* --- frames ------------------------------------------------------------------------------------------------------ */

static uint32_t tag_of_hash(const dedupcore_pool *pool, uint32_t frame, uint64_t hash)
{
    return (uint32_t)(hash >> 32) ^ pool->domains[frame] * UINT32_C(0x9e3779b1); /* other domains, other chains */
}

static uint64_t hash_of(const dedupcore_pool *pool, uint32_t frame, uint32_t next)
{
    const scan *s = pool->scan;
    const size_t size = pool->frames.frame_size;
    const uint8_t *at = frames_at(&pool->frames, frame);
    if (size < SAMPLED_FRAME_SIZE)
        return sign_whole(&s->signer, at);
    if (s->signer.scans->first_nonzero(at, size) == size)
        return 0;
    return hash_frame(at, size, frames_at(&pool->frames, next), 0, &s->key);
}

uint32_t scan_tag(const dedupcore_pool *pool, uint32_t frame)
{
    return tag_of_hash(pool, frame, hash_of(pool, frame, frame));
}

int scan_same(const dedupcore_pool *pool, uint32_t a, uint32_t b)
{
    const size_t size = pool->frames.frame_size;
    const uint8_t *at = frames_at(&pool->frames, a), *other = frames_at(&pool->frames, b);
    pool->scan->done.frames_compared++;
    int same;
    if (size == 8) /* content names: a call would take longer */
        same = memcmp(at, other, 8) == 0;
    else if (size < SAMPLED_FRAME_SIZE)
        same = memcmp(at, other, size) == 0;
    else
        same = pool->scan->signer.scans->first_difference(at, other, size, at, other) == size;
    return same && pool->domains[a] == pool->domains[b];
}

void scan_loosen(dedupcore_pool *pool, uint64_t page, uint32_t frame)
{
    scan_index *index = &pool->scan->index;
    index_flip(index->loose, frame);
    index->links[frame].who = (uint32_t)page;
    index_put(index, pool->scan->tags, frame);
}

void scan_forget(dedupcore_pool *pool, uint32_t frame)
{
    scan_index *index = &pool->scan->index;
    index_take(index, pool->scan->tags, frame);
    index_flip(index->loose, frame);
}

void scan_merge(dedupcore_pool *pool, uint32_t number, uint32_t gpn, uint32_t into)
{
    scan *s = pool->scan;
    pool_guest *guest = pool->guests + number;
    const uint64_t page = guest->first + gpn;
    const uint32_t from = guest->table[gpn];
    if (scan_is_loose(s, into)) { /* its tag, and so its chain, stays */
        const uint32_t owner = s->index.links[into].who;
        index_flip(s->index.loose, into);
        index_flip(s->index.stable, into);
        s->index.links[into].who = s->tags[owner];
        s->n_stable++;
        scan_set(s, owner, PAGE_STABLE, s->pages[owner] & AGE_MASK);
    }
    guest->table[gpn] = into;
    pool_add_ref(pool, into);
    if (!scan_has_room(pool, into))
        index_take(&s->index, s->tags, into);
    pool_drop_ref(pool, from);
    pool->merged++;
    scan_set(s, page, PAGE_STABLE, s->pages[page] & AGE_MASK);
}

int scan_merge_zero(dedupcore_pool *pool, uint32_t number, uint32_t gpn, uint32_t tag)
{
    scan *s = pool->scan;
    pool_guest *guest = pool->guests + number;
    const uint64_t page = guest->first + gpn;
    const uint32_t from = guest->table[gpn];
    uint32_t *zero = pool->zero_frames + guest->domain;
    if (tag != tag_of_hash(pool, from, 0) || hash_of(pool, from, from))
        return 0;
    if (*zero == DEDUPCORE_ABSENT) {
        if (scan_is_loose(s, from))
            scan_forget(pool, from);
        *zero = from;
    } else {
        guest->table[gpn] = *zero;
        pool_add_ref(pool, *zero);
        pool_drop_ref(pool, from);
        pool->merged++;
    }
    scan_set(s, page, PAGE_ZERO, s->pages[page] & AGE_MASK);
    return 1;
}

/* --- looking at pages -------------------------------------------------------------------------------------------- */

size_t look_most(size_t frame_size)
{
    return frame_size <= 256 ? LOOK_MOST : frame_size <= 4096 ? 8 : 1;
}

void look_prepare(const dedupcore_pool *pool, look *at)
{
    scan *s = pool->scan;
    const uint32_t *table = pool->guests[at->guest].table;
    for (size_t i = 0; i < at->n; i++) {
        const uint32_t frame = table[at->gpns[i]];
        __builtin_prefetch(frames_at(&pool->frames, frame));
        __builtin_prefetch(pool->refs + frame);
        __builtin_prefetch(s->index.links + frame);
    }
    for (size_t i = 0; i < at->n; i++) {
        const uint32_t frame = table[at->gpns[i]], next = table[at->gpns[i + 1 < at->n ? i + 1 : i]];
        at->tags[i] = tag_of_hash(pool, frame, hash_of(pool, frame, next));
        __builtin_prefetch(index_head(&s->index, at->tags[i]));
    }
    for (size_t i = 0; i < at->n; i++) {
        const uint32_t frame = *index_head(&s->index, at->tags[i]);
        if (frame == DEDUPCORE_ABSENT)
            continue;
        __builtin_prefetch(s->index.links + frame);
        __builtin_prefetch(frames_at(&pool->frames, frame));
        __builtin_prefetch(pool->refs + frame);
    }
    s->done.frames_hashed += at->n;
}
