/*
 * corrupt_room NUMBER: as corrupt_pool, for what KSM knows of stable frames that have room, with four pages a frame at the most.
 * Frames 0, 4, 8 and 12 hold the same and have 3, 2, 3 and 2 pages: 8 is in the chain, below it are 4 and 0, in this order, and
 * below 0 is 12. Frame 16, with two pages, is the only one of its content; 18 is full; 22 is loose.
 */
#include "corrupt.h"
#include "scan.h"

enum { SIZE = 8, PAGES = 24 };

#define S pool->scan
#define INDEX &S->index, S->tags
#define AT(FRAME) S->room.places[FRAME]
#define NODE(FRAME) S->room.nodes[AT(FRAME)]

#define WAYS(WAY) \
    WAY(AT(22) = AT(8)) \
    WAY(AT(18) = 5) \
    WAY(AT(12) = AT(8)) \
    WAY(AT(16) = 77) \
    WAY(NODE(8).before = AT(0)) \
    WAY(NODE(4).before = 0, NODE(4).next = 0) \
    WAY(NODE(8).next = AT(4)) \
    WAY(NODE(12).before = AT(8)) \
    WAY(NODE(12).child = AT(4)) \
    WAY(NODE(12).next = AT(12)) \
    WAY(NODE(8).child = 77) \
    WAY(AT(0) = 0) \
    WAY(NODE(0).next = AT(12)) \
    WAY(NODE(8).child = AT(0), NODE(0).before = AT(8), NODE(0).next = AT(12)) \
    WAY(NODE(8).child = AT(0), NODE(0).before = AT(8)) \
    WAY(NODE(0).child = 0) \
    WAY(S->room.n_below++) \
    WAY(index_replace(INDEX, 8, 4), NODE(4).child = AT(8), NODE(4).before = NODE(4).next = 0, NODE(8).child = AT(0), \
        NODE(8).before = AT(4), NODE(0).before = AT(8)) \
    WAY(index_take(INDEX, 16), (void)heap_join(&S->room, 12, 16)) \
    WAY((void)heap_take(&S->room, 12), index_put(INDEX, 12)) \
    WAY(AT(16) = ++S->room.n_nodes, NODE(16).item = 16) \
    WAY(S->room.n_nodes++) \
    WAY(S->room.free_node = AT(12))

static dedupcore_pool *make(void)
{
    const uint32_t leavers[] = {4, 8, 12, 0, 5, 13};
    const uint64_t other[] = {11, 12, 13, 14, 15, 16};
    const dedupcore_policy policy = {DEDUPCORE_POLICY_KSM, 4, 0, 0, 0};
    uint32_t number, gpns[PAGES];
    uint64_t names[PAGES];
    size_t wrong;
    int ended;
    dedupcore_pool *pool;
    dedupcore_key key;
    for (uint32_t i = 0; i < PAGES; i++) {
        gpns[i] = i;
        names[i] = i < 16 ? 1 : i < 18 ? 2 : i < 22 ? 3 : i;
    }
    dedupcore_key_seeded(&key, 1);
    must(dedupcore_pool_create(&pool, 2 * PAGES, SIZE));
    must(dedupcore_pool_set_policy(pool, &policy, &key));
    must(dedupcore_pool_add_guest(pool, PAGES, 0, &number));
    must(dedupcore_pool_write(pool, number, gpns, names, PAGES, &wrong));
    for (int i = 0; i < 2; i++)
        must(dedupcore_pool_scan(pool, UINT64_MAX, &ended));
    must(dedupcore_pool_write(pool, number, leavers, other, sizeof leavers / sizeof *leavers, &wrong));
    return pool;
}

#include "corrupt_main.h"
