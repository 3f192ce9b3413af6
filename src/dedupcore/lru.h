/*
 * A set-associative cache of keys, of which the least recently used one of a set makes room.
 *
 * Whatever the associativity, a key is found by a hash table, and each set is a ring from its oldest entry to its newest, after
 * which comes the oldest again: so the one that makes room becomes the newest by a step of the ring alone, and a fully
 * associative TLB of 72 entries costs no more than one of 4 ways.
 */
#ifndef DEDUPCORE_LRU_H
#define DEDUPCORE_LRU_H

#include <stdint.h>

#include "dedupcore.h"

#define LRU_EMPTY UINT64_MAX /* the key of an entry that holds none */

/*
 * Links between entries are in bytes from the first one on, so that to follow them takes no arithmetic. The two of a ring are not
 * side by side, where GCC would make one store of two, which takes longer.
 */
typedef struct {
    uint64_t key;
    uint32_t newer; /* in the ring of its set */
    uint32_t head;  /* its hash chain */
    uint32_t older; /* in the ring */
    uint32_t chain; /* the next entry in it, or DEDUPCORE_ABSENT */
} lru_entry;

typedef struct {
    uint32_t n, ways;
    uint32_t set_mask;   /* sets - 1 */
    uint32_t hash_shift; /* 64 less the bits of a chain's number */
    lru_entry *entries;  /* [n]; NULL if there are none */
    uint32_t *oldest;    /* [sets] entries */
    uint32_t *heads;     /* [2^bits] entries, or DEDUPCORE_ABSENT */
} lru;

/* Of no entries: finds nothing and keeps nothing. Errors: DEDUPCORE_EINVAL (dedupcore_cache says what is right), ENOMEM. */
int lru_open(lru *cache, const dedupcore_cache *size);
void lru_close(lru *cache);
void lru_clear(lru *cache);

static inline lru_entry *lru_at(lru_entry *entries, uint32_t link)
{
    return (lru_entry *)(void *)((char *)entries + link);
}

static inline void lru_make_newest(lru_entry *entries, uint32_t *oldest, uint32_t i)
{
    const uint32_t first = *oldest;
    lru_entry *entry = lru_at(entries, i);
    const uint32_t newer = entry->newer, older = entry->older;
    if (newer == first) /* it is the newest */
        return;
    if (i == first) {
        *oldest = newer;
        return;
    }
    lru_at(entries, newer)->older = older;
    lru_at(entries, older)->newer = newer;
    const uint32_t last = lru_at(entries, first)->older;
    entry->older = last;
    entry->newer = first;
    lru_at(entries, last)->newer = i;
    lru_at(entries, first)->older = i;
}

/*
 * Whether the key is there; if not, it is now. It is the newest of its set. in: what the set is chosen by, the same for a key
 * always.
 */
static inline int lru_use(lru *c, uint64_t key, uint64_t in)
{
    lru_entry *entries = c->entries;
    if (!entries)
        return 0;
    uint32_t *oldest = c->oldest + ((uint32_t)in & c->set_mask);
    const uint32_t head = (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> c->hash_shift);
    for (uint32_t i = c->heads[head]; i != DEDUPCORE_ABSENT; i = lru_at(entries, i)->chain) {
        if (lru_at(entries, i)->key == key) {
            lru_make_newest(entries, oldest, i);
            return 1;
        }
    }
    const uint32_t i = *oldest;
    lru_entry *entry = lru_at(entries, i);
    *oldest = entry->newer;
    uint32_t *at = c->heads + entry->head;
    while (*at != i)
        at = &lru_at(entries, *at)->chain;
    *at = entry->chain;
    entry->key = key;
    entry->head = head;
    entry->chain = c->heads[head]; /* which may have been the one that made room */
    c->heads[head] = i;
    return 0;
}

#endif
