/*
 * The body of the loops in scan_bytes.h. Included once by each scan_bytes_*.c, which defines
 *     VECTOR_BYTES  width of a vector
 *     TARGET        the attribute that lets the compiler use the instruction set, or nothing
 *     ANY(v)        whether a vector has a bit set
 *     SCANS         name of the byte_scans that results
 */
#include "scan_bytes.h"

typedef uint64_t vector __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t unaligned_vector __attribute__((vector_size(VECTOR_BYTES), aligned(1), may_alias));
enum { VECTORS = BLOCK / VECTOR_BYTES };

/*
 * The next two frames begin where no stream leads, so the hardware's prefetching has to start anew there. Fetching this much
 * of them, while this much of the present ones is left, bridges that; fetching all of them was slower than none.
 */
enum { FETCH = 2 * BLOCK, FETCH_BEFORE_END = 2048 };

#define LOAD(p, i) (*(const unaligned_vector *)((p) + (size_t)(i) * VECTOR_BYTES))

TARGET static size_t first_nonzero(const uint8_t *p, size_t size)
{
    for (size_t at = 0; at < size; at += BLOCK) {
        vector seen = LOAD(p + at, 0);
        for (int i = 1; i < VECTORS; i++)
            seen |= LOAD(p + at, i);
        if (ANY(seen))
            return at;
    }
    return size;
}

TARGET static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t size, const uint8_t *next_a,
                                      const uint8_t *next_b)
{
    const size_t fetch_from = size > FETCH_BEFORE_END ? size - FETCH_BEFORE_END : 0;
    for (size_t at = 0; at < size; at += BLOCK) {
        size_t ahead = at - fetch_from; /* wraps around before it */
        for (int line = 0; ahead < FETCH && line < BLOCK; line += 64) {
            __builtin_prefetch(next_a + ahead + line);
            __builtin_prefetch(next_b + ahead + line);
        }
        vector differ = LOAD(a + at, 0) ^ LOAD(b + at, 0);
        for (int i = 1; i < VECTORS; i++)
            differ |= LOAD(a + at, i) ^ LOAD(b + at, i);
        if (ANY(differ))
            return at;
    }
    return size;
}

const byte_scans SCANS = {first_nonzero, first_difference};
