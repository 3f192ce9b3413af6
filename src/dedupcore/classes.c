/* What classes say about the guests that hold them. */
#include "dedupcore.h"

void dedupcore_count(const uint32_t *canonical, const dedupcore_guest *guests, size_t n_guests, uint32_t *copies,
                     uint32_t *owners, uint32_t *scratch, dedupcore_guest_counts *counts)
{
    /* scratch[c]: the last guest seen with class c, plus one. Guests come one after the other, so that is enough. */
    for (size_t g = 0; g < n_guests; g++) {
        dedupcore_guest_counts mine = {0};
        for (uint64_t i = guests[g].first; i < guests[g].end; i++) {
            const uint32_t c = canonical[i];
            copies[c]++;
            if (c == guests[g].zero_canonical)
                mine.zero++;
            if (scratch[c] != g + 1) {
                scratch[c] = (uint32_t)(g + 1);
                owners[c]++;
                mine.distinct += c != guests[g].zero_canonical;
            }
        }
        counts[g] = mine;
    }
    for (size_t g = 0; g < n_guests; g++) {
        for (uint64_t i = guests[g].first; i < guests[g].end; i++)
            counts[g].shared_across += owners[canonical[i]] > 1 && canonical[i] != guests[g].zero_canonical;
    }
}
