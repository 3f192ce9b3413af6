/* What a simulated guest does: pages of its working set, the hotter the more often. */
#include "dedupcore.h"
#include "random.h"

int dedupcore_draw_accesses(uint64_t key, uint64_t first, const uint32_t *working_set, size_t n_pages,
                            const uint32_t *quantiles, uint64_t write_chance, uint32_t *gpns, uint8_t *writes, size_t n)
{
    if (n_pages == 0 || write_chance > DEDUPCORE_ALWAYS)
        return DEDUPCORE_EINVAL;
    const uint64_t stream = random_stream(key), last = n_pages - 1;
    for (size_t i = 0; i < n; i++) {
        const uint64_t drawn = random_at(stream, first + i), part = drawn >> 32 & UINT16_MAX;
        const uint32_t *quantile = quantiles + (drawn >> 48);
        const uint64_t rank = quantile[0] + ((quantile[1] - (uint64_t)quantile[0]) * part >> 16);
        gpns[i] = working_set[rank < last ? rank : last];
        writes[i] = (drawn & UINT32_MAX) < write_chance;
    }
    return 0;
}
