/* Which pages may go when memory is short: those not accessed for long, or any at random. */
#include "page_order.h"
#include "pool_batch.h"

enum {
    LOOK_AHEAD = 64, /* pages in random order that are fetched together */
    RUN = 16,        /* pages in order that are looked at together */
};

/* Takes the page, once a call. */
static void take(pool_guest *guest, uint32_t gpn, uint32_t *gpns, size_t *found)
{
    uint64_t *word = guest->met + gpn / 64;
    const uint64_t bit = UINT64_C(1) << gpn % 64;
    if (!(*word & bit))
        gpns[(*found)++] = gpn;
    *word |= bit;
}

static void end_call(pool_guest *guest, const uint32_t *gpns, size_t found)
{
    for (size_t i = 0; i < found; i++)
        guest->met[gpns[i] / 64] = 0;
}

/* --- second chance ----------------------------------------------------------------------------------------------- */

int dedupcore_pool_take_accessed(dedupcore_pool *pool, uint32_t number, unsigned by, const uint32_t *gpns, size_t n,
                                 uint8_t *accessed, size_t *wrong)
{
    *wrong = n;
    if (number >= pool->n_guests || (by != DEDUPCORE_ACCESSED_BY_HOST && by != DEDUPCORE_ACCESSED_BY_GUEST))
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    if (!batch_in_range(guest, gpns, n, wrong))
        return DEDUPCORE_EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (i + TABLE_AHEAD < n)
            __builtin_prefetch(guest->marks + gpns[i + TABLE_AHEAD], 1);
        accessed[i] = (guest->marks[gpns[i]] & by) != 0;
        guest->marks[gpns[i]] &= (uint8_t)~by;
    }
    return 0;
}

/* Whether none of the RUN pages from `first` on can be taken. */
static int is_nothing(const pool_guest *guest, const uint8_t *eligible, uint64_t first)
{
    uint32_t present = 0;
    uint8_t wanted = !eligible;
    for (uint64_t i = first; i < first + RUN; i++)
        present |= guest->table[i] ^ DEDUPCORE_ABSENT;
    for (uint64_t i = first; eligible && i < first + RUN; i++)
        wanted |= eligible[i];
    return !present || !wanted;
}

int dedupcore_pool_oldest(dedupcore_pool *pool, uint32_t number, unsigned by, const uint8_t *eligible, uint32_t *gpns,
                          size_t n, size_t *found)
{
    *found = 0;
    if (number >= pool->n_guests || (by != DEDUPCORE_ACCESSED_BY_HOST && by != DEDUPCORE_ACCESSED_BY_GUEST))
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    const int alone = by == DEDUPCORE_ACCESSED_BY_HOST;
    uint64_t *hand = guest->hands + (by == DEDUPCORE_ACCESSED_BY_GUEST), left = 2 * guest->n_pages;
    while (left && *found < n) {
        const uint64_t at = *hand;
        uint64_t passed = 1;
        if (at % RUN == 0 && guest->n_pages - at >= RUN && left >= RUN && is_nothing(guest, eligible, at)) {
            passed = RUN;
        } else if (guest->table[at] != DEDUPCORE_ABSENT && (!eligible || eligible[at])) {
            if (guest->marks[at] & by)
                guest->marks[at] &= (uint8_t)~by;
            else if (!alone || pool->refs[guest->table[at]] == 1)
                take(guest, (uint32_t)at, gpns, found);
        }
        left -= passed;
        *hand = at + passed == guest->n_pages ? 0 : at + passed;
    }
    end_call(guest, gpns, *found);
    return 0;
}

/* --- at random --------------------------------------------------------------------------------------------------- */

void dedupcore_pool_set_seed(dedupcore_pool *pool, uint64_t seed)
{
    pool->seed = seed;
}

static int can_be_picked(const dedupcore_pool *pool, const pool_guest *guest, const uint8_t *eligible, uint64_t gpn)
{
    const uint32_t frame = guest->table[gpn];
    return frame != DEDUPCORE_ABSENT && pool->refs[frame] == 1 && (!eligible || eligible[gpn]);
}

/* Considers the next pages of a round until n are found, or some were considered. */
static void pick_some(const dedupcore_pool *pool, pool_guest *guest, const page_order *o, const uint8_t *eligible,
                      uint32_t *gpns, size_t n, size_t *found)
{
    uint64_t ahead[LOOK_AHEAD];
    const uint64_t left = guest->n_pages - guest->picked, most = left < LOOK_AHEAD ? left : LOOK_AHEAD;
    for (uint64_t i = 0; i < most; i++) {
        ahead[i] = page_order_at(o, guest->picked + i);
        __builtin_prefetch(guest->table + ahead[i]);
        if (eligible)
            __builtin_prefetch(eligible + ahead[i]);
    }
    for (uint64_t i = 0; i < most; i++) {
        const uint32_t frame = guest->table[ahead[i]];
        if (frame != DEDUPCORE_ABSENT)
            __builtin_prefetch(pool->refs + frame);
    }
    for (uint64_t i = 0; i < most && *found < n; i++) {
        guest->picked++;
        if (can_be_picked(pool, guest, eligible, ahead[i]))
            take(guest, (uint32_t)ahead[i], gpns, found);
    }
}

int dedupcore_pool_pick(dedupcore_pool *pool, uint32_t number, const uint8_t *eligible, uint32_t *gpns, size_t n,
                        size_t *found)
{
    *found = 0;
    if (number >= pool->n_guests)
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    const uint64_t key = random_mix(random_mix(pool->seed) + 1) + number; /* other than the order of the policy esx */
    int whole = 0;
    while (*found < n && !whole) {
        const page_order o = page_order_of(guest->n_pages, key, guest->rounds);
        whole = guest->picked == 0;
        while (*found < n && guest->picked < guest->n_pages)
            pick_some(pool, guest, &o, eligible, gpns, n, found);
        if (guest->picked == guest->n_pages) {
            guest->picked = 0;
            guest->rounds++;
        }
    }
    end_call(guest, gpns, *found);
    return 0;
}
