#include "lru.h"

#include <stdlib.h>
#include <string.h>

int lru_open(lru *c, const dedupcore_cache *size)
{
    enum { LEAST_BITS = 4, SMALL = 4096 };
    /* Hash chains: of a small cache so many that entries seldom share one; those of a large one are not in the CPU's own cache. */
    const unsigned per_entry = size->entries <= SMALL ? 16 : 2;
    memset(c, 0, sizeof *c);
    if (!size->entries)
        return 0;
    if (!size->ways || size->entries % size->ways || size->entries > DEDUPCORE_MAX_CACHE)
        return DEDUPCORE_EINVAL;
    const uint32_t sets = size->entries / size->ways;
    if (sets & (sets - 1))
        return DEDUPCORE_EINVAL;
    unsigned bits = LEAST_BITS;
    while ((UINT64_C(1) << bits) < (uint64_t)per_entry * size->entries)
        bits++;
    c->entries = malloc(size->entries * sizeof *c->entries);
    c->oldest = malloc(sets * sizeof *c->oldest);
    c->heads = malloc(sizeof *c->heads << bits);
    if (!c->entries || !c->oldest || !c->heads) {
        lru_close(c);
        return DEDUPCORE_ENOMEM;
    }
    c->n = size->entries;
    c->set_mask = sets - 1;
    c->ways = size->ways;
    c->hash_shift = 64 - bits;
    lru_clear(c);
    return 0;
}

void lru_close(lru *c)
{
    free(c->entries);
    free(c->oldest);
    free(c->heads);
    memset(c, 0, sizeof *c);
}

/* Empty entries are in a chain each, so that one that makes room always has to leave a chain. */
void lru_clear(lru *c)
{
    const uint32_t size = sizeof *c->entries;
    if (!c->n)
        return;
    memset(c->heads, 0xff, sizeof *c->heads << (64 - c->hash_shift)); /* DEDUPCORE_ABSENT */
    for (uint32_t i = 0; i < c->n; i++) {
        const uint32_t first = i - i % c->ways, last = first + c->ways - 1;
        c->entries[i] = (lru_entry){.key = LRU_EMPTY,
                                    .newer = size * (i == last ? first : i + 1),
                                    .head = i,
                                    .older = size * (i == first ? last : i - 1),
                                    .chain = DEDUPCORE_ABSENT};
        c->heads[i] = size * i;
        c->oldest[i / c->ways] = size * first;
    }
}
