/*
 * A set-associative cache of keys, of which the least recently used one of a set makes room.
 *
 * Whatever the associativity, a key is found by a hash table, and each set is a ring from its newest entry to its oldest, which
 * comes after the newest again: so the one that makes room becomes the newest by a step of the ring alone, and a fully
 * associative TLB of 72 entries costs no more than one of 4 ways.
 */
#ifndef DEDUPCORE_LRU_H
#define DEDUPCORE_LRU_H

#include <stdint.h>

#include "dedupcore.h"

#define LRU_EMPTY UINT64_MAX /* the key of an entry that holds none */

typedef struct {
    uint64_t key;
    uint32_t head, chain;  /* of its hash chain: where that begins, and the next entry, or DEDUPCORE_ABSENT */
    uint32_t newer, older; /* in the ring of its set */
} lru_entry;

typedef struct {
    uint32_t n, sets, ways;
    unsigned hash_bits;
    lru_entry *entries; /* [n] */
    uint32_t *newest;   /* [sets] entries */
    uint32_t *heads;    /* [2^hash_bits] entries, or DEDUPCORE_ABSENT */
} lru;

/* Of no entries: finds nothing and keeps nothing. Errors: DEDUPCORE_EINVAL (dedupcore_cache says what is right), ENOMEM. */
int lru_open(lru *cache, const dedupcore_cache *size);
void lru_close(lru *cache);
void lru_clear(lru *cache);

static inline void lru_make_newest(lru_entry *entries, uint32_t *newest, uint32_t i)
{
    const uint32_t last = *newest, oldest = entries[last].newer;
    if (i == last)
        return;
    *newest = i;
    if (i == oldest)
        return;
    entries[entries[i].newer].older = entries[i].older;
    entries[entries[i].older].newer = entries[i].newer;
    entries[i].older = last;
    entries[i].newer = oldest;
    entries[last].newer = i;
    entries[oldest].older = i;
}

/*
 * Whether the key is there; if not, it is now. It is the newest of its set. in: what the set is chosen by, the same for a key
 * always.
 */
static inline int lru_use(lru *c, uint64_t key, uint64_t in)
{
    if (!c->n)
        return 0;
    lru_entry *entries = c->entries;
    uint32_t *newest = c->newest + ((uint32_t)in & (c->sets - 1));
    const uint32_t head = (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - c->hash_bits));
    const uint32_t first = c->heads[head];
    for (uint32_t i = first; i != DEDUPCORE_ABSENT; i = entries[i].chain) {
        if (entries[i].key == key) {
            lru_make_newest(entries, newest, i);
            return 1;
        }
    }
    const uint32_t i = entries[*newest].newer;
    lru_entry *entry = entries + i;
    if (entry->key != LRU_EMPTY) {
        uint32_t *at = c->heads + entry->head;
        while (*at != i)
            at = &entries[*at].chain;
        *at = entry->chain;
    }
    entry->key = key;
    entry->head = head;
    entry->chain = c->heads[head]; /* which may have been the one that made room */
    c->heads[head] = i;
    *newest = i;
    return 0;
}

#endif
