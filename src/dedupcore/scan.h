/*
 * What the sharing policies of a pool have in common: what is known of each page, and the steps that share a frame.
 *
 * A page is looked at when the policy's scanner comes by, and only if something may have come of it: it was written, or a
 * page of equal content waits for it. So the work grows with what changed; what the original would have spent is counted.
 */
#ifndef DEDUPCORE_SCAN_H
#define DEDUPCORE_SCAN_H

#include <string.h>

#include "dedupcore.h"
#include "hash.h"
#include "pairing_heap.h"
#include "pool.h"
#include "scan_index.h"

/* What a page is to the scanner, in the upper bits of its byte. */
typedef enum {
    PAGE_ABSENT,  /* has no frame */
    PAGE_CHANGED, /* was written since the scanner came by, or is not yet taken for settled */
    PAGE_QUIET,   /* loose in the index, and nothing can come of looking at it */
    PAGE_BUSY,    /* the same, but something can: to be looked at each time */
    PAGE_STABLE,  /* mapped to a stable frame */
    PAGE_ZERO,    /* mapped to the zero frame of its domain */
    PAGE_LEFT,    /* KSM: has no frame any more, but an item until the scanner comes by */
    PAGE_COLLIDED, /* ESX: not shared, for the hash of its content is another's */
    PAGE_STATES,
} page_state;

/*
 * In the lower bits: how often KSM's smart_scan has seen the page, as far as it matters: visits 13 to 21 repeat. NO_ITEM: KSM
 * does not know the page; other policies know none. HINTED: ESX has hashed it as a part of a large page; see scan_esx.c.
 */
enum { AGE_BITS = 5, AGE_MASK = 31, NO_ITEM = 31, HINTED = 0 };

typedef struct scan {
    dedupcore_policy policy;
    dedupcore_key key;
    signer signer;
    uint8_t *pages; /* [n_pages of all guests] state << AGE_BITS | age */
    uint32_t *tags; /* [n_pages of all guests] of the content when the page was looked at */
    region pages_memory, tags_memory;
    scan_index index;
    pairing_heap room; /* KSM: of stable frames by their pages; see scan_frame_left */

    uint32_t guest; /* where the scanner is */
    uint64_t gpn;
    uint64_t n_state[PAGE_STATES]; /* pages */
    uint64_t n_stable;             /* stable frames */
    uint64_t n_hidden;             /* KSM: settled pages that were skipped when the scanner last came by */
    uint64_t n_items;
    int owes; /* ESX: visits of which nothing could come are not counted yet; see scan_esx.c */
    dedupcore_scan_counts done;
} scan;

/* --- pages ------------------------------------------------------------------------------------------------------- */

static inline page_state scan_state(const scan *s, uint64_t page)
{
    return (page_state)(s->pages[page] >> AGE_BITS);
}

/* The visits that smart_scan skips, a bit each: 4, 6 and 7, 9 to 12, 14 to 21. Visit 22 is as visit 13. */
#define SCAN_SKIPPED (1u << 4 | 3u << 6 | 0xfu << 9 | 0xffu << 14)

/* Whether smart_scan skipped the page, settled, at its last visit, which has made it a visit older. */
static inline int scan_is_hidden(uint8_t page)
{
    const int settled = (page >> AGE_BITS & ~1) == PAGE_QUIET; /* or PAGE_BUSY */
    return settled && SCAN_SKIPPED << 1 >> (page & AGE_MASK) & 1;
}

/* What becomes of the page, in the counts too. */
static inline void scan_set(scan *s, uint64_t page, page_state state, uint8_t age)
{
    const uint8_t before = s->pages[page], now = (uint8_t)(state << AGE_BITS | age);
    s->n_state[before >> AGE_BITS]--;
    s->n_state[state]++;
    if (s->policy.smart_scan) {
        s->n_hidden -= scan_is_hidden(before);
        s->n_hidden += scan_is_hidden(now);
    }
    s->pages[page] = now;
}

/* --- frames ------------------------------------------------------------------------------------------------------ */

static inline int scan_is_loose(const scan *s, uint32_t frame)
{
    return index_bit(s->index.loose, frame);
}

static inline int scan_is_stable(const scan *s, uint32_t frame)
{
    return index_bit(s->index.stable, frame);
}

