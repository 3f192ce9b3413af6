/* A pool's sharing policy: set, told what happens to pages and frames, and the steps that all policies have in common. */
#include "scan.h"

#include <stdlib.h>
#include <string.h>

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
    int rc = index_open(&s->index, pool->frames.capacity);
    if (rc == 0)
        rc = heap_open(&s->room, pool->refs, pool->frames.capacity);
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
    heap_close(&s->room);
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
        rc = region_grow(&s->tags_memory, n * sizeof *s->tags, PAGES_HUGE);
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
    /* All that changed may turn out unique. */
    index_reserve(&pool->scan->index, pool->scan->tags, pool->scan->index.n + pool->scan->n_state[PAGE_CHANGED]);
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
    if (s->owes)
        scan_make_up(pool);
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
    if (s->owes)
        scan_make_up(pool);
    scan_set(s, page, PAGE_CHANGED, before ? before & AGE_MASK : NO_ITEM);
}

void scan_page_released(dedupcore_pool *pool, uint64_t page)
{
    scan *s = pool->scan;
    const uint8_t age = s->pages[page] & AGE_MASK;
    if (s->owes)
        scan_make_up(pool);
    if (age == NO_ITEM || s->policy.kind != DEDUPCORE_POLICY_KSM)
        scan_set(s, page, PAGE_ABSENT, 0);
    else
        scan_set(s, page, PAGE_LEFT, age);
}

/*
 * Stable frames of one content that have room are many where max_page_sharing is small and pages leave: a host's free memory may
 * be zero pages, in a hundred thousand frames. The one with the most pages is in the chain of their tag; the others are below it
 * in a heap, since no page joins them before it is full. So chains stay as short as contents are few. Other policies have but one.
 */
static void put_in_chain(dedupcore_pool *pool, uint32_t was, uint32_t now)
{
    scan_index *index = &pool->scan->index;
    if (now == DEDUPCORE_ABSENT)
        index_take(index, pool->scan->tags, was);
    else if (now != was)
        index_replace(index, pool->scan->tags, was, now);
}

/* Takes a stable frame that has room, or had it until now, out of the index. */
static void close_room(dedupcore_pool *pool, uint32_t frame)
{
    const int is_below = heap_is_below(&pool->scan->room, frame);
    const uint32_t now = heap_take(&pool->scan->room, frame);
    if (!is_below)
        put_in_chain(pool, frame, now);
}

/*
 * A stable frame that was full has room. Other pages that hold the same may have waited for that: they are looked at again. None
 * waits if there was a frame with room: it would have been mapped there, and those that waited before were woken when there came
 * to be one. Nor does one if there came to be one by a merge: where several wait, they wait for each other, and are busy.
 */
static void let_in(dedupcore_pool *pool, uint32_t frame)
{
    scan *s = pool->scan;
    const uint32_t tag = s->index.links[frame].who;
    for (uint32_t g = *index_head(&s->index, tag); g != DEDUPCORE_ABSENT; g = s->index.links[g].next) {
        if (scan_is_stable(s, g)) {
            if (!scan_holds(pool, g, frame, tag))
                continue;
            put_in_chain(pool, g, heap_join(&s->room, g, frame));
            return;
        }
        const uint32_t page = s->index.links[g].who;
        if (scan_state(s, page) == PAGE_QUIET && scan_holds(pool, g, frame, tag))
            scan_set(s, page, PAGE_BUSY, s->pages[page] & AGE_MASK);
    }
    index_put(&s->index, s->tags, frame);
}

