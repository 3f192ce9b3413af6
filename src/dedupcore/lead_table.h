/* The entries of a partition, and the table that finds the lead of each by its hash. Part of duplicates.c, inlined there. */
#ifndef DEDUPCORE_LEAD_TABLE_H
#define DEDUPCORE_LEAD_TABLE_H

#include <stdlib.h>
#include <string.h>

#include "dedupcore.h"

enum {
    MIN_TABLE_BITS = 10,
    MAX_FIRST_TABLE_BITS = 15, /* a table begins with 128 KiB at most and grows with the number of leads */
};

/*
 * In a round each frame that takes part has a position: its frame number in the first round, its index in `active` later.
 * An entry stands for it in its partition. 12 bytes, since there may be one for each frame.
 */
typedef struct {
    uint32_t position;
    uint32_t hash[2];
} entry;

/* The leads of one partition by hash: open addressing with linear probing. */
typedef struct {
    uint32_t *slots; /* index of an entry in its partition, plus one; 0: free */
    unsigned bits;   /* 2^bits slots */
    uint32_t used;
} lead_table;

static inline uint64_t entry_hash(const entry *e)
{
    uint64_t hash;
    memcpy(&hash, e->hash, sizeof hash);
    return hash;
}

/* The slot of the lead with this hash, or the free slot where it belongs. Uses the bits below those of the partition. */
static inline uint32_t *table_find(const lead_table *table, const entry *part, uint64_t hash, unsigned partition_bits)
{
    uint32_t mask = ((uint32_t)1 << table->bits) - 1;
    uint32_t at = (uint32_t)(hash << partition_bits >> (64 - table->bits));
    while (table->slots[at] && entry_hash(part + table->slots[at] - 1) != hash)
        at = (at + 1) & mask;
    return table->slots + at;
}

static inline int table_grow(lead_table *table, const entry *part, unsigned partition_bits)
{
    if (table->bits == 31)
        return DEDUPCORE_ENOMEM;
    lead_table larger = {calloc((size_t)2 << table->bits, sizeof *larger.slots), table->bits + 1, table->used};
    if (!larger.slots)
        return DEDUPCORE_ENOMEM;
    for (size_t i = 0; i >> table->bits == 0; i++) {
        if (table->slots[i])
            *table_find(&larger, part, entry_hash(part + table->slots[i] - 1), partition_bits) = table->slots[i];
    }
    free(table->slots);
    *table = larger;
    return 0;
}

/* An empty table for a partition of n entries; one that had to grow far is not kept, to be cleared each time. */
static inline int table_clear(lead_table *table, uint32_t n)
{
    if (table->bits == 0 || table->bits > MAX_FIRST_TABLE_BITS) {
        free(table->slots);
        table->bits = MIN_TABLE_BITS;
        while (table->bits < MAX_FIRST_TABLE_BITS && n >> (table->bits - 1))
            table->bits++;
        table->slots = malloc(sizeof *table->slots << table->bits);
        if (!table->slots)
            return DEDUPCORE_ENOMEM;
    }
    memset(table->slots, 0, sizeof *table->slots << table->bits);
    table->used = 0;
    return 0;
}

#endif
