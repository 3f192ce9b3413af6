/*
 * corrupt_pool NUMBER: makes a pool of two domains, shared, with free frames in between, breaks it in one way, and prints what
 * dedupcore_pool_check says of it: flaw, guest, page, frame. Without a number, how many ways there are. Knows the pool's insides.
 */
#include "corrupt.h"

enum { SIZE = 64, CAPACITY = 300, PAGES = 100 };

#define WAYS(WAY) \
    WAY(pool->guests[0].table[3] = 299) \
    WAY(pool->guests[0].table[3] = pool->guests[0].table[4]) \
    WAY(pool->guests[0].table[3] = pool->guests[1].table[3]) \
    WAY(pool->guests[0].table[3] = DEDUPCORE_ABSENT) \
    WAY(pool->guests[0].table[99] = 130) \
    WAY(pool->guests[0].table[99] = 0) \
    WAY(pool->guests[1].met[1] = 1) \
    WAY(pool->guests[1].domain = 0) \
    WAY(pool->refs[0]++) \
    WAY(pool->refs[130] = 1) \
    WAY(pool->domains[pool->guests[0].table[0]] = 1) \
    WAY(frames_at(&pool->frames, 130)[SIZE - 1] = 1) \
    WAY(frames_at(&pool->frames, pool->zero_frames[0])[0] = 1) \
    WAY(pool->zero_frames[1] = pool->guests[1].table[15]) \
    WAY(pool->zero_frames[0] = pool->zero_frames[1]) \
    WAY(pool->zero_frames[0] = 130) \
    WAY(pool->guests[1].n_present++) \
    WAY(pool->n_shared--) \
    WAY(pool->n_pages--) \
    WAY(pool->frames.in_use++) \
    WAY(pool->frames.n_pending++) \
    WAY(pool->frames.used.level[0][130 / 64] |= UINT64_C(1) << 130 % 64) \
    WAY(pool->frames.used.level[0][0] &= ~UINT64_C(1)) \
    WAY(pool->frames.used.level[0][250 / 64] |= UINT64_C(1) << 250 % 64) \
    WAY(pool->frames.used.level[0][4] &= ~(UINT64_C(1) << 63)) \
    WAY(pool->frames.used.level[1][0] |= UINT64_C(1) << 3) \
    WAY(pool->frames.used.level[1][0] &= ~UINT64_C(1)) \
    WAY(pool->frames.lowest = 4) \
    WAY(pool->guests[2].marks[90] = DEDUPCORE_OUT) \
    WAY(pool->guests[2].marks[20] = 0) \
    WAY(pool->guests[2].marks[3] |= DEDUPCORE_OUT, pool->guests[2].n_out++) \
    WAY(pool->guests[0].marks[0] = 8) \
    WAY(pool->guests[2].n_out = 0) \
    WAY(pool->guests[1].hands[1] = PAGES) \
    WAY(pool->guests[1].picked = PAGES)

static dedupcore_pool *make(void)
{
    static unsigned char data[PAGES * SIZE];
    uint32_t gpns[PAGES], number;
    size_t wrong;
    dedupcore_pool *pool;
    dedupcore_key key;
    dedupcore_key_seeded(&key, 1);
    must(dedupcore_pool_create(&pool, CAPACITY, SIZE));
    for (uint32_t i = 0; i < PAGES; i++) {
        gpns[i] = i;
        data[i * SIZE] = i < 10 ? 0 : i < 20 ? 7 : (unsigned char)i; /* ten zero pages, ten equal ones, the others alone */
    }
    for (uint32_t domain = 0; domain < 2; domain++) {
        must(dedupcore_pool_add_guest(pool, PAGES, domain, &number));
        must(dedupcore_pool_write(pool, number, gpns, data, PAGES - 1, &wrong));
    }
    must(dedupcore_pool_release(pool, 1, gpns + 30, 10, &wrong)); /* frames 129 to 138 */
    must(dedupcore_pool_share(pool, &key, NULL));
    must(dedupcore_pool_write(pool, 0, gpns + 3, data + 20 * SIZE, 1, &wrong)); /* a frame of its own */
    must(dedupcore_pool_add_guest(pool, PAGES, 0, &number));
    must(dedupcore_pool_write(pool, number, gpns, data, 21, &wrong)); /* so that the first 64 frames are in use */
    must(dedupcore_pool_page_out(pool, number, gpns + 20, data, 1, &wrong));
    return pool;
}

#include "corrupt_main.h"
