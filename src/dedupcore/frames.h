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

#include "bit_tree.h"
#include "dedupcore.h"
#include "region.h"

enum { FRAMES_PENDING = 32768 }; /* frames given back together: 256 KiB of the smallest */

typedef struct {
    uint8_t *base;
    size_t frame_size;
    uint64_t capacity;
    uint64_t in_use;  /* those in `pending` included */
    uint64_t touched; /* no frame from this one on was ever in use */
    size_t page;      /* bytes of a page of the machine's */

    bit_tree used;   /* a bit a frame: it is in use, or there is none */
    bit_tree parted; /* a bit a block of DEDUPCORE_LARGE_PAGE: not all of its frames are free; 1 for the one at the end */
    size_t lowest;   /* words of used.level[0] below this one are full */

    uint32_t pending[FRAMES_PENDING]; /* freed, still marked as in use, and not yet given back */
    size_t n_pending;

    region memory;
} frame_store;

/* Errors: DEDUPCORE_ENOMEM. */
int frames_open(frame_store *store, uint64_t capacity, size_t frame_size);
void frames_close(frame_store *store);

/* The lowest free frame, from now on in use. There must be one. */
uint32_t frames_take(frame_store *store);

/* The first of the lowest block's frames that are all free, from now on in use. There must be such a block. */
uint32_t frames_take_block(frame_store *store);

/* The frame is free, but not before frames_settle, which ends each batch, is it zero and given again. */
void frames_free(frame_store *store, uint32_t frame);
void frames_settle(frame_store *store);

static inline uint8_t *frames_at(const frame_store *store, uint32_t frame)
{
    return store->base + (size_t)frame * store->frame_size;
}

static inline int frames_in_use(const frame_store *store, uint32_t frame)
{
    return store->used.level[0][frame / 64] >> frame % 64 & 1;
}

static inline int frames_have_block(const frame_store *store)
{
    return !bit_tree_is_full(&store->parted);
}

#endif
