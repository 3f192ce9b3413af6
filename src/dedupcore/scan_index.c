#include "scan_index.h"

#include <string.h>

enum { FIRST_BITS = 10, MOST_BITS = 31, PER_CHAIN = 2 /* frames, at the most, on average */ };

static int open_heads(region *memory, unsigned bits)
{
    const size_t size = sizeof(uint32_t) << bits;
    const int rc = region_map(memory, size, 1, PAGES_HUGE);
    if (rc == 0)
        memset(memory->at, 0xff, size); /* DEDUPCORE_ABSENT */
    return rc;
}

int index_open(scan_index *index, uint64_t n_frames)
{
    const size_t n_words = (size_t)(n_frames + 63) / 64;
    int rc = open_heads(&index->heads_memory, FIRST_BITS);
    if (rc == 0)
        rc = region_map(&index->links_memory, (size_t)n_frames * sizeof *index->links, 1, PAGES_HUGE);
    if (rc == 0)
        rc = region_map(&index->loose_memory, n_words * sizeof *index->loose, 1, PAGES_SMALL);
    if (rc == 0)
        rc = region_map(&index->stable_memory, n_words * sizeof *index->stable, 1, PAGES_SMALL);
    index->heads = index->heads_memory.at;
    index->bits = FIRST_BITS;
    index->links = index->links_memory.at;
    index->loose = index->loose_memory.at;
    index->stable = index->stable_memory.at;
    return rc;
}

void index_close(scan_index *index)
{
    region_unmap(&index->heads_memory);
    region_unmap(&index->links_memory);
    region_unmap(&index->loose_memory);
    region_unmap(&index->stable_memory);
}

void index_reserve(scan_index *index, const uint32_t *tags, uint64_t n)
{
    enum { AHEAD = 8 };
    const uint32_t n_chains = (uint32_t)1 << index->bits;
    unsigned bits = index->bits;
    region memory;
    while (bits < MOST_BITS && n >> bits >= PER_CHAIN)
        bits++;
    if (bits == index->bits || open_heads(&memory, bits))
        return;
    uint32_t *heads = memory.at;
    for (uint32_t i = 0; i < n_chains; i++) {
        if (i + AHEAD < n_chains && index->heads[i + AHEAD] != DEDUPCORE_ABSENT)
            __builtin_prefetch(index->links + index->heads[i + AHEAD]);
        for (uint32_t frame = index->heads[i], next; frame != DEDUPCORE_ABSENT; frame = next) {
            uint32_t *head = heads + (index_tag(index, tags, frame) >> (32 - bits));
            next = index->links[frame].next;
            index->links[frame].next = *head;
            *head = frame;
        }
    }
    region_unmap(&index->heads_memory);
    index->heads_memory = memory;
    index->heads = heads;
    index->bits = bits;
}

void index_put(scan_index *index, const uint32_t *tags, uint32_t frame)
{
    if (index->n >> index->bits >= PER_CHAIN)
        index_reserve(index, tags, index->n);
    uint32_t *head = index_head(index, index_tag(index, tags, frame));
    index->links[frame].next = *head;
    *head = frame;
    index->n++;
}

/* What leads to the frame in its chain. */
static uint32_t *index_at(scan_index *index, const uint32_t *tags, uint32_t frame)
{
    uint32_t *at = index_head(index, index_tag(index, tags, frame));
    while (*at != frame)
        at = &index->links[*at].next;
    return at;
}

void index_take(scan_index *index, const uint32_t *tags, uint32_t frame)
{
    *index_at(index, tags, frame) = index->links[frame].next;
    index->n--;
}

void index_replace(scan_index *index, const uint32_t *tags, uint32_t frame, uint32_t by)
{
    *index_at(index, tags, frame) = by;
    index->links[by].next = index->links[frame].next;
}
