/* Whether a pool is as it says. Shares no step with the calls that it checks: it counts anew from the page tables. */
#include <stdlib.h>
#include <string.h>

#include "pool.h"

static const uint32_t NOWHERE = UINT32_MAX;

static int broken(dedupcore_flaw *flaw, const char *what, uint32_t guest, uint64_t page, uint64_t frame)
{
    *flaw = (dedupcore_flaw){what, guest, page, frame};
    return DEDUPCORE_EBROKEN;
}

static int is_zero(const dedupcore_pool *pool, uint32_t frame)
{
    const uint8_t *at = frames_at(&pool->frames, frame), *end = at + pool->frames.frame_size;
    for (uint64_t word; at < end; at += sizeof word) {
        memcpy(&word, at, sizeof word);
        if (word)
            return 0;
    }
    return 1;
}

/* --- the pages: found[frame] becomes how many are mapped there --------------------------------------------------- */

/* What is wrong with the marks of a page, or NULL. */
static const char *marks_flaw(const pool_guest *guest, uint64_t gpn)
{
    enum { MARKS = DEDUPCORE_OUT | DEDUPCORE_ACCESSED_BY_HOST | DEDUPCORE_ACCESSED_BY_GUEST };
    if (guest->marks[gpn] & ~MARKS)
        return "a page has a mark that there is none of";
    if (guest->marks[gpn] & DEDUPCORE_OUT && guest->table[gpn] != DEDUPCORE_ABSENT)
        return "a page that is paged out has a frame";
    return NULL;
}

static int check_marks(const dedupcore_pool *pool, dedupcore_flaw *flaw)
{
    for (uint32_t g = 0; g < pool->n_guests; g++) {
        const pool_guest *guest = pool->guests + g;
        uint64_t n_out = 0;
        for (uint64_t i = 0; i < guest->n_pages; i++) {
            const char *what = marks_flaw(guest, i);
            if (what)
                return broken(flaw, what, g, i, guest->table[i]);
            n_out += guest->marks[i] & DEDUPCORE_OUT;
        }
        if (n_out != guest->n_out)
            return broken(flaw, "the number of pages that are paged out is wrong", g, UINT64_MAX, UINT64_MAX);
        if (guest->hands[0] >= guest->n_pages || guest->hands[1] >= guest->n_pages || guest->picked >= guest->n_pages)
            return broken(flaw, "a search for victims is where no page is", g, UINT64_MAX, UINT64_MAX);
    }
    return 0;
}

static int check_guests(const dedupcore_pool *pool, uint32_t *found, dedupcore_flaw *flaw)
{
    uint64_t n_pages = 0;
    for (uint32_t g = 0; g < pool->n_guests; g++) {
        const pool_guest *guest = pool->guests + g;
        uint64_t n_present = 0;
        for (uint64_t i = 0; i < guest->n_pages; i++) {
            const uint32_t frame = guest->table[i];
            if (frame == DEDUPCORE_ABSENT)
                continue;
            if (frame >= pool->frames.touched)
                return broken(flaw, "a page is mapped to a frame that never was in use", g, i, frame);
            if (!frames_in_use(&pool->frames, frame))
                return broken(flaw, "a page is mapped to a free frame", g, i, frame);
            if (pool->domains[frame] != guest->domain)
                return broken(flaw, "a page is mapped to a frame of another domain", g, i, frame);
            found[frame]++;
            n_present++;
        }
        if (n_present != guest->n_present)
            return broken(flaw, "the number of present pages is wrong", g, UINT64_MAX, UINT64_MAX);
        for (uint64_t i = 0; i < (guest->n_pages + 63) / 64; i++) {
            if (guest->met[i])
                return broken(flaw, "a mark of a batch was left behind", g, i * 64, UINT64_MAX);
        }
        n_pages += guest->n_pages;
    }
    if (n_pages != pool->n_pages)
        return broken(flaw, "the number of pages is wrong", NOWHERE, UINT64_MAX, UINT64_MAX);
    return 0;
}

/* --- the frames -------------------------------------------------------------------------------------------------- */

