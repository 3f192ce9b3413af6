/* What a guest's pages hold: a template's content names, in the guest's own variation, at the places given. */
#include "dedupcore.h"
#include "random.h"

int dedupcore_name_pages(const dedupcore_template *pages, const dedupcore_variation *variation, const uint32_t *places,
                         uint64_t *names, uint8_t *regions, size_t n_pages, size_t *wrong)
{
    const uint64_t stream = random_stream(variation->key);

    for (size_t i = 0; i < pages->n_pages; i++) {
        const uint32_t place = places[i];
        const uint16_t variable = pages->variables[i];
        const uint64_t number = pages->first + i;

        if (place >= n_pages || variable >= variation->n_variables) {
            *wrong = i;
            return DEDUPCORE_EINVAL;
        }
        const uint64_t common = pages->names[i] | variation->values[variable];
        const int diverged = random_at(stream, number) >> 32 < variation->chances[variable];
        names[place] = diverged ? variation->own | number : common;
        regions[place] = pages->regions[i];
    }
    return 0;
}
