/*
 * A pool's batches: write, read, release, merge. Each looks at all of the batch before it changes anything.
 *
 * Pages are in any order, so each step of page -> frame -> count or content may miss the cache: the steps are fetched ahead.
 */
#include "pool_batch.h"

/* --- what is wrong with a batch ---------------------------------------------------------------------------------- */

static int meet(pool_guest *guest, uint32_t gpn)
{
    uint64_t *word = guest->met + gpn / 64;
    const uint64_t bit = UINT64_C(1) << gpn % 64, before = *word;
    *word = before | bit;
    return (before & bit) != 0;
}

static int is_met(const pool_guest *guest, uint32_t gpn)
{
    return guest->met[gpn / 64] >> gpn % 64 & 1;
}

static void clear_met(pool_guest *guest, const uint32_t *gpns, size_t n)
{
    for (size_t i = 0; i < n; i++)
        guest->met[gpns[i] / 64] = 0; /* all of them are this batch's */
}

int batch_in_range(const pool_guest *guest, const uint32_t *gpns, size_t n, size_t *wrong)
{
    uint32_t highest = 0;
    for (size_t i = 0; i < n; i++) /* many at once, without a branch */
        highest = gpns[i] > highest ? gpns[i] : highest;
    if (highest < guest->n_pages)
        return 1;
    for (*wrong = 0; gpns[*wrong] < guest->n_pages; ++*wrong)
        ;
    return 0;
}

/* Sure without meeting any if they ascend. */
int batch_is_distinct(pool_guest *guest, const uint32_t *gpns, size_t n, size_t *wrong)
{
    int ascend = 1;
    if (!batch_in_range(guest, gpns, n, wrong))
        return 0;
    for (size_t i = 1; i < n; i++)
        ascend &= gpns[i - 1] < gpns[i];
    if (ascend)
        return 1;
    size_t i = 0;
    while (i < n && !meet(guest, gpns[i]))
        i++;
    clear_met(guest, gpns, i);
    *wrong = i;
    return i == n;
}

static int has_none_out(const pool_guest *guest, const uint32_t *gpns, size_t n, size_t *wrong)
{
    for (size_t i = 0; guest->n_out && i < n; i++) {
        if (pool_is_out(guest, gpns[i])) {
            *wrong = i;
            return 0;
        }
    }
    return 1;
}

int batch_is_in(pool_guest *guest, const uint32_t *gpns, size_t n, size_t *wrong)
{
    return batch_is_distinct(guest, gpns, n, wrong) && has_none_out(guest, gpns, n, wrong);
}

int batch_is_outside(const dedupcore_pool *pool, const void *bytes, size_t n)
{
    const uintptr_t base = (uintptr_t)pool->frames.base, at = (uintptr_t)bytes;
    return at >= base + (size_t)pool->frames.capacity * pool->frames.frame_size || at + n * pool->frames.frame_size <= base;
}

/* --- the steps of a write ---------------------------------------------------------------------------------------- */

/*
 * How many frames writing the batch takes, at the most: one for each page that has none, or a shared one. The last page of a
 * frame keeps it, so this counts one too many where all pages of a frame are in the batch: see exact_need.
 */
static uint64_t rough_need(const dedupcore_pool *pool, const pool_guest *guest, const uint32_t *gpns, size_t n)
{
    uint64_t need = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t frame = guest->table[gpns[i]];
        need += frame == DEDUPCORE_ABSENT || pool->refs[frame] > 1;
    }
    return need;
}

/* The same to the frame, by taking the pages off their frames and putting them back. */
static uint64_t exact_need(dedupcore_pool *pool, pool_guest *guest, const uint32_t *gpns, size_t n)
{
    uint64_t need = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t frame = guest->table[gpns[i]];
        if (frame == DEDUPCORE_ABSENT) {
            need++;
        } else if (pool->refs[frame] > 1) {
            pool->refs[frame]--;
            (void)meet(guest, gpns[i]);
            need++;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (is_met(guest, gpns[i]))
            pool->refs[guest->table[gpns[i]]]++;
    }
    clear_met(guest, gpns, n);
    return need;
}

/*
 * Makes large pages of what these pages touch. None where the batch would then not fit: it is refused only where small pages do
 * not fit, either.
 */
static void touch_large(dedupcore_pool *pool, pool_guest *guest, const uint32_t *gpns, size_t n)
{
    const uint64_t n_free = pool_n_free(pool), n_ranges = guest->n_pages / DEDUPCORE_LARGE_PAGE;
    if (n_free / DEDUPCORE_LARGE_PAGE > n_ranges + n / DEDUPCORE_LARGE_PAGE) /* more than enough */
        pool_touch_large(pool, guest, gpns, n, UINT64_MAX);
    else
        pool_touch_large(pool, guest, gpns, n, n_free - exact_need(pool, guest, gpns, n));
}