static int check_frames(const dedupcore_pool *pool, const uint32_t *found, dedupcore_flaw *flaw)
{
    const frame_store *frames = &pool->frames;
    uint64_t in_use = 0, shared = 0;
    for (uint32_t frame = 0; frame < frames->touched; frame++) {
        if (found[frame] != pool->refs[frame])
            return broken(flaw, "a frame is not mapped as often as counted", NOWHERE, UINT64_MAX, frame);
        if (frames_in_use(frames, frame) && !found[frame])
            return broken(flaw, "a frame is in use, but no page is mapped to it", NOWHERE, UINT64_MAX, frame);
        if (!found[frame] && !is_zero(pool, frame))
            return broken(flaw, "a free frame is not zero", NOWHERE, UINT64_MAX, frame);
        in_use += found[frame] != 0;
        shared += found[frame] > 1;
    }
    if (in_use != frames->in_use)
        return broken(flaw, "the number of frames in use is wrong", NOWHERE, UINT64_MAX, UINT64_MAX);
    if (shared != pool->n_shared)
        return broken(flaw, "the number of shared frames is wrong", NOWHERE, UINT64_MAX, UINT64_MAX);
    if (frames->n_pending)
        return broken(flaw, "frames were freed, but not given back", NOWHERE, UINT64_MAX, frames->pending[0]);
    return 0;
}

/* --- large pages ------------------------------------------------------------------------------------------------- */

static int is_together(const dedupcore_pool *pool, const uint32_t *pages)
{
    int together = pages[0] % DEDUPCORE_LARGE_PAGE == 0 && pages[0] < pool->frames.touched;
    for (uint32_t i = 1; i < DEDUPCORE_LARGE_PAGE && together; i++)
        together = pages[i] == pages[0] + i;
    return together;
}

/* The pages first to end of a guest, which are small ones. */
static int check_small_pages(const dedupcore_pool *pool, uint32_t g, uint64_t first, uint64_t end, dedupcore_flaw *flaw)
{
    for (uint64_t i = first; i < end; i++) {
        const uint32_t frame = pool->guests[g].table[i];
        if (frame != DEDUPCORE_ABSENT && frame % DEDUPCORE_LARGE_PAGE != i % DEDUPCORE_LARGE_PAGE &&
            pool->blocks[frame / DEDUPCORE_LARGE_PAGE].large)
            return broken(flaw, "a small page was moved to a frame of a large one", g, i, frame);
    }
    return 0;
}

/* found[block] becomes how many large pages lie there. */
static int check_large_pages(const dedupcore_pool *pool, uint32_t *found, dedupcore_flaw *flaw)
{
    uint64_t all_large = 0;
    for (uint32_t g = 0; g < pool->n_guests; g++) {
        const pool_guest *guest = pool->guests + g;
        uint64_t n_large = 0;
        for (uint64_t first = 0; first < guest->n_pages; first += DEDUPCORE_LARGE_PAGE) {
            const uint64_t left = guest->n_pages - first;
            const uint64_t end = first + (left < DEDUPCORE_LARGE_PAGE ? left : DEDUPCORE_LARGE_PAGE);
            const uint8_t large = guest->large[first / DEDUPCORE_LARGE_PAGE];
            if (large > (end - first == DEDUPCORE_LARGE_PAGE))
                return broken(flaw, "a range that cannot be a large page is said to be one", g, first, UINT64_MAX);
            if (large && !is_together(pool, guest->table + first))
                return broken(flaw, "a large page does not lie in one block", g, first, guest->table[first]);
            if (large)
                found[guest->table[first] / DEDUPCORE_LARGE_PAGE]++;
            else if (check_small_pages(pool, g, first, end, flaw))
                return DEDUPCORE_EBROKEN;
            n_large += large;
        }
        if (n_large != guest->n_large)
            return broken(flaw, "the number of a guest's large pages is wrong", g, UINT64_MAX, UINT64_MAX);
        all_large += n_large;
    }
    if (all_large != pool->n_large)
        return broken(flaw, "the number of large pages is wrong", NOWHERE, UINT64_MAX, UINT64_MAX);
    return 0;
}

static int check_blocks(const dedupcore_pool *pool, const uint32_t *found, dedupcore_flaw *flaw)
{
    for (uint64_t first = 0; first < pool->frames.touched; first += DEDUPCORE_LARGE_PAGE) {
        const pool_block *block = pool->blocks + first / DEDUPCORE_LARGE_PAGE;
        if (block->large != found[first / DEDUPCORE_LARGE_PAGE])
            return broken(flaw, "a block does not hold as many large pages as counted", NOWHERE, UINT64_MAX, first);
        if (block->mixed > (block->large != 0))
            return broken(flaw, "a block's flag is neither 0 nor 1, or it has no large page", NOWHERE, UINT64_MAX, first);
        for (uint64_t i = first; block->large && !block->mixed && i < first + DEDUPCORE_LARGE_PAGE; i++) {
            if (pool->refs[i] != block->large)
                return broken(flaw, "a large page shares a frame with a small one unnoticed", NOWHERE, UINT64_MAX, i);
        }
    }
    return 0;
}

/* --- the free ones ----------------------------------------------------------------------------------------------- */

