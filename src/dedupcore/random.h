/*
 * Random numbers by their position: number i of a stream depends on the stream's key and on i alone, so that any thread
 * may draw any of them in any order, and every machine draws the same.
 *
 * Stream `key` is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA '14; the
 * constants are those of its reference implementation, with Stafford's mix 13) begun at the first number that
 * SplitMix64 gives for the seed `key`. Without that step the streams of key and key + WEYL would be one stream,
 * shifted. A stream has no number twice, within its 2^64.
 */
#ifndef DEDUPCORE_RANDOM_H
#define DEDUPCORE_RANDOM_H

#include <stdint.h>

#define RANDOM_WEYL UINT64_C(0x9e3779b97f4a7c15) /* 2^64 / golden ratio, odd */

__extension__ typedef unsigned __int128 random_product;

/* A bijection of 64-bit numbers in which every bit of the result depends on every bit given. */
static inline uint64_t random_mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* What random_at needs of a key: made once, outside of the loop. */
static inline uint64_t random_stream(uint64_t key)
{
    return random_mix(key + RANDOM_WEYL);
}

/* Number i of a stream. */
static inline uint64_t random_at(uint64_t stream, uint64_t i)
{
    return random_mix(stream + (i + 1) * RANDOM_WEYL);
}

/* A number below `end` from a random one: each as likely as any other, up to end / 2^64 (Lemire's multiplication). */
static inline uint64_t random_below(uint64_t number, uint64_t end)
{
    return (uint64_t)((random_product)number * end >> 64);
}

#endif
