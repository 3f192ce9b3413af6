#include "bit_tree.h"

#include <string.h>

int bit_tree_open(bit_tree *tree, uint64_t numbers)
{
    size_t n = (size_t)numbers, total = 0;
    memset(tree, 0, sizeof *tree);
    do {
        n = (n + 63) / 64;
        total += tree->n_words[tree->n_levels++] = n;
    } while (n > 1);
    int rc = region_map(&tree->memory, total * sizeof(uint64_t), 1, PAGES_SMALL);
    if (rc)
        return rc;
    uint64_t *at = tree->memory.at;
    n = (size_t)numbers;
    for (unsigned level = 0; level < tree->n_levels; level++) {
        tree->level[level] = at;
        at += tree->n_words[level];
        if (n % 64)
            tree->level[level][n / 64] = ~UINT64_C(0) << n % 64;
        n = tree->n_words[level];
    }
    return 0;
}

void bit_tree_close(bit_tree *tree)
{
    region_unmap(&tree->memory);
}