static int is_set(const bit_tree *tree, unsigned level, uint64_t i)
{
    return tree->level[level][i / 64] >> i % 64 & 1;
}

/* Whether the bits above those of n numbers say where words are that have a 0; if not, *at is the number of the first. */
static int is_sound(const bit_tree *tree, uint64_t n, uint64_t *at)
{
    for (unsigned level = 0; level < tree->n_levels; level++) {
        for (uint64_t i = level ? 0 : n; i < (n + 63) / 64 * 64; i++) {
            const int right = i >= n || tree->level[level - 1][i] == ~UINT64_C(0);
            *at = i << 6 * level;
            if (is_set(tree, level, i) != right)
                return 0;
        }
        n = tree->n_words[level];
    }
    return 1;
}

static int is_parted(const frame_store *frames, uint64_t block)
{
    const uint64_t first = block * DEDUPCORE_LARGE_PAGE, end = first + DEDUPCORE_LARGE_PAGE;
    int parted = end > frames->capacity;
    for (uint64_t i = first; i < end && !parted; i += 64)
        parted = frames->used.level[0][i / 64] != 0;
    return parted;
}

/* Whether each free frame and each free block is found. */
static int check_bits(const frame_store *frames, dedupcore_flaw *flaw)
{
    const char *const misplaced = "free frames are not where they are looked for";
    const uint64_t n_blocks = frames->capacity / DEDUPCORE_LARGE_PAGE;
    uint64_t at;
    for (uint64_t i = frames->touched; i < frames->capacity; i++) {
        if (i % 64 == 0 && frames->capacity - i >= 64 && frames->used.level[0][i / 64] == 0)
            i += 63;
        else if (frames_in_use(frames, (uint32_t)i))
            return broken(flaw, misplaced, NOWHERE, UINT64_MAX, i);
    }
    if (!is_sound(&frames->used, frames->capacity, &at))
        return broken(flaw, misplaced, NOWHERE, UINT64_MAX, at);
    for (size_t i = 0; i < frames->lowest; i++) {
        if (frames->used.level[0][i] != ~UINT64_C(0))
            return broken(flaw, "a free frame would be overlooked", NOWHERE, UINT64_MAX, i * 64);
    }
    for (uint64_t i = 0; i <= n_blocks; i++) {
        if (is_set(&frames->parted, 0, i) != is_parted(frames, i))
            return broken(flaw, "free blocks are not where they are looked for", NOWHERE, UINT64_MAX,
                          i * DEDUPCORE_LARGE_PAGE);
    }
    if (!is_sound(&frames->parted, n_blocks + 1, &at))
        return broken(flaw, "free blocks are not where they are looked for", NOWHERE, UINT64_MAX, at * DEDUPCORE_LARGE_PAGE);
    return 0;
}

static int check_zero_frames(const dedupcore_pool *pool, dedupcore_flaw *flaw)
{
    for (size_t domain = 0; domain < pool->n_domains; domain++) {
        const uint32_t frame = pool->zero_frames[domain];
        if (frame == DEDUPCORE_ABSENT)
            continue;
        if (!pool_is_mapped(pool, frame) || pool->domains[frame] != domain)
            return broken(flaw, "the zero frame of a domain is none of its frames", NOWHERE, UINT64_MAX, frame);
        if (!is_zero(pool, frame))
            return broken(flaw, "the zero frame of a domain is not zero", NOWHERE, UINT64_MAX, frame);
    }
    return 0;
}

int dedupcore_pool_check(const dedupcore_pool *pool, dedupcore_flaw *flaw)
{
    region memory, blocks;
    int rc = region_map(&memory, (size_t)(pool->frames.touched + 1) * sizeof(uint32_t), 1, PAGES_HUGE);
    if (rc)
        return rc;
    rc = region_map(&blocks, (size_t)(pool->frames.touched / DEDUPCORE_LARGE_PAGE + 1) * sizeof(uint32_t), 1, PAGES_SMALL);
    if (rc == 0)
        rc = check_guests(pool, memory.at, flaw);
    if (rc == 0)
        rc = check_marks(pool, flaw);
    if (rc == 0)
        rc = check_frames(pool, memory.at, flaw);
    if (rc == 0)
        rc = check_large_pages(pool, blocks.at, flaw);
    if (rc == 0)
        rc = check_blocks(pool, blocks.at, flaw);
    if (rc == 0)
        rc = check_bits(&pool->frames, flaw);
    if (rc == 0)
        rc = check_zero_frames(pool, flaw);
    if (rc == 0 && pool->scan)
        rc = scan_check(pool, flaw);
    region_unmap(&memory);
    region_unmap(&blocks);
    return rc;
}
