/* Which frames of a pool, or blocks of them, hold equal bytes. Finds out, and changes nothing. */
#ifndef DEDUPCORE_POOL_GROUP_H
#define DEDUPCORE_POOL_GROUP_H

#include "pool.h"

/* What is grouped. Blocks have numbers of their own: that of their first frame / DEDUPCORE_LARGE_PAGE. */
typedef enum {
    FRAMES_OF_SMALL, /* frames in use whose block holds no large page */
    FRAMES_IN_USE,
    BLOCKS_OF_LARGE, /* blocks that hold large pages */
} pool_kind;

typedef struct {
    uint64_t n;       /* numbers from this one on were never in use */
    uint32_t *lowest; /* [n] the lowest equal one of the domain; of those that are not of the kind, themselves */
    uint32_t *zero;   /* [n_domains] the lowest of zero bytes, or DEDUPCORE_ABSENT */
    dedupcore_work work;

    pool_kind kind;
    uint64_t *starts;    /* [n_domains + 1] where each domain's begin in `chosen` */
    uint32_t *chosen;    /* those of the kind, domain after domain, each in ascending order */
    uint32_t *canonical; /* of one domain's, numbered from 0 */
    region lowest_memory, chosen_memory, canonical_memory;
} pool_groups;

/* Errors: DEDUPCORE_ENOMEM. The groups must be ended even then. */
int pool_group(pool_groups *groups, const dedupcore_pool *pool, pool_kind kind, const dedupcore_key *key);
void pool_end_groups(pool_groups *groups);

#endif
