/*
 * guests STEP PAGES: places the pages of a fragmented guest, names them, makes their bytes, or draws as many accesses to them.
 * Instructions are counted in the call of the step alone; prints nothing.
 */
#include <dedupcore.h>

#include <stdlib.h>
#include <string.h>

enum { SIZE = 4096, REGIONS = 64 };

/* Which texture has this name; DEDUPCORE_MIXED + 1 for a step that is none. */
static unsigned texture_of(const char *step)
{
    static const char *const names[] = {"sparse", "noise", "one byte", "prefix", "mixed"};
    unsigned texture = 0;
    while (texture <= DEDUPCORE_MIXED && strcmp(step, names[texture]))
        texture++;
    return texture;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const char *step = argv[1];
    const size_t n = strtoull(argv[2], NULL, 10);
    uint32_t *places = malloc(n * sizeof *places);
    uint64_t *names = malloc(n * sizeof *names);
    if (!places || !names)
        return 1;
    for (size_t i = 0; i < n; i++) {
        names[i] = i + 1;
        places[i] = (uint32_t)(i * 5 % n);
    }

    if (strcmp(step, "place") == 0) {
        uint64_t counts[REGIONS];
        uint8_t orders[REGIONS];
        int64_t fixed[REGIONS];
        for (int r = 0; r < REGIONS; r++) {
            counts[r] = n / REGIONS;
            orders[r] = r % 2 ? 9 : 0; /* every other region in large folios where there are any */
            fixed[r] = -1;
        }
        return -dedupcore_place(1, n, DEDUPCORE_ALWAYS / 100 * 93, counts, orders, fixed, REGIONS, places);
    }
    if (strcmp(step, "name") == 0) {
        const uint64_t values[] = {0, 1};
        const uint32_t chances[] = {0, 1u << 30};
        uint16_t *variables = malloc(n * sizeof *variables);
        uint8_t *regions = calloc(n, sizeof *regions);
        uint64_t *out = malloc(n * sizeof *out);
        size_t wrong;
        if (!variables || !regions || !out)
            return 1;
        for (size_t i = 0; i < n; i++)
            variables[i] = i / 64 % 2;
        const dedupcore_template pages = {n, names, variables, regions, 0};
        const dedupcore_variation variation = {2, values, chances, (uint64_t)1 << 63, 1};
        return -dedupcore_name_pages(&pages, &variation, places, out, regions, n, &wrong);
    }
    if (strcmp(step, "draw") == 0) {
        static uint32_t quantiles[DEDUPCORE_QUANTILES + 1];
        uint32_t *gpns = malloc(n * sizeof *gpns);
        uint8_t *writes = malloc(n);
        if (!gpns || !writes)
            return 1;
        for (size_t k = 0; k <= DEDUPCORE_QUANTILES; k++)
            quantiles[k] = (uint32_t)(n * k / DEDUPCORE_QUANTILES);
        return -dedupcore_draw_accesses(1, 0, places, n, quantiles, DEDUPCORE_ALWAYS / 10 * 3, gpns, writes, n);
    }
    void *bytes = malloc(n * SIZE);
    return bytes ? -dedupcore_materialize(names, n, SIZE, texture_of(step), bytes) : 1;
}
