/*
 * Sharing within one process: pages of private memory replaced by private mappings of a file that holds each content once.
 * Linux alone. Not part of dedupcore.h: it serves pagedup.share_in_place, which decides what may be replaced.
 *
 * Ranges are given as arrays, one item a range: its address, where its content is in the file, its size. All are in bytes,
 * and multiples of the page size. Whoever else writes to these pages, maps, or unmaps them must stand still meanwhile.
 */
#ifndef IN_PLACE_H
#define IN_PLACE_H

#include <stddef.h>
#include <stdint.h>

/* What became of a range. */
enum {
    INPLACE_REPLACED = 0,
    INPLACE_DIFFERS = 1, /* its bytes were no longer what they had been; left as it is */
    INPLACE_REFUSED = 2, /* by the kernel, as beyond vm.max_map_count; its bytes are what they were */
    INPLACE_LOST = 3     /* the kernel unmapped it, then refused twice: an older one (before 6.12), out of memory */
};

/* Writes the ranges to the file. Errors: DEDUPCORE_ESYS. */
int inplace_store(int fd, const uint64_t *addresses, const uint64_t *offsets, const uint64_t *sizes, size_t n);

/*
 * Maps the file's bytes over each range, privately, where these are equal. stored: all of the file, readable.
 * protections: PROT_* of each range. Ends at the first INPLACE_LOST.
 */
void inplace_map(int fd, const uint8_t *stored, const uint64_t *addresses, const uint64_t *offsets,
                            const uint64_t *sizes, const uint8_t *protections, size_t n, uint8_t *outcomes);

/*
 * Looks for pages of zeros in ranges of private anonymous memory, and gives each back to the kernel at once, which
 * gives zeros where they are read. freed, one item for each page of the ranges, in their order: 1 for these, or 0.
 */
void inplace_free_zeros(const uint64_t *addresses, const uint64_t *sizes, size_t n, size_t page_size,
                        uint8_t *freed);

/*
 * Gives ranges of zeros back to the kernel, which gives zeros where they are read. mapped[i]: the range is a mapping of a
 * file by inplace_map, and is replaced by anonymous memory.
 */
void inplace_zero(const uint64_t *addresses, const uint64_t *sizes, const uint8_t *mapped,
                             const uint8_t *protections, size_t n, uint8_t *outcomes);

/*
 * Splits the huge pages that these pages belong to, if they do. Replacing a part of a huge page frees nothing before
 * that, or before the kernel is short of memory. A page that is pinned stays whole.
 */
void inplace_split(const uint64_t *pages, size_t n, size_t page_size);

/* Asks that no huge pages are made of these ranges from now on, as khugepaged fills them with zeros that take memory. */
void inplace_keep_small(const uint64_t *addresses, const uint64_t *sizes, size_t n);

/*
 * How many forks there were since the first call, in this process and those that it is a copy of. Errors:
 * DEDUPCORE_ENOMEM. Counts fork() of the C library, from any language; not vfork, posix_spawn, or a bare clone.
 */
int inplace_forks(uint64_t *forks);

/*
 * Gives the file's ranges back to the kernel, and returns 1; returns 0 and does nothing if the number of forks is no
 * longer `forks`. No fork comes between the two. Errors: DEDUPCORE_ESYS.
 */
int inplace_punch(int fd, const uint64_t *offsets, const uint64_t *sizes, size_t n, uint64_t forks);

#endif
