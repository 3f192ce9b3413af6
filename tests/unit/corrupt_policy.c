/*
 * corrupt_policy NUMBER: as corrupt_pool, for what a policy knows of the pool: KSM with two pages a frame at the most. Pages 0 and 1
 * of the guest share frame 0, to which no other may come; page 2, which holds the same, is alone, as is page 3; pages 4 and 5 are
 * zero; page 6 was written after it had settled; page 7 is absent; page 8 is what is left at frame 7, and page 9, which was
 * there, has frame 1. Frame 5 is free.
 */
#include "corrupt.h"
#include "scan.h"

enum { SIZE = 8, PAGES = 10, AGE = 0 };

#define S pool->scan
#define CHAIN_OF(FRAME) (*index_head(&S->index, index_tag(&S->index, S->tags, FRAME)))
#define STATE(PAGE, IS) S->pages[PAGE] = (uint8_t)(IS << AGE_BITS | AGE)

#define WAYS(WAY) \
    WAY(STATE(7, PAGE_CHANGED)) \
    WAY(S->pages[3] = 0) \
    WAY(STATE(3, PAGE_STABLE)) \
    WAY(STATE(3, PAGE_ZERO)) \
    WAY(STATE(9, PAGE_QUIET)) \
    WAY(S->index.links[3].who = 2) \
    WAY(S->tags[3]++) \
    WAY(STATE(0, PAGE_CHANGED)) \
    WAY(S->n_state[PAGE_QUIET]++) \
    WAY(S->n_hidden++) \
    WAY(S->n_items++) \
    WAY(index_flip(S->index.stable, 7)) \
    WAY(index_flip(S->index.stable, 1)) \
    WAY(index_flip(S->index.loose, 5)) \
    WAY(index_flip(S->index.loose, 0)) \
    WAY(S->index.links[0].who++) \
    WAY(S->policy.max_page_sharing = 1) \
    WAY(S->index.links[7].next = 7) \
    WAY(CHAIN_OF(3) = 1, S->index.links[1].next = DEDUPCORE_ABSENT) \
    WAY(S->index.heads[(&CHAIN_OF(3) - S->index.heads) ^ 1] = 3, CHAIN_OF(3) = DEDUPCORE_ABSENT) \
    WAY(CHAIN_OF(3) = DEDUPCORE_ABSENT) \
    WAY(S->index.n++) \
    WAY(S->n_stable++) \
    WAY(S->owes = 1) \
    WAY(pool->guests[0].looked = 1) \
    WAY(pool->guests[0].passes = 1)

static dedupcore_pool *make(void)
{
    const uint64_t names[] = {1, 1, 1, 2, 0, 0, 3, 4, 4}, other[] = {5, 6};
    const uint32_t gpns[] = {0, 1, 2, 3, 4, 5, 6, 8, 9}, written[] = {6, 9};
    const dedupcore_policy policy = {DEDUPCORE_POLICY_KSM, 2, 1, 0, 0};
    uint32_t number;
    size_t wrong;
    int ended;
    dedupcore_pool *pool;
    dedupcore_key key;
    dedupcore_key_seeded(&key, 1);
    must(dedupcore_pool_create(&pool, 2 * PAGES, SIZE));
    must(dedupcore_pool_set_policy(pool, &policy, &key));
    must(dedupcore_pool_add_guest(pool, PAGES, 0, &number));
    must(dedupcore_pool_write(pool, number, gpns, names, 9, &wrong));
    for (int i = 0; i < 3; i++)
        must(dedupcore_pool_scan(pool, UINT64_MAX, &ended));
    must(dedupcore_pool_write(pool, number, written, other, 2, &wrong));
    return pool;
}

#include "corrupt_main.h"