/* Before the pages are written: breaks large pages that may not be written in place, and makes those of a first touch. */
static void prepare_large(dedupcore_pool *pool, pool_guest *guest, const uint32_t *gpns, size_t n)
{
    int absent = 0;
    for (size_t i = 0; i < n; i++) {
        if (guest->table[gpns[i]] == DEDUPCORE_ABSENT)
            absent = 1;
        else if (pool_is_large(guest, gpns[i]) && !pool_owns_block(pool, guest->table[gpns[i]]))
            pool_break_large(pool, guest, gpns[i]);
    }
    if (absent && guest->wants_large && frames_have_block(&pool->frames))
        touch_large(pool, guest, gpns, n);
}

/* --- the batches ------------------------------------------------------------------------------------------------- */

int dedupcore_pool_write(dedupcore_pool *pool, uint32_t number, const uint32_t *gpns, const void *data, size_t n,
                         size_t *wrong)
{
    const size_t size = pool->frames.frame_size;
    *wrong = n;
    if (number >= pool->n_guests || !batch_is_outside(pool, data, n))
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    if (!batch_is_in(guest, gpns, n, wrong))
        return DEDUPCORE_EINVAL;
    *wrong = n;
    if (n > pool_n_free(pool) && rough_need(pool, guest, gpns, n) > pool_n_free(pool) &&
        exact_need(pool, guest, gpns, n) > pool_n_free(pool))
        return DEDUPCORE_EFULL;
    if (guest->wants_large || guest->n_large)
        prepare_large(pool, guest, gpns, n);
    for (size_t i = 0; i < n; i++) {
        fetch_ahead(pool, guest, gpns, i, n);
        const uint32_t frame = frame_to_write(pool, guest, gpns[i]);
        if (pool->scan)
            scan_page_written(pool, guest->first + gpns[i]);
        copy_frame(frames_at(&pool->frames, frame), (const uint8_t *)data + i * size, size);
    }
    return 0;
}

int dedupcore_pool_read(const dedupcore_pool *pool, uint32_t number, const uint32_t *gpns, void *out, size_t n,
                        size_t *wrong)
{
    const size_t size = pool->frames.frame_size;
    *wrong = n;
    if (number >= pool->n_guests || !batch_is_outside(pool, out, n))
        return DEDUPCORE_EINVAL;
    const pool_guest *guest = pool->guests + number;
    if (!batch_in_range(guest, gpns, n, wrong) || !has_none_out(guest, gpns, n, wrong))
        return DEDUPCORE_EINVAL;
    for (size_t i = 0; i < n; i++) {
        fetch_ahead(pool, guest, gpns, i, n);
        const uint32_t frame = guest->table[gpns[i]];
        uint8_t *to = (uint8_t *)out + i * size;
        if (frame == DEDUPCORE_ABSENT)
            memset(to, 0, size);
        else
            copy_frame(to, frames_at(&pool->frames, frame), size);
    }
    return 0;
}

int dedupcore_pool_release(dedupcore_pool *pool, uint32_t number, const uint32_t *gpns, size_t n, size_t *wrong)
{
    *wrong = n;
    if (number >= pool->n_guests)
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    if (!batch_is_in(guest, gpns, n, wrong))
        return DEDUPCORE_EINVAL;
    for (size_t i = 0; i < n; i++) {
        fetch_ahead(pool, guest, gpns, i, n);
        if (guest->table[gpns[i]] == DEDUPCORE_ABSENT)
            continue;
        give_up_frame(pool, guest, gpns[i]);
        pool->released++;
    }
    frames_settle(&pool->frames);
    return 0;
}

int dedupcore_pool_merge(dedupcore_pool *pool, uint32_t number, const uint32_t *gpns, const uint32_t *into, size_t n,
                         uint8_t *merged, size_t *wrong)
{
    *wrong = n;
    if (number >= pool->n_guests || pool->scan)
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    if (!batch_is_in(guest, gpns, n, wrong))
        return DEDUPCORE_EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (guest->table[gpns[i]] == DEDUPCORE_ABSENT || !pool_is_mapped(pool, into[i]) ||
            pool->domains[into[i]] != guest->domain) {
            *wrong = i;
            return DEDUPCORE_EINVAL;
        }
    }
    *wrong = n;
    for (size_t i = 0; i < n; i++) {
        const uint32_t from = guest->table[gpns[i]], to = into[i];
        merged[i] = from == to;
        if (from == to || !pool_is_mapped(pool, to) || pool_is_large(guest, gpns[i]) || pool_holds_large(pool, to) ||
            memcmp(frames_at(&pool->frames, from), frames_at(&pool->frames, to), pool->frames.frame_size) != 0)
            continue;
        guest->table[gpns[i]] = to;
        pool_add_ref(pool, to);
        pool_drop_ref(pool, from);
        pool->merged++;
        merged[i] = 1;
    }
    frames_settle(&pool->frames);
    return 0;
}
