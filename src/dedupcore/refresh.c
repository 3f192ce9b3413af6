/* A second look at memory: which frames are no longer what they were. */
#include <string.h>

#include "dedupcore.h"

uint64_t dedupcore_refresh(void *memory, const uint64_t *offsets, const void *now, size_t n, size_t frame_size,
                           uint8_t *changed)
{
    uint64_t n_changed = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned char *frame = (unsigned char *)memory + offsets[i];
        const unsigned char *latest = (const unsigned char *)now + i * frame_size;

        if (memcmp(frame, latest, frame_size) == 0)
            continue;
        memcpy(frame, latest, frame_size);
        changed[i] = 1;
        n_changed++;
    }
    return n_changed;
}
