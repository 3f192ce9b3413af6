/*
 * Finds the frames that hold a content. Part of the scan; knows frames by number, and of what they hold a tag of 32 bits.
 *
 * A frame is in at most one chain, that of its tag. It is there as a loose one, which one page has and may change at any
 * time, or as a stable one, which is write-protected. What a loose frame holds may be another thing by now: its tag is that
 * of when it was put in, and is kept with its page, so that the index itself takes 8 bytes a frame and 2 to 4 for the heads.
 */
#ifndef DEDUPCORE_SCAN_INDEX_H
#define DEDUPCORE_SCAN_INDEX_H

#include <stdint.h>

#include "dedupcore.h"
#include "region.h"

typedef struct {
    uint32_t who;  /* of a loose frame its page, numbered through all guests; of a stable one its tag */
    uint32_t next; /* the frame after it in its chain, or DEDUPCORE_ABSENT */
} scan_link;

typedef struct {
    uint32_t *heads; /* [2^bits] the first frame of each chain, or DEDUPCORE_ABSENT */
    unsigned bits;
    uint64_t n; /* frames in chains */
    scan_link *links;
    uint64_t *loose, *stable; /* a bit a frame; stable ones are in no chain that nobody may join, or that fuller ones are before */
    region heads_memory, links_memory, loose_memory, stable_memory;
} scan_index;

/* Errors: DEDUPCORE_ENOMEM. */
int index_open(scan_index *index, uint64_t n_frames);
void index_close(scan_index *index);

static inline int index_bit(const uint64_t *bits, uint32_t frame)
{
    return bits[frame / 64] >> frame % 64 & 1;
}

static inline void index_flip(uint64_t *bits, uint32_t frame)
{
    bits[frame / 64] ^= UINT64_C(1) << frame % 64;
}

static inline uint32_t *index_head(const scan_index *index, uint32_t tag)
{
    return index->heads + (tag >> (32 - index->bits));
}

/* tags: of the pages. */
static inline uint32_t index_tag(const scan_index *index, const uint32_t *tags, uint32_t frame)
{
    const uint32_t who = index->links[frame].who;
    return index_bit(index->stable, frame) ? who : tags[who];
}

/* Makes room for so many frames in all. Without memory for that the chains stay as they are, and get longer. */
void index_reserve(scan_index *index, const uint32_t *tags, uint64_t n);

/* Puts a frame that is in no chain into that of its tag; what it is, loose or stable, and who are set. */
void index_put(scan_index *index, const uint32_t *tags, uint32_t frame);

/* Takes it out of its chain, in which it must be. */
void index_take(scan_index *index, const uint32_t *tags, uint32_t frame);

/* Puts another one of the same tag, which is in no chain, in its place. */
void index_replace(scan_index *index, const uint32_t *tags, uint32_t frame, uint32_t by);

#endif
