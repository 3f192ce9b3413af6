/* Pages whose content is kept elsewhere for a time: out, in, or forgotten. */
#include "pool_batch.h"

/* Whether all are pages of the guest, none comes twice, and each is out. */
static int are_out(pool_guest *guest, const uint32_t *gpns, size_t n, size_t *wrong)
{
    if (!batch_is_distinct(guest, gpns, n, wrong))
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (!pool_is_out(guest, gpns[i])) {
            *wrong = i;
            return 0;
        }
    }
    return 1;
}

int dedupcore_pool_page_out(dedupcore_pool *pool, uint32_t number, const uint32_t *gpns, void *out, size_t n, size_t *wrong)
{
    const size_t size = pool->frames.frame_size;
    *wrong = n;
    if (number >= pool->n_guests || !batch_is_outside(pool, out, n))
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    if (!batch_is_distinct(guest, gpns, n, wrong))
        return DEDUPCORE_EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (guest->table[gpns[i]] == DEDUPCORE_ABSENT) { /* out, or never there */
            *wrong = i;
            return DEDUPCORE_EINVAL;
        }
    }
    *wrong = n;
    for (size_t i = 0; i < n; i++) {
        fetch_ahead(pool, guest, gpns, i, n);
        copy_frame((uint8_t *)out + i * size, frames_at(&pool->frames, guest->table[gpns[i]]), size);
        give_up_frame(pool, guest, gpns[i]);
        guest->marks[gpns[i]] |= DEDUPCORE_OUT;
    }
    guest->n_out += n;
    frames_settle(&pool->frames);
    return 0;
}

int dedupcore_pool_page_in(dedupcore_pool *pool, uint32_t number, const uint32_t *gpns, const void *data, size_t n,
                           size_t *wrong)
{
    const size_t size = pool->frames.frame_size;
    *wrong = n;
    if (number >= pool->n_guests || !batch_is_outside(pool, data, n))
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    if (!are_out(guest, gpns, n, wrong))
        return DEDUPCORE_EINVAL;
    *wrong = n;
    if (n > pool_n_free(pool))
        return DEDUPCORE_EFULL;
    for (size_t i = 0; i < n; i++) {
        const uint32_t frame = guest->table[gpns[i]] = pool_new_frame(pool, guest->domain);
        guest->marks[gpns[i]] &= (uint8_t)~DEDUPCORE_OUT;
        if (pool->scan)
            scan_page_written(pool, guest->first + gpns[i]);
        copy_frame(frames_at(&pool->frames, frame), (const uint8_t *)data + i * size, size);
    }
    guest->n_out -= n;
    guest->n_present += n;
    return 0;
}

int dedupcore_pool_forget(dedupcore_pool *pool, uint32_t number, const uint32_t *gpns, size_t n, size_t *wrong)
{
    *wrong = n;
    if (number >= pool->n_guests)
        return DEDUPCORE_EINVAL;
    pool_guest *guest = pool->guests + number;
    if (!are_out(guest, gpns, n, wrong))
        return DEDUPCORE_EINVAL;
    *wrong = n;
    for (size_t i = 0; i < n; i++)
        guest->marks[gpns[i]] &= (uint8_t)~DEDUPCORE_OUT;
    guest->n_out -= n;
    return 0;
}

const uint8_t *dedupcore_pool_marks(const dedupcore_pool *pool, uint32_t number, uint64_t *n_pages)
{
    if (number >= pool->n_guests)
        return NULL;
    if (n_pages)
        *n_pages = pool->guests[number].n_pages;
    return pool->guests[number].marks;
}

uint64_t dedupcore_pool_present(const dedupcore_pool *pool, uint32_t number)
{
    return number < pool->n_guests ? pool->guests[number].n_present : 0;
}

uint64_t dedupcore_pool_out(const dedupcore_pool *pool, uint32_t number)
{
    return number < pool->n_guests ? pool->guests[number].n_out : 0;
}
