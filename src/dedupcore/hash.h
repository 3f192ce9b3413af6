/*
 * What proposes that two frames may be equal: the zero test, a sampled signature, a full hash. None of them decides.
 *
 * Both hashes are NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: "UMAC", CRYPTO '99) on 64-bit words with a 128-bit sum: two
 * inputs that differ, however chosen, collide with probability 2^-64 over the secret key (longer frames than 4 KiB, hashed
 * in chunks that are chained by a polynomial modulo 2^61 - 1, with n / 2^61 for n chunks). The sum is brought down to 64 bits
 * by a strongly universal multiply-shift (Dietzfelbinger, STACS '96; Thorup, "High speed hashing for integers and strings",
 * 2015), so that every bit of the result is as good as any other and the classes can be partitioned and indexed by plain
 * bits. Since the choice of input cannot make collisions likely, crafted memory cannot make the grouping slow. NH needs one
 * multiplication per 16 bytes, is bound by memory in plain C, and so needs no rungs.
 */
#ifndef DEDUPCORE_HASH_H
#define DEDUPCORE_HASH_H

#include "dedupcore.h"
#include "scan_bytes.h"

/* Frames at least this long are signed by sampled lines, shorter ones by all of their bytes. */
enum { SAMPLED_FRAME_SIZE = 512, LINE = 64, SAMPLED_LINES = 2 };

static inline int is_frame_size(size_t size)
{
    return size >= DEDUPCORE_MIN_FRAME_SIZE && size <= DEDUPCORE_MAX_FRAME_SIZE && (size & (size - 1)) == 0;
}

/* What signing frames of one size needs. */
typedef struct {
    size_t frame_size;
    size_t samples[SAMPLED_LINES]; /* offsets of the sampled lines; unused for shorter frames */
    const dedupcore_key *key;
    const byte_scans *scans;
} signer;

signer signer_for(size_t frame_size, const dedupcore_key *key, const byte_scans *scans);

/* Fetches what sign_frame will read first; called some frames ahead. */
static inline void prefetch_samples(const signer *s, const uint8_t *frame)
{
    for (int i = 0; i < SAMPLED_LINES; i++)
        __builtin_prefetch(frame + s->samples[i]);
}

/*
 * The signature of a frame of at least SAMPLED_FRAME_SIZE bytes from its sampled lines; 0 if they are all zero.
 * Real memory has pages that are zero but for a few bytes, whose samples are all alike: hash_block signs those, by the first
 * block that is not zero, which the zero test has found anyway.
 */
uint64_t sign_samples(const signer *s, const uint8_t *frame);

/*
 * The signature of a shorter frame from all of its bytes; 0 for a zero frame.
 * A frame of 8 bytes is its own signature, bijectively mixed: such frames are equal if and only if their signatures are.
 */
uint64_t sign_whole(const signer *s, const uint8_t *frame);

enum { HASH_NAMES = 538 }; /* where the key has the multipliers of names: see hash.c */

/* That of a frame of 8 bytes, by its content: multiplications by odd numbers and shifts that can be undone; 0 stays 0. */
static inline uint64_t sign_name(uint64_t x, const dedupcore_key *key)
{
    const uint64_t *factors = key->words + HASH_NAMES;
    x *= factors[0] | 1;
    x ^= x >> 32;
    x *= factors[1] | 1;
    x ^= x >> 29;
    x *= factors[2] | 1;
    return x ^ x >> 32;
}

/* A hash of a block (BLOCK bytes), its offset in its frame and the lead that the frame was compared with. Never 0. */
uint64_t hash_block(const uint8_t *block, size_t offset, uint32_t lead, const dedupcore_key *key);

/*
 * A hash of every byte of a frame of 16 bytes or more, never 0. Different rounds hash under different parts of the key.
 * next: the frame that will be hashed next, fetched meanwhile; the frame itself when there is none.
 */
uint64_t hash_frame(const uint8_t *frame, size_t frame_size, const uint8_t *next, unsigned round, const dedupcore_key *key);

#endif