void scan_frame_left(dedupcore_pool *pool, uint32_t frame, uint32_t left)
{
    scan *s = pool->scan;
    if (scan_is_stable(s, frame)) {
        if (left == 0) {
            (void)scan_unprotect(pool, frame);
        } else if (left == s->policy.max_page_sharing - 1) {
            let_in(pool, frame);
        } else if (!heap_is_below(&s->room, frame)) {
            put_in_chain(pool, frame, heap_fell(&s->room, frame));
        } else {
            (void)heap_fell(&s->room, frame);
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
    close_room(pool, frame);
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

/* The hash of what the frame holds, 0 for zero bytes. All of it is read, so all of the next one is fetched meanwhile. */
static uint64_t hash_of(const dedupcore_pool *pool, uint32_t frame, uint32_t next)
{
    enum { STRIDE = 1024 };
    const scan *s = pool->scan;
    const size_t size = pool->frames.frame_size;
    const uint8_t *at = frames_at(&pool->frames, frame), *after = frames_at(&pool->frames, next);
    if (size < SAMPLED_FRAME_SIZE)
        return sign_whole(&s->signer, at);
    for (size_t from = 0, n; from < size; from += n) {
        n = size - from < STRIDE ? size - from : STRIDE;
        for (size_t line = from; line < from + n; line += LINE)
            __builtin_prefetch(after + line);
        if (s->signer.scans->first_nonzero(at + from, n) < n)
            return hash_frame(at, size, after, 0, &s->key);
    }
    return 0;
}

uint64_t scan_hash(const dedupcore_pool *pool, uint32_t frame)
{
    return hash_of(pool, frame, frame);
}

uint32_t scan_tag(const dedupcore_pool *pool, uint32_t frame)
{
    return scan_tag_of(pool->domains[frame], scan_hash(pool, frame));
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

static pool_guest *guest_of(const dedupcore_pool *pool, uint64_t page)
{
    size_t low = 0, high = pool->n_guests;
    while (high - low > 1) {
        const size_t middle = (low + high) / 2;
        if (pool->guests[middle].first <= page)
            low = middle;
        else
            high = middle;
    }
    return pool->guests + low;
}

static void break_if_large(dedupcore_pool *pool, pool_guest *guest, uint32_t gpn)
{
    if (pool_is_large(guest, gpn))
        pool_break_large(pool, guest, gpn);
}

void scan_merge(dedupcore_pool *pool, uint32_t number, uint32_t gpn, uint32_t into)
{
    scan *s = pool->scan;
    pool_guest *guest = pool->guests + number;
    const uint64_t page = guest->first + gpn;
    const uint32_t from = guest->table[gpn];
    break_if_large(pool, guest, gpn);
    if (scan_is_loose(s, into)) { /* its tag, and so its chain, stays */
        const uint32_t owner = s->index.links[into].who;
        if (pool_holds_large(pool, into)) {
            pool_guest *other = guest_of(pool, owner);
            break_if_large(pool, other, (uint32_t)(owner - other->first));
        }
        index_flip(s->index.loose, into);
        index_flip(s->index.stable, into);
        s->index.links[into].who = s->tags[owner];
        s->n_stable++;
        scan_set(s, owner, PAGE_STABLE, s->pages[owner] & AGE_MASK);
    }
    guest->table[gpn] = into;
    pool_add_ref(pool, into);
    if (!scan_has_room(pool, into))
        close_room(pool, into);
    pool_drop_ref(pool, from);
    pool->merged++;
    scan_set(s, page, PAGE_STABLE, s->pages[page] & AGE_MASK);
}

void scan_merge_zero(dedupcore_pool *pool, uint32_t number, uint32_t gpn)
{
    scan *s = pool->scan;
    pool_guest *guest = pool->guests + number;
    const uint64_t page = guest->first + gpn;
    const uint32_t from = guest->table[gpn];
    uint32_t *zero = pool->zero_frames + guest->domain;
    break_if_large(pool, guest, gpn);
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
}

/* --- looking at pages -------------------------------------------------------------------------------------------- */

size_t look_most(size_t frame_size)
{
    return frame_size <= 256 ? LOOK_MOST : frame_size <= 4096 ? 16 : 1;
}

/* A batch's frames, and of each the frame of the index that may hold the same. */
typedef struct {
    uint32_t frames[2 * LOOK_MOST], found[2 * LOOK_MOST];
} chains;

/* Fetches what belongs to the pages' frames. */
static inline void fetch_frames(const dedupcore_pool *pool, const look *at, chains *c)
{
    const scan *s = pool->scan;
    const pool_guest *guest = pool->guests + at->guest;
    const uint32_t *tags = s->tags + guest->first;
    for (size_t i = 0; i < at->n; i++) {
        __builtin_prefetch(guest->table + at->gpns[i]);
        __builtin_prefetch(tags + at->gpns[i]);
    }
    for (size_t i = 0; i < at->n; i++) {
        const uint32_t frame = c->frames[i] = guest->table[at->gpns[i]];
        __builtin_prefetch(frames_at(&pool->frames, frame));
        __builtin_prefetch(pool->refs + frame);
        __builtin_prefetch(s->index.links + frame);
        if (scan_is_loose(s, frame)) /* it is in the index for what it held before */
            __builtin_prefetch(index_head(&s->index, tags[at->gpns[i]]));
    }
}

static inline void tag_frames(const dedupcore_pool *pool, look *at, const chains *c)
{
    const scan *s = pool->scan;
    const uint16_t domain = pool->guests[at->guest].domain;
    for (size_t i = 0; i < at->n; i++) {
        uint64_t hash;
        if (pool->frames.frame_size == 8) {
            memcpy(&hash, frames_at(&pool->frames, c->frames[i]), sizeof hash);
            hash = sign_name(hash, &s->key);
        } else {
            hash = hash_of(pool, c->frames[i], c->frames[i + 1 < at->n ? i + 1 : i]);
        }
        at->zero[i] = hash == 0;
        at->tags[i] = scan_tag_of(domain, hash);
        __builtin_prefetch(index_head(&s->index, at->tags[i]));
    }
}

/*
 * Follows the chain of each tag to the frame that holds the same, as far as the first 8 bytes tell, a step at a time for all of
 * them, so that none is waited for. Must be inlined: GCC drops the call of a function that does nothing but fetch.
 */
static inline __attribute__((always_inline)) void fetch_chains(const dedupcore_pool *pool, const look *at, chains *c)
{
    enum { STEPS = 4 };
    const scan *s = pool->scan;
    const scan_link *links = s->index.links;
    size_t n = 0; /* chains that go on: their pages and frames are moved to the front */
    for (size_t i = 0; i < at->n; i++) {
        const uint32_t found = *index_head(&s->index, at->tags[i]);
        if (found == DEDUPCORE_ABSENT)
            continue;
        __builtin_prefetch(links + found);
        __builtin_prefetch(frames_at(&pool->frames, found));
        c->frames[n] = c->frames[i];
        c->found[n++] = found;
    }
    for (int step = 0; step < STEPS && n; step++) {
        const size_t n_now = n;
        n = 0;
        for (size_t i = 0; i < n_now; i++) {
            uint32_t found = c->found[i];
            if (memcmp(frames_at(&pool->frames, found), frames_at(&pool->frames, c->frames[i]), 8) == 0) {
                __builtin_prefetch(pool->refs + found);
                if (scan_is_loose(s, found)) {
                    __builtin_prefetch(s->tags + links[found].who);
                    __builtin_prefetch(s->pages + links[found].who);
                }
                continue;
            }
            found = links[found].next;
            if (found == DEDUPCORE_ABSENT)
                continue;
            __builtin_prefetch(links + found);
            __builtin_prefetch(frames_at(&pool->frames, found));
            c->frames[n] = c->frames[i];
            c->found[n++] = found;
        }
    }
}

void look_prepare(const dedupcore_pool *pool, look *at)
{
    chains c;
    fetch_frames(pool, at, &c);
    tag_frames(pool, at, &c);
    pool->scan->done.frames_hashed += at->n;
    fetch_chains(pool, at, &c);
}
