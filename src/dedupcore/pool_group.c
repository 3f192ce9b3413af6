/* The frames, or blocks, of each domain are grouped as a snapshot of them is: dedupcore_find_duplicates does it. */
#include "pool_group.h"

#include <stdlib.h>
#include <string.h>

static uint32_t frames_of(pool_kind kind)
{
    return kind == BLOCKS_OF_LARGE ? DEDUPCORE_LARGE_PAGE : 1;
}

static inline int is_chosen(const dedupcore_pool *pool, pool_kind kind, uint32_t number)
{
    if (kind == BLOCKS_OF_LARGE)
        return pool->blocks[number].large != 0;
    return frames_in_use(&pool->frames, number) && (kind == FRAMES_IN_USE || !pool_holds_large(pool, number));
}

static inline uint16_t domain_of(const dedupcore_pool *pool, pool_kind kind, uint32_t number)
{
    return pool->domains[(size_t)number * frames_of(kind)];
}

static void add_work(dedupcore_work *sum, const dedupcore_work *more)
{
    sum->frames_signed += more->frames_signed;
    sum->bytes_signed += more->bytes_signed;
    sum->frames_hashed += more->frames_hashed;
    sum->bytes_hashed += more->bytes_hashed;
    sum->frames_compared += more->frames_compared;
    sum->bytes_compared += more->bytes_compared;
    sum->frames_not_read += more->frames_not_read;
}

static int group_spans(pool_groups *groups, const dedupcore_pool *pool, const dedupcore_span *spans, size_t n_spans,
                       const dedupcore_key *key, uint32_t *canonical, uint32_t *zero)
{
    dedupcore_result found;
    const size_t size = pool->frames.frame_size * frames_of(groups->kind);
    const int rc = dedupcore_find_duplicates(spans, n_spans, size, key, canonical, &found);
    if (rc)
        return rc;
    add_work(&groups->work, &found.work);
    *zero = found.zero_canonical; /* UINT32_MAX, which is DEDUPCORE_ABSENT, if there is none */
    return 0;
}

/* What is chosen of one domain, as runs of neighbours. */
static int group_domain(pool_groups *groups, const dedupcore_pool *pool, size_t domain, const dedupcore_key *key)
{
    const uint32_t *chosen = groups->chosen + groups->starts[domain];
    const uint64_t n = groups->starts[domain + 1] - groups->starts[domain];
    uint64_t n_spans = 0;
    uint32_t zero;
    if (n == 0)
        return 0;
    for (uint64_t i = 0; i < n; i++)
        n_spans += i == 0 || chosen[i] != chosen[i - 1] + 1;
    dedupcore_span *spans = malloc(n_spans * sizeof *spans);
    if (!spans)
        return DEDUPCORE_ENOMEM;
    n_spans = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (i == 0 || chosen[i] != chosen[i - 1] + 1)
            spans[n_spans++] = (dedupcore_span){frames_at(&pool->frames, chosen[i] * frames_of(groups->kind)), 0};
        spans[n_spans - 1].n_frames++;
    }
    const int rc = group_spans(groups, pool, spans, n_spans, key, groups->canonical, &zero);
    free(spans);
    if (rc)
        return rc;
    for (uint64_t i = 0; i < n; i++)
        groups->lowest[chosen[i]] = chosen[groups->canonical[i]];
    if (zero != DEDUPCORE_ABSENT)
        groups->zero[domain] = chosen[zero];
    return 0;
}

/* How many each domain has; returns the domain that has all n of them, or n_domains if there is none. */
static size_t count_domains(pool_groups *groups, const dedupcore_pool *pool)
{
    size_t only = pool->n_domains;
    for (uint32_t i = 0; i < groups->n; i++) {
        if (is_chosen(pool, groups->kind, i))
            groups->starts[domain_of(pool, groups->kind, i) + 1]++;
    }
    for (size_t domain = 0; domain < pool->n_domains; domain++) {
        if (groups->starts[domain + 1] == groups->n)
            only = domain;
        groups->starts[domain + 1] += groups->starts[domain];
    }
    return only;
}

static int list_chosen(pool_groups *groups, const dedupcore_pool *pool)
{
    uint64_t most = 0, at = 0;
    for (size_t domain = 0; domain < pool->n_domains; domain++) {
        const uint64_t n = groups->starts[domain + 1] - groups->starts[domain];
        most = n > most ? n : most;
    }
    const uint64_t all = groups->starts[pool->n_domains];
    int rc = region_map(&groups->chosen_memory, (all + 1) * sizeof *groups->chosen, 1, PAGES_HUGE);
    if (rc == 0)
        rc = region_map(&groups->canonical_memory, (most + 1) * sizeof *groups->canonical, 1, PAGES_HUGE);
    if (rc)
        return rc;
    groups->chosen = groups->chosen_memory.at;
    groups->canonical = groups->canonical_memory.at;
    for (uint32_t i = 0; i < groups->n; i++) {
        if (is_chosen(pool, groups->kind, i))
            groups->chosen[groups->starts[domain_of(pool, groups->kind, i)]++] = i;
        else
            groups->lowest[i] = i;
    }
    for (size_t domain = 0; domain < pool->n_domains; domain++) { /* each start has become the next one */
        const uint64_t next = groups->starts[domain];
        groups->starts[domain] = at;
        at = next;
    }
    return 0;
}

int pool_group(pool_groups *groups, const dedupcore_pool *pool, pool_kind kind, const dedupcore_key *key)
{
    *groups = (pool_groups){.n = pool->frames.touched / frames_of(kind), .kind = kind};
    groups->zero = malloc((pool->n_domains + 1) * sizeof *groups->zero);
    groups->starts = calloc(pool->n_domains + 1, sizeof *groups->starts);
    if (!groups->zero || !groups->starts)
        return DEDUPCORE_ENOMEM;
    memset(groups->zero, 0xff, pool->n_domains * sizeof *groups->zero); /* DEDUPCORE_ABSENT */
    if (groups->n == 0)
        return 0;
    int rc = region_map(&groups->lowest_memory, groups->n * sizeof *groups->lowest, 1, PAGES_HUGE);
    if (rc)
        return rc;
    groups->lowest = groups->lowest_memory.at;
    const size_t only = count_domains(groups, pool);
    if (only < pool->n_domains) { /* the engine numbers them as the pool does */
        const dedupcore_span all = {pool->frames.base, groups->n};
        return group_spans(groups, pool, &all, 1, key, groups->lowest, groups->zero + only);
    }
    rc = list_chosen(groups, pool);
    for (size_t domain = 0; rc == 0 && domain < pool->n_domains; domain++)
        rc = group_domain(groups, pool, domain, key);
    return rc;
}

void pool_end_groups(pool_groups *groups)
{
    region_unmap(&groups->lowest_memory);
    region_unmap(&groups->chosen_memory);
    region_unmap(&groups->canonical_memory);
    free(groups->zero);
    free(groups->starts);
}
