/* Frames that stream by and are not kept: what each holds in 8 bytes, and whether it is what is kept already. */
#include <string.h>

#include "dedupcore.h"
#include "hash.h"
#include "scan_bytes.h"

int dedupcore_hash_frames(const void *frames, size_t n, size_t frame_size, const dedupcore_key *key, uint64_t *hashes)
{
    if (!is_frame_size(frame_size))
        return DEDUPCORE_EINVAL;
    const signer signer = signer_for(frame_size, key, byte_scans_for(dedupcore_cpu_used()));
    for (size_t i = 0; i < n; i++) {
        const uint8_t *frame = (const uint8_t *)frames + i * frame_size;
        if (frame_size < SAMPLED_FRAME_SIZE)
            hashes[i] = sign_whole(&signer, frame);
        else if (signer.scans->first_nonzero(frame, frame_size) == frame_size)
            hashes[i] = 0;
        else
            hashes[i] = hash_frame(frame, frame_size, i + 1 < n ? frame + frame_size : frame, 0, key);
    }
    return 0;
}

int dedupcore_match_frames(const void *frames, size_t n, size_t frame_size, const void *originals, const uint32_t *places,
                           uint8_t *same)
{
    if (!is_frame_size(frame_size))
        return DEDUPCORE_EINVAL;
    const byte_scans *scans = byte_scans_for(dedupcore_cpu_used());
    for (size_t i = 0; i < n; i++) {
        const uint8_t *frame = (const uint8_t *)frames + i * frame_size;
        const uint8_t *original = (const uint8_t *)originals + places[i] * frame_size;
        if (frame_size < SAMPLED_FRAME_SIZE) {
            same[i] = memcmp(frame, original, frame_size) == 0;
        } else {
            const uint8_t *next = i + 1 < n ? (const uint8_t *)originals + places[i + 1] * frame_size : original;
            same[i] = scans->first_difference(frame, original, frame_size, frame, next) == frame_size;
        }
    }
    return 0;
}
