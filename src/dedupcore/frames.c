#define _GNU_SOURCE
#include "frames.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    HUGE_PAGE = 2 << 20,
    WORTH_A_CALL = 64 << 10, /* of frames smaller than a page, so many bytes in a row go back; fewer are zeroed and kept */
};

/* --- which are free ---------------------------------------------------------------------------------------------- */

enum { BLOCK_WORDS = DEDUPCORE_LARGE_PAGE / 64 }; /* of used.level[0] */

static int open_bits(frame_store *store)
{
    const uint64_t n_blocks = store->capacity / DEDUPCORE_LARGE_PAGE;
    int rc = bit_tree_open(&store->used, store->capacity);
    if (rc == 0)
        rc = bit_tree_open(&store->parted, n_blocks + 1);
    if (rc == 0)
        bit_tree_set(&store->parted, 0, n_blocks); /* what there is of the last one is never given as a block */
    return rc;
}

uint32_t frames_take(frame_store *store)
{
    if (store->used.level[0][store->lowest] == ~UINT64_C(0))
        store->lowest = bit_tree_lowest(&store->used) / 64;
    const uint64_t word = store->used.level[0][store->lowest], taken = word | (word + 1); /* its lowest 0 */
    const uint32_t frame = (uint32_t)(store->lowest * 64 + (size_t)__builtin_ctzll(~word));
    store->used.level[0][store->lowest] = taken;
    if (taken == ~UINT64_C(0))
        bit_tree_set(&store->used, 1, store->lowest);
    if (word == 0)
        bit_tree_set(&store->parted, 0, frame / DEDUPCORE_LARGE_PAGE);
    store->in_use++;
    if (store->touched <= frame)
        store->touched = (uint64_t)frame + 1;
    return frame;
}

uint32_t frames_take_block(frame_store *store)
{
    const size_t block = bit_tree_lowest(&store->parted), first = block * DEDUPCORE_LARGE_PAGE;
    bit_tree_set(&store->parted, 0, block);
    for (size_t word = block * BLOCK_WORDS; word < (block + 1) * BLOCK_WORDS; word++) {
        store->used.level[0][word] = ~UINT64_C(0);
        bit_tree_set(&store->used, 1, word);
    }
    store->in_use += DEDUPCORE_LARGE_PAGE;
    if (store->touched < first + DEDUPCORE_LARGE_PAGE)
        store->touched = first + DEDUPCORE_LARGE_PAGE;
    return (uint32_t)first;
}

static int is_block_free(const frame_store *store, size_t block)
{
    uint64_t used = 0;
    if (block >= store->capacity / DEDUPCORE_LARGE_PAGE)
        return 0;
    for (size_t i = 0; i < BLOCK_WORDS; i++)
        used |= store->used.level[0][block * BLOCK_WORDS + i];
    return used == 0;
}

static void clear_used(frame_store *store, uint32_t frame)
{
    const size_t word = frame / 64, block = frame / DEDUPCORE_LARGE_PAGE;
    const uint64_t before = store->used.level[0][word], after = before & ~(UINT64_C(1) << frame % 64);
    store->used.level[0][word] = after;
    if (word < store->lowest)
        store->lowest = word;
    if (before == ~UINT64_C(0))
        bit_tree_clear(&store->used, 1, word);
    if (after == 0 && is_block_free(store, block))
        bit_tree_clear(&store->parted, 0, block);
    store->in_use--;
}

/* --- giving back ------------------------------------------------------------------------------------------------- */

/* Whole pages on their way to the operating system, which makes them zero. */
typedef struct {
    struct iovec ranges[512];
    int n;
} returned;

/*
 * Gives them back: many by one call, where the kernel takes it for the process itself. What that call leaves, it leaves from
 * some range on; that goes one by one.
 */
static void give_back(returned *pages)
{
    int done = 0;
#ifdef SYS_process_madvise
    enum { SELF = -10000 }; /* PIDFD_SELF */
    ssize_t got = pages->n > 1 ? (ssize_t)syscall(SYS_process_madvise, SELF, pages->ranges, pages->n, MADV_DONTNEED, 0) : 0;
    for (; got > 0 && done < pages->n && (size_t)got >= pages->ranges[done].iov_len; done++)
        got -= (ssize_t)pages->ranges[done].iov_len;
#endif
    for (; done < pages->n; done++) {
        const struct iovec *range = pages->ranges + done;
        if (madvise(range->iov_base, range->iov_len, MADV_DONTNEED))
            memset(range->iov_base, 0, range->iov_len); /* locked memory, for one, cannot be given back */
    }
    pages->n = 0;
}

/* Makes the bytes zero, now or by giving them back: whole pages, where there are enough of them. */
static void wipe(const frame_store *store, uint8_t *first, uint8_t *end, returned *pages)
{
    const size_t page = store->page, least = store->frame_size >= page ? page : WORTH_A_CALL;
    if ((size_t)(end - first) < least) { /* a few small frames: most are freed so */
        memset(first, 0, (size_t)(end - first));
        return;
    }
    uint8_t *from = first + (-(uintptr_t)first & (page - 1)), *to = end - ((uintptr_t)end & (page - 1));
    if (to < from || (size_t)(to - from) < least)
        from = to = end;
    memset(first, 0, (size_t)(from - first));
    memset(to, 0, (size_t)(end - to));
    if (to > from)
        pages->ranges[pages->n++] = (struct iovec){from, (size_t)(to - from)};
    if (pages->n == sizeof pages->ranges / sizeof *pages->ranges)
        give_back(pages);
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
    returned pages;
    pages.n = 0;
    /* A range for each run of neighbours. Small frames rarely make one, and need none. */
    if (!sorted && store->frame_size >= store->page)
        qsort(store->pending, n, sizeof *pending, ascending);
    for (size_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && pending[end] == pending[end - 1] + 1; end++)
            ;
        wipe(store, frames_at(store, pending[first]), frames_at(store, pending[end - 1]) + store->frame_size, &pages);
    }
    give_back(&pages);
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
    bit_tree_close(&store->used);
    bit_tree_close(&store->parted);
}
