/*
 * Numbers in a random order, each once, without a list of them: a permutation that is computed. Which one it is depends on a
 * key and on the round alone.
 */
#ifndef DEDUPCORE_PAGE_ORDER_H
#define DEDUPCORE_PAGE_ORDER_H

#include <stdint.h>

#include "random.h"

/* A permutation of the numbers below n: one of those of `bits` bits, again and again until it is below n. */
typedef struct {
    uint64_t n, mask, stream;
    unsigned shift;
} page_order;

/* Of the numbers below n, at least 1, in a round; the rounds of one key are unrelated. */
static inline page_order page_order_of(uint64_t n, uint64_t key, uint64_t round)
{
    unsigned bits = 1;
    while ((n - 1) >> bits)
        bits++;
    return (page_order){n, (UINT64_C(1) << bits) - 1, random_stream(random_stream(key) + round), (bits + 1) / 2};
}

/* The number at place i, below n. */
static inline uint64_t page_order_at(const page_order *o, uint64_t i)
{
    do {
        for (uint64_t round = 0; round < 3; round++) { /* each a bijection of numbers of so many bits */
            i = (i + random_at(o->stream, 2 * round)) * (random_at(o->stream, 2 * round + 1) | 1) & o->mask;
            i ^= i >> o->shift;
        }
    } while (i >= o->n);
    return i;
}

#endif
