/* A bit a number, and on top of them what it takes to find the lowest one that is 0 in as many steps as there are levels. */
#ifndef DEDUPCORE_BIT_TREE_H
#define DEDUPCORE_BIT_TREE_H

#include <stddef.h>
#include <stdint.h>

#include "region.h"

enum { BIT_TREE_MAX_LEVELS = 6 }; /* 64^6 is more than DEDUPCORE_MAX_FRAMES */

/*
 * level[0] has a bit a number, 1 for those beyond the last; level[k + 1] a bit a word of level[k], 1 if all of its bits are.
 * So a new tree, all zero bits, takes no memory.
 */
typedef struct {
    uint64_t *level[BIT_TREE_MAX_LEVELS];
    size_t n_words[BIT_TREE_MAX_LEVELS];
    unsigned n_levels;
    region memory;
} bit_tree;

/* For the numbers below n, which is at least 1. Errors: DEDUPCORE_ENOMEM. */
int bit_tree_open(bit_tree *tree, uint64_t n);
void bit_tree_close(bit_tree *tree); /* one that is not open is fine */

/* Sets a bit of that level, and those above it that this makes right. */
static inline void bit_tree_set(bit_tree *tree, unsigned level, size_t at)
{
    for (; level < tree->n_levels; level++, at /= 64) {
        tree->level[level][at / 64] |= UINT64_C(1) << at % 64;
        if (tree->level[level][at / 64] != ~UINT64_C(0))
            break;
    }
}

static inline void bit_tree_clear(bit_tree *tree, unsigned level, size_t at)
{
    for (; level < tree->n_levels; level++, at /= 64) {
        const int was_full = tree->level[level][at / 64] == ~UINT64_C(0);
        tree->level[level][at / 64] &= ~(UINT64_C(1) << at % 64);
        if (!was_full)
            break;
    }
}

static inline int bit_tree_is_full(const bit_tree *tree)
{
    return tree->level[tree->n_levels - 1][0] == ~UINT64_C(0);
}

/* The lowest number whose bit is 0; there must be one. */
static inline size_t bit_tree_lowest(const bit_tree *tree)
{
    size_t at = 0;
    for (unsigned level = tree->n_levels; level-- > 0;)
        at = at * 64 + (size_t)__builtin_ctzll(~tree->level[level][at]);
    return at;
}

#endif
