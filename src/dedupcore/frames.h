/*
 * Where a pool's frames lie, and which of them are free. Part of the pool; knows nothing of guests.
 *
 * Free frames are zero bytes, always: so nobody is given what another has left, and those of at least a page hold no memory.
 * The lowest free frame is given first, which keeps frames in use together and is the same on every machine.
 */
#ifndef DEDUPCORE_FRAMES_H
#define DEDUPCORE_FRAMES_H

#include <stddef.h>
#include <stdint.h>

#include "region.h"

enum {
    FRAMES_MAX_LEVELS = 6,   /* 64^6 is more than DEDUPCORE_MAX_FRAMES */
    FRAMES_PENDING = 32768,  /* frames given back together: 256 KiB of the smallest */
};

/*
 * used[0] has a bit a frame, 1 for one in use or beyond the last; used[k + 1] a bit a word of used[k], 1 if all of its bits
 * are. So the lowest free frame is as many steps away as there are levels, and a new store, all zero bits, takes no memory.
 */
typedef struct {
    uint8_t *base;
    size_t frame_size;
    uint64_t capacity;
    uint64_t in_use;  /* those in `pending` included */
    uint64_t touched; /* no frame from this one on was ever in use */
    size_t page;      /* bytes of a page of the machine's */

    uint64_t *used[FRAMES_MAX_LEVELS];
    size_t n_words[FRAMES_MAX_LEVELS];
    unsigned n_levels;
    size_t lowest; /* words of used[0] below this one are full */

    uint32_t pending[FRAMES_PENDING]; /* freed, still marked as in use, and not yet given back */
    size_t n_pending;

    region memory, bits;
} frame_store;

/* Errors: DEDUPCORE_ENOMEM. */
int frames_open(frame_store *store, uint64_t capacity, size_t frame_size);
void frames_close(frame_store *store);

/* The lowest free frame, from now on in use. There must be one. */
uint32_t frames_take(frame_store *store);

/* The frame is free, but not before frames_settle, which ends each batch, is it zero and given again. */
void frames_free(frame_store *store, uint32_t frame);
void frames_settle(frame_store *store);

static inline uint8_t *frames_at(const frame_store *store, uint32_t frame)
{
    return store->base + (size_t)frame * store->frame_size;
}

static inline int frames_in_use(const frame_store *store, uint32_t frame)
{
    return store->used[0][frame / 64] >> frame % 64 & 1;
}

#endif
