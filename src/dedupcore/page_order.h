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
    uint64_t n, mask;
    uint64_t add[3], times[3]; /* of its steps, each a bijection of numbers of so many bits */
    unsigned shift;
} page_order;

/* Of the numbers below n, at least 1, in a round; the rounds of one key are unrelated. */
static inline page_order page_order_of(uint64_t n, uint64_t key, uint64_t round)
{
    unsigned bits = 1;
    while ((n - 1) >> bits)
        bits++;
    page_order o = {.n = n, .mask = (UINT64_C(1) << bits) - 1, .shift = (bits + 1) / 2};
    const uint64_t stream = random_stream(random_stream(key) + round);
    for (uint64_t step = 0; step < 3; step++) {
        o.add[step] = random_at(stream, 2 * step);
        o.times[step] = random_at(stream, 2 * step + 1) | 1;
    }
    return o;
}

/* The number at place i, below n. */
static inline uint64_t page_order_at(const page_order *o, uint64_t i)
{
    do {
        for (int step = 0; step < 3; step++) {
            i = (i + o->add[step]) * o->times[step] & o->mask;
            i ^= i >> o->shift;
        }
    } while (i >= o->n);
    return i;
}

#endif
