/*
 * The two loops that touch most bytes: where is the first byte that is not zero, and how far are two frames equal.
 * One source (scan_bytes_kernels.h), one file an instruction set.
 */
#ifndef DEDUPCORE_SCAN_BYTES_H
#define DEDUPCORE_SCAN_BYTES_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

/* Sizes handed to the loops are multiples of this; it is also the grain of what they return. */
enum { BLOCK = 256 };

typedef struct {
    /* Offset of the first block of p that has a byte other than zero, or size. */
    size_t (*first_nonzero)(const uint8_t *p, size_t size);
    /* Offset of the first block in which a and b differ, or size. Fetches the beginnings of next_a and next_b meanwhile. */
    size_t (*first_difference)(const uint8_t *a, const uint8_t *b, size_t size, const uint8_t *next_a, const uint8_t *next_b);
} byte_scans;

/* The widest loops that the rungs in `cpu` (DEDUPCORE_CPU_*) allow. */
const byte_scans *byte_scans_for(unsigned cpu);

extern const byte_scans byte_scans_baseline;
#if DEDUPCORE_X86
extern const byte_scans byte_scans_avx2;
#endif

#endif
