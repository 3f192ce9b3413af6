/*
 * tlb STEP ACCESSES: pages of 4 KiB accessed with the TLBs, page-walk caches and nested TLB of a Zen 4: "hits" of
 * random pages in the first level, "l2_hits" in the second, "walks" of random pages of 4 GiB without a host, and
 * "nested" on a host that has pages of 4 KiB, too. Instructions are counted in step_access alone, with caches that
 * are full. Exits 1 if the accesses were not these.
 */
#include <dedupcore.h>

#include <stdlib.h>
#include <string.h>

enum { RANGES = 2048, RANGE_PAGES = 512, IN_L1 = 64, IN_L2 = 2048, NONE = DEDUPCORE_NO_CACHE };

/* The caches: DTLB, second level, page directories, nested TLB. */
static const dedupcore_tlb_geometry geometry = {
    .caches = {{72, 72}, {3072, 24}, {64, 64}, {16, 16}},
    .l1 = {0, 0, 0},
    .l2 = {1, 1, NONE},
    .l2_as = {0, 1, 2},
    .walk = {1, 2, 2},
    .nested = 3,
    .host_walk = {1, 2, 2},
};

static dedupcore_tlb *tlb;
static uint64_t *addresses;
static size_t n;

__attribute__((noinline)) int step_access(void) /* so that callgrind can tell it */
{
    size_t wrong;
    return dedupcore_tlb_access(tlb, addresses, n, &wrong);
}

int main(int argc, char **argv)
{
    static const uint8_t small[RANGES]; /* of 4 KiB */
    dedupcore_tlb_counts before, after;
    size_t wrong;
    if (argc != 3)
        return 2;
    const char *step = argv[1];
    const int nested = strcmp(step, "nested") == 0;
    const int hits = strcmp(step, "hits") == 0, l2_hits = strcmp(step, "l2_hits") == 0;
    if (!nested && !hits && !l2_hits && strcmp(step, "walks"))
        return 2;
    n = strtoull(argv[2], NULL, 10);
    addresses = malloc(n * sizeof *addresses);
    if (!addresses || dedupcore_tlb_create(&tlb, &geometry)
        || dedupcore_tlb_map(tlb, small, nested ? small : NULL, RANGES, DEDUPCORE_PAGE_4K, &wrong))
        return 1;
    for (uint64_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < n; i++) {
            const uint64_t r = dedupcore_random(round, i);
            addresses[i] = (hits ? r % IN_L1 : l2_hits ? i % IN_L2 : r % (RANGES * RANGE_PAGES)) << 12;
        }
        dedupcore_tlb_count(tlb, &before);
        if (round == 0 ? dedupcore_tlb_access(tlb, addresses, n, &wrong) : step_access())
            return 1;
        dedupcore_tlb_count(tlb, &after);
    }
    const size_t were = hits      ? after.l1_hits[0] - before.l1_hits[0]
                        : l2_hits ? after.l2_hits[0] - before.l2_hits[0]
                                  : after.walks[0] - before.walks[0];
    return were < n - n / 64; /* a few random pages are in the caches */
}