/* Whether another page may be mapped to the stable frame. */
static inline int scan_has_room(const dedupcore_pool *pool, uint32_t frame)
{
    return pool->refs[frame] < pool->scan->policy.max_page_sharing;
}

/* A hash of what the frame holds, 0 for zero bytes; and a tag for that, in its domain. */
uint64_t scan_hash(const dedupcore_pool *pool, uint32_t frame);
uint32_t scan_tag(const dedupcore_pool *pool, uint32_t frame);

/* Whether both frames hold the same. */
static inline int scan_same(const dedupcore_pool *pool, uint32_t a, uint32_t b)
{
    const size_t size = pool->frames.frame_size;
    const uint8_t *at = frames_at(&pool->frames, a), *other = frames_at(&pool->frames, b);
    pool->scan->done.frames_compared++;
    if (size == 8) /* content names: a call would take longer */
        return memcmp(at, other, 8) == 0;
    if (size < SAMPLED_FRAME_SIZE)
        return memcmp(at, other, size) == 0;
    return pool->scan->signer.scans->first_difference(at, other, size, at, other) == size;
}

/*
 * Whether a frame of the index, found in the chain of the tag, holds the same in the same domain, and has since it was put in.
 * Equal contents of other domains have other tags, always. But a loose frame may hold by now what it did not hold then.
 */
static inline int scan_holds(const dedupcore_pool *pool, uint32_t found, uint32_t frame, uint32_t tag)
{
    const scan *s = pool->scan;
    if (pool->frames.frame_size >= SAMPLED_FRAME_SIZE && index_tag(&s->index, s->tags, found) != tag)
        return 0; /* small frames are compared at once: looking up a tag costs as much */
    if (!scan_same(pool, found, frame))
        return 0;
    if (scan_is_stable(s, found)) /* which cannot have changed */
        return pool->n_domains == 1 || s->index.links[found].who == tag;
    return index_tag(&s->index, s->tags, found) == tag && pool->domains[found] == pool->domains[frame];
}

/* Puts the frame of the page, which is alone there, into the index as a loose one; its tag is set. */
void scan_loosen(dedupcore_pool *pool, uint64_t page, uint32_t frame);

/* Takes a loose frame out of the index. */
void scan_forget(dedupcore_pool *pool, uint32_t frame);

/*
 * Maps a page, whose frame holds the same, to another frame: a stable one that has room, or a loose one, which becomes stable.
 * Large pages that one of them is in are broken.
 */
void scan_merge(dedupcore_pool *pool, uint32_t guest, uint32_t gpn, uint32_t into);

/* The tag of the hash of what a frame of the domain holds: equal contents of other domains have other tags. */
static inline uint32_t scan_tag_of(uint16_t domain, uint64_t hash)
{
    return (uint32_t)(hash >> 32) ^ domain * UINT32_C(0x9e3779b1);
}

/* Maps a page, whose frame is zero, to the zero frame of its domain. A large page that it is in is broken. */
void scan_merge_zero(dedupcore_pool *pool, uint32_t guest, uint32_t gpn);

/* --- looking at pages -------------------------------------------------------------------------------------------- */

enum { LOOK_MOST = 64 };

/* Pages of one guest, in the order in which they are to be looked at, with the tags of what they hold, and whether that is zero. */
typedef struct {
    uint32_t guest;
    size_t n;
    uint32_t gpns[2 * LOOK_MOST], tags[2 * LOOK_MOST]; /* twice: looking at one may add another */
    uint8_t zero[2 * LOOK_MOST];
} look;

/* How many pages of frames so large are best looked at together: no more than stay in the cache. */
size_t look_most(size_t frame_size);

/* Tags their contents, and fetches what looking at them will need. */
void look_prepare(const dedupcore_pool *pool, look *at);

/* --- the policies ------------------------------------------------------------------------------------------------ */

/* Each looks at up to so many pages from where it is, and returns whether it met the end of the last guest. */
int scan_ksm(dedupcore_pool *pool, uint64_t n_pages);
int scan_dirty(dedupcore_pool *pool, uint64_t n_pages);

/* ESX: counts the visits that are not counted yet. Before any page's state changes, and before the counts are told. */
void scan_make_up(const dedupcore_pool *pool);

#endif
