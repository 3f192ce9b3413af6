#define _GNU_SOURCE
#include "frames.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dedupcore.h"

enum {
    HUGE_PAGE = 2 << 20,
    WORTH_A_CALL = 64 << 10, /* of frames smaller than a page, so many bytes in a row go back; fewer are zeroed and kept */
};

/* --- which are free ---------------------------------------------------------------------------------------------- */

static int open_bits(frame_store *store)
{
    size_t n = (size_t)store->capacity, total = 0;
    do {
        n = (n + 63) / 64;
        total += store->n_words[store->n_levels++] = n;
    } while (n > 1);
    int rc = region_map(&store->bits, total * sizeof(uint64_t), 1, PAGES_SMALL);
    if (rc)
        return rc;
    uint64_t *at = store->bits.at;
    n = (size_t)store->capacity;
    for (unsigned level = 0; level < store->n_levels; level++) {
        store->used[level] = at;
        at += store->n_words[level];
        if (n % 64) /* what there is none of is in use */
            store->used[level][n / 64] = ~UINT64_C(0) << n % 64;
        n = store->n_words[level];
    }
    return 0;
}

static void find_lowest(frame_store *store)
{
    size_t at = 0;
    for (unsigned level = store->n_levels; level-- > 0;)
        at = at * 64 + (size_t)__builtin_ctzll(~store->used[level][at]);
    store->lowest = at / 64;
}

uint32_t frames_take(frame_store *store)
{
    if (store->used[0][store->lowest] == ~UINT64_C(0))
        find_lowest(store);
    size_t at = store->lowest * 64 + (size_t)__builtin_ctzll(~store->used[0][store->lowest]);
    const uint32_t frame = (uint32_t)at;
    for (unsigned level = 0; level < store->n_levels; level++, at /= 64) {
        store->used[level][at / 64] |= UINT64_C(1) << at % 64;
        if (store->used[level][at / 64] != ~UINT64_C(0))
            break;
    }
    store->in_use++;
    if (store->touched <= frame)
        store->touched = (uint64_t)frame + 1;
    return frame;
}

static void clear_used(frame_store *store, uint32_t frame)
{
    size_t at = frame;
    if (at / 64 < store->lowest)
        store->lowest = at / 64;
    for (unsigned level = 0; level < store->n_levels; level++, at /= 64) {
        const int was_full = store->used[level][at / 64] == ~UINT64_C(0);
        store->used[level][at / 64] &= ~(UINT64_C(1) << at % 64);
        if (!was_full)
            break;
    }
    store->in_use--;
}

/* --- giving back ------------------------------------------------------------------------------------------------- */

/* Makes the bytes zero: whole pages by giving them to the operating system, where there are enough of them. */
static void wipe(const frame_store *store, uint8_t *first, uint8_t *end)
{
    const size_t page = store->page, least = store->frame_size >= page ? page : WORTH_A_CALL;
    if ((size_t)(end - first) < least) { /* a few small frames: most are freed so */
        memset(first, 0, (size_t)(end - first));
        return;
    }
    uint8_t *from = first + (-(uintptr_t)first & (page - 1)), *to = end - ((uintptr_t)end & (page - 1));
    if (to < from || (size_t)(to - from) < least || madvise(from, (size_t)(to - from), MADV_DONTNEED))
        from = to = end; /* locked memory, for one, cannot be given back */
    memset(first, 0, (size_t)(from - first));
    memset(to, 0, (size_t)(end - to));
}

static int ascending(const void *a, const void *b)
{
    const uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

void frames_settle(frame_store *store)
{
    const uint32_t *pending = store->pending;
    const size_t n = store->n_pending;
    int sorted = 1;
    for (size_t i = 1; i < n; i++)
        sorted &= pending[i - 1] < pending[i];
    /* A system call for each run of neighbours. Small frames rarely make one, and need none. */
    if (!sorted && store->frame_size >= store->page)
        qsort(store->pending, n, sizeof *pending, ascending);
    for (size_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && pending[end] == pending[end - 1] + 1; end++)
            ;
        wipe(store, frames_at(store, pending[first]), frames_at(store, pending[end - 1]) + store->frame_size);
    }
    for (size_t i = 0; i < n; i++)
        clear_used(store, pending[i]);
    store->n_pending = 0;
}

void frames_free(frame_store *store, uint32_t frame)
{
    if (store->n_pending == FRAMES_PENDING)
        frames_settle(store);
    store->pending[store->n_pending++] = frame;
}

/* --- the store --------------------------------------------------------------------------------------------------- */

int frames_open(frame_store *store, uint64_t capacity, size_t frame_size)
{
    memset(store, 0, sizeof *store);
    store->capacity = capacity;
    store->frame_size = frame_size;
    store->page = (size_t)sysconf(_SC_PAGESIZE);
    /* Frames from a page to a huge page must come and go one by one; smaller ones are for many, in any order. */
    const int huge = frame_size < store->page || frame_size >= HUGE_PAGE;
    int rc = region_map(&store->memory, (size_t)capacity * frame_size, frame_size < HUGE_PAGE ? frame_size : HUGE_PAGE,
                        huge ? PAGES_HUGE : PAGES_SMALL);
    store->base = store->memory.at;
    if (rc == 0)
        rc = open_bits(store);
    if (rc)
        frames_close(store);
    return rc;
}

void frames_close(frame_store *store)
{
    region_unmap(&store->memory);
    region_unmap(&store->bits);
}
