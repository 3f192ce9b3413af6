#include "hash.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

/*
 * Layout of dedupcore_key.words: the words that NH adds to its input (one chunk's, and two more for each further round), then
 * the multipliers of the reductions. Parts are disjoint so that no two uses of the key depend on each other.
 */
enum { CHUNK_WORDS = 512, ROUNDS = 8, NH_WORDS = CHUNK_WORDS + 2 * ROUNDS, REDUCE = NH_WORDS, CHAIN = NH_WORDS + 8 };
_Static_assert((int)HASH_NAMES == CHAIN + 2, "the parts of the key are disjoint");
enum { CHUNK = 8 * CHUNK_WORDS };

__extension__ typedef unsigned __int128 uint128;

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

int dedupcore_key_random(dedupcore_key *key)
{
    uint8_t *to = (uint8_t *)key->words;
    for (size_t have = 0; have < sizeof key->words;) {
        ssize_t got = getrandom(to + have, sizeof key->words - have, 0);
        if (got < 0 && errno != EINTR)
            return DEDUPCORE_ESYS;
        have += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

void dedupcore_key_seeded(dedupcore_key *key, uint64_t seed)
{
    /* SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA '14). */
    for (size_t i = 0; i < sizeof key->words / sizeof key->words[0]; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        key->words[i] = z ^ (z >> 31);
    }
}

static inline uint128 nh(uint128 sum, const uint8_t *p, size_t size, const uint64_t *key)
{
    for (size_t at = 0; at < size; at += 16, key += 2)
        sum += (uint128)(load64(p + at) + key[0]) * (load64(p + at + 8) + key[1]);
    return sum;
}

/* 128 bits to 64: ((a0*low + a1*high + b) mod 2^128) >> 64 with a0, a1 and b random and 128 bits wide. */
static inline uint64_t reduce(uint128 sum, const uint64_t *k)
{
    uint128 a0 = (uint128)k[0] << 64 | k[1], a1 = (uint128)k[2] << 64 | k[3], b = (uint128)k[4] << 64 | k[5];
    return (uint64_t)((a0 * (uint64_t)sum + a1 * (uint64_t)(sum >> 64) + b) >> 64);
}

static inline uint64_t not_zero(uint64_t hash)
{
    return hash ? hash : 1; /* 0 is the zero frame's */
}

signer signer_for(size_t frame_size, const dedupcore_key *key, const byte_scans *scans)
{
    signer s = {.frame_size = frame_size, .key = key, .scans = scans};
    /*
     * The first and the last line. Each further line costs a cache miss for every frame that is not zero, and on RAM of real
     * guests tells apart too few of the frames that two leave together: `work` in the JSON of a scan counts these.
     */
    for (size_t i = 0; frame_size >= SAMPLED_FRAME_SIZE && i < SAMPLED_LINES; i++)
        s.samples[i] = (frame_size / LINE - 1) * i / (SAMPLED_LINES - 1) * LINE;
    return s;
}

uint64_t sign_whole(const signer *s, const uint8_t *frame)
{
    uint64_t any = 0;
    for (size_t at = 0; at < s->frame_size; at += 8)
        any |= load64(frame + at);
    if (!any)
        return 0;
    if (s->frame_size == 8)
        return sign_name(any, s->key);
    return not_zero(reduce(nh(0, frame, s->frame_size, s->key->words), s->key->words + REDUCE));
}

uint64_t sign_samples(const signer *s, const uint8_t *frame)
{
    uint64_t any = 0;
    uint128 sum = 0;
    for (int i = 0; i < SAMPLED_LINES; i++) {
        const uint8_t *line = frame + s->samples[i];
        for (int at = 0; at < LINE; at += 8)
            any |= load64(line + at);
        sum = nh(sum, line, LINE, s->key->words + i * (LINE / 8));
    }
    return any ? not_zero(reduce(sum, s->key->words + REDUCE)) : 0;
}

uint64_t hash_block(const uint8_t *block, size_t offset, uint32_t lead, const dedupcore_key *key)
{
    const uint64_t *k = key->words + SAMPLED_LINES * (LINE / 8);
    return not_zero(reduce(nh((uint128)(offset + k[0]) * (lead + k[1]), block, BLOCK, k + 2), key->words + REDUCE));
}

uint64_t hash_frame(const uint8_t *frame, size_t frame_size, const uint8_t *next, unsigned round, const dedupcore_key *key)
{
    /* A shift of NH's key by two words is as good as a fresh key ("Toeplitz", same paper). */
    const uint64_t *k = key->words + 2 * (round % ROUNDS);
    if (frame_size <= CHUNK) {
        for (size_t at = 0; at < frame_size; at += LINE)
            __builtin_prefetch(next + at);
        return not_zero(reduce(nh(0, frame, frame_size, k), key->words + REDUCE));
    }
    /* Longer frames: the chunks' hashes are the coefficients of a polynomial at a secret point, modulo 2^61 - 1. */
    const uint64_t p = ((uint64_t)1 << 61) - 1, point = key->words[CHAIN] & p;
    uint64_t value = 0;
    for (size_t at = 0; at < frame_size; at += CHUNK) {
        uint128 step = (uint128)value * point + (reduce(nh(0, frame + at, CHUNK, k), key->words + REDUCE) & p);
        value = (uint64_t)(step & p) + (uint64_t)(step >> 61);
        value = value >= p ? value - p : value;
    }
    return not_zero(reduce(value, key->words + REDUCE));
}
