/*
 * Content names turned into bytes.
 *
 * Different names give different frames, in each texture and so in their mix, because a name can be read back from its
 * frame. Only name 0 gives zero bytes, since every other frame has a word that is not zero, as follows. The two lowest
 * bits of word 1 (the second 8 bytes) are the texture's number; of frames of
 *     0  SPARSE    exactly one word is not zero, never word 1, and it is the name, which is not 0;
 *     1  NOISE     word 0 is the name;
 *     2  ONE_BYTE  word 0 is the family, the name less its lowest byte; this stands where the family says, past word 1;
 *     3  PREFIX    the last word is the name.
 * Nothing rests on chance; noise only makes the rest of a frame look like data.
 */
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "dedupcore.h"
#include "random.h"

enum { WORD = 8, TAG_WORD = 1, TAG_BITS = 3, FAMILY_BITS = 8 };

/*
 * What the mix gives to each sixteenth of the families of 256 names. A choice, not a measurement: mostly pages that
 * compare and hash like any other, and enough of each treacherous kind that none can hide.
 */
enum { SPARSE = DEDUPCORE_SPARSE, NOISE = DEDUPCORE_NOISE, ONE_BYTE = DEDUPCORE_ONE_BYTE, PREFIX = DEDUPCORE_PREFIX };
static const uint8_t mixed[16] = {SPARSE, SPARSE, ONE_BYTE, PREFIX, NOISE, NOISE, NOISE, NOISE,
                                  NOISE,  NOISE,  NOISE,    NOISE,  NOISE, NOISE, NOISE, NOISE};

static inline void store(uint8_t *frame, size_t word, uint64_t value)
{
    memcpy(frame + WORD * word, &value, WORD);
}

typedef uint64_t pair __attribute__((vector_size(2 * WORD)));

/* Products of the low halves, which a vector unit makes in one step where GCC 12, left alone, takes eight. */
static inline pair multiply_halves(pair a, pair b)
{
#ifdef __SSE2__
    return (pair)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & UINT32_MAX) * (b & UINT32_MAX);
#endif
}

/* By how much a second counter steps: any odd number unrelated to RANDOM_WEYL (the multiplier of Maiga's mx3). */
#define OTHER_STEP UINT64_C(0xbea225f9eb34556d)

/*
 * Fills the frame with noise: word i is the product of the two halves of key + i * RANDOM_WEYL, plus a second counter,
 * as the highest and lowest bits of a product alone depend on few bits, and unevenly. So it takes little longer than
 * memset; a product of 64 bits a word, or shifts and additions in SSE2 registers, took twice as long.
 */
static void fill(uint8_t *frame, size_t n_words, uint64_t key)
{
    const uint64_t other = key << 16 | key >> 48; /* so that these bits are hidden by others */
    pair counter = {key, key + RANDOM_WEYL}, hiding = {other, other + OTHER_STEP};
    const pair step = {2 * RANDOM_WEYL, 2 * RANDOM_WEYL}, hiding_step = {2 * OTHER_STEP, 2 * OTHER_STEP};

    for (size_t word = 0; word < n_words; word += 2, counter += step, hiding += hiding_step) {
        const pair noise = multiply_halves(counter, counter >> 32) + hiding;
        memcpy(frame + WORD * word, &noise, sizeof noise);
    }
}

/* Tells the texture in word 1. */
static void tag(uint8_t *frame, unsigned texture)
{
    frame[WORD * TAG_WORD] = (uint8_t)((frame[WORD * TAG_WORD] & ~TAG_BITS) | texture);
}

static void write_frame(uint8_t *frame, size_t size, uint64_t name, unsigned texture)
{
    const size_t n_words = size / WORD;
    const uint64_t family = name >> FAMILY_BITS, place = random_mix(family + RANDOM_WEYL);

    switch (texture) {
    case SPARSE: {
        const size_t word = place & (n_words - 1);
        memset(frame, 0, size);
        store(frame, word == TAG_WORD ? 0 : word, name);
        return;
    }
    case NOISE:
        fill(frame, n_words, random_mix(name));
        store(frame, 0, name);
        break;
    case ONE_BYTE: {
        const size_t first = WORD * (TAG_WORD + 1);
        fill(frame, n_words, ~place);
        store(frame, 0, family);
        frame[first + random_below(place, size - first)] = (uint8_t)name;
        break;
    }
    default:
        fill(frame, n_words, 0x5eed);
        store(frame, n_words - 1, name);
        break;
    }
    tag(frame, texture);
}

int dedupcore_materialize(const uint64_t *names, size_t n, size_t frame_size, unsigned texture, void *out)
{
    uint8_t *frame = out;

    if (frame_size < DEDUPCORE_MIN_TEXTURED_SIZE || frame_size > DEDUPCORE_MAX_FRAME_SIZE ||
        (frame_size & (frame_size - 1)) || texture > DEDUPCORE_MIXED)
        return DEDUPCORE_EINVAL;
    for (size_t i = 0; i < n; i++, frame += frame_size) {
        const uint64_t name = names[i];
        if (name == 0)
            memset(frame, 0, frame_size);
        else
            write_frame(frame, frame_size, name,
                        texture == DEDUPCORE_MIXED ? mixed[random_mix(name >> FAMILY_BITS) % 16] : texture);
    }
    return 0;
}
