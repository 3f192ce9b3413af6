/*
 * corrupt_large_pool NUMBER: as corrupt_pool, for a pool with large pages. Guests 0 and 1 have one in block 0 together, where
 * guest 2 has small pages that were left when its own was broken; guest 0 has another in block 1, to which guest 2 has none.
 * Guest 3 has small pages in block 2, and block 3 is free.
 */
#include "corrupt.h"

enum { SIZE = 8, N = DEDUPCORE_LARGE_PAGE, CAPACITY = 4 * N + 40, PAGES = 2 * N + 9 };

#define SWAP(A, B) \
    const uint32_t kept = A; \
    A = B; \
    B = kept

#define WAYS(WAY) \
    WAY(SWAP(pool->guests[0].table[3], pool->guests[0].table[4])) \
    WAY(SWAP(pool->guests[2].table[3], pool->guests[2].table[4])) \
    WAY(pool->guests[0].large[1] = 0) \
    WAY(pool->guests[2].large[0] = 1) \
    WAY(pool->guests[3].large[0] = 1) \
    WAY(pool->guests[0].large[2] = 1) \
    WAY(pool->guests[0].large[1] = 2) \
    WAY(pool->guests[1].n_large = 2) \
    WAY(pool->n_large++) \
    WAY(pool->blocks[0].large = 3) \
    WAY(pool->blocks[1].large = 0) \
    WAY(pool->blocks[2].large = 1) \
    WAY(pool->blocks[0].mixed = 0) \
    WAY(pool->blocks[0].mixed = 2) \
    WAY(pool->blocks[2].mixed = 1) \
    WAY(bit_tree_set(&pool->frames.parted, 0, 3)) \
    WAY(bit_tree_clear(&pool->frames.parted, 0, 0)) \
    WAY(bit_tree_clear(&pool->frames.parted, 0, 4)) \
    WAY(pool->frames.parted.level[0][0] &= ~(UINT64_C(1) << 40))

static dedupcore_pool *make(void)
{
    static uint64_t names[PAGES];
    static uint32_t gpns[PAGES];
    const uint32_t range = 0;
    uint32_t number;
    size_t wrong;
    dedupcore_pool *pool;
    dedupcore_key key;
    dedupcore_key_seeded(&key, 1);
    must(dedupcore_pool_create(&pool, CAPACITY, SIZE));
    for (uint32_t i = 0; i < PAGES; i++) {
        gpns[i] = i;
        names[i] = i + 1;
    }
    for (uint32_t guest = 0; guest < 3; guest++) {
        must(dedupcore_pool_add_guest(pool, PAGES, 0, &number));
        must(dedupcore_pool_use_large(pool, number));
        must(dedupcore_pool_write(pool, number, gpns, names, guest == 0 ? 2 * N : N, &wrong));
        must(dedupcore_pool_share_large(pool, &key, NULL));
    }
    must(dedupcore_pool_break_large(pool, 2, &range, 1, &wrong));
    must(dedupcore_pool_add_guest(pool, PAGES, 0, &number));
    must(dedupcore_pool_write(pool, number, gpns, names, N - 1, &wrong));
    return pool;
}

#include "corrupt_main.h"
