/*
 * What translation costs: TLBs of two levels, page-walk caches, and walks of one or two page tables.
 *
 * Tables have four levels. The entry of level l for an address covers 2^(12 + 9 l) bytes; a page of 4 KiB ends at level 0, one
 * of 2 MiB at level 1, one of 1 GiB at level 2. A walk reads an entry of each level from the top to the page's; a page-walk
 * cache that knows the table of a level saves the reads above it.
 *
 * A guest's tables hold guest-physical addresses, so the host's tables are walked for each table of the guest that is read, and
 * for the page itself: (4 + 1) (4 + 1) - 1 = 24 reads if both have pages of 4 KiB. The guest's page-walk caches hold where its
 * tables are in the host, so that what they save, they save with the host's walk. The nested TLB holds guest-physical pages,
 * those of tables and of data. Guest-virtual and guest-physical addresses of data are taken to be the same; the guest's tables lie
 * behind its memory.
 */
#include <stdlib.h>
#include <string.h>

#include "lru.h"
#include "random.h"

enum {
    LEVELS = 4,
    PER_TABLE_BITS = 9, /* entries of a table: 512 */
    PAGE_BITS = 12,
    RANGE_BITS = 9, /* pages of 4 KiB in a range of 2 MiB */
    LINE_BITS = 6,
    ENTRY_BITS = 3, /* table entries in a line: 8 */
};
#define MOST_RANGES (UINT64_C(1) << 27) /* 48 bits of address */

/* A page table's side: that of the addresses that are accessed, or the host's under it. */
typedef struct {
    lru *caches[LEVELS - 1]; /* [l] of where the tables of level l are */
    unsigned entry_kind;     /* of what the first of these holds, below */
    unsigned line_kind;      /* of entries of level 0, below */
} side;

/* What an entry of a cache of translations is of; the first is for 4 KiB, or for level 0, the next ones for the next. */
enum { OF_PAGES = 0, OF_TABLES = 3, OF_HOST_TABLES = 6, OF_PHYSICAL_PAGES = 9, KIND_BITS = 4 };

/* The same for lines. */
enum { OF_DATA = 0, OF_ENTRIES = 1, OF_HOST_ENTRIES = 5, LINE_KIND_SHIFT = 60 };

/* What the range's pages are: of its own tables, of the host's, and the smaller of the two, of which a TLB entry is. */
typedef struct {
    uint8_t own, host, entry;
} range;

struct dedupcore_tlb {
    dedupcore_tlb_geometry geometry;
    lru caches[DEDUPCORE_MAX_CACHES], data[DEDUPCORE_DATA_CACHES], none;
    lru *l1[DEDUPCORE_PAGE_SIZES], *l2[DEDUPCORE_PAGE_SIZES], *nested;
    side own, host;
    range *ranges;
    uint64_t n_ranges;
    uint64_t tables[LEVELS]; /* the guest-physical page of the first table of each level */
    uint8_t table_size;
    int is_nested;
    dedupcore_tlb_counts done;
};

/* --- open, close, map ---------------------------------------------------------------------------------------------- */

/* The cache of that number; NULL if there can be none. */
static lru *cache_of(dedupcore_tlb *t, unsigned number)
{
    return number == DEDUPCORE_NO_CACHE ? &t->none : number < DEDUPCORE_MAX_CACHES ? t->caches + number : NULL;
}

/* Says who holds what. */
static int assign(dedupcore_tlb *t)
{
    const dedupcore_tlb_geometry *g = &t->geometry;
    int fits = (t->nested = cache_of(t, g->nested)) != NULL;
    for (unsigned size = 0; size < DEDUPCORE_PAGE_SIZES; size++) {
        t->l1[size] = cache_of(t, g->l1[size]);
        t->l2[size] = cache_of(t, g->l2[size]);
        fits &= t->l1[size] && t->l2[size] && g->l2_as[size] <= size;
    }
    for (unsigned l = 0; l < LEVELS - 1; l++) {
        t->own.caches[l] = cache_of(t, g->walk[l]);
        t->host.caches[l] = cache_of(t, g->host_walk[l]);
        fits &= t->own.caches[l] && t->host.caches[l];
    }
    return fits ? 0 : DEDUPCORE_EINVAL;
}

int dedupcore_tlb_create(dedupcore_tlb **made, const dedupcore_tlb_geometry *g)
{
    *made = NULL;
    dedupcore_tlb *t = calloc(1, sizeof *t);
    if (!t)
        return DEDUPCORE_ENOMEM;
    t->geometry = *g;
    t->own.entry_kind = OF_TABLES;
    t->own.line_kind = OF_ENTRIES;
    t->host.entry_kind = OF_HOST_TABLES;
    t->host.line_kind = OF_HOST_ENTRIES;
    int rc = assign(t);
    for (unsigned i = 0; rc == 0 && i < DEDUPCORE_MAX_CACHES; i++)
        rc = lru_open(t->caches + i, g->caches + i);
    for (unsigned i = 0; rc == 0 && i < DEDUPCORE_DATA_CACHES; i++)
        rc = lru_open(t->data + i, g->data + i);
    if (rc) {
        dedupcore_tlb_destroy(t);
        return rc;
    }
    *made = t;
    return 0;
}

/* Does the same to all its caches. */
static void each_cache(dedupcore_tlb *t, void (*act)(lru *))
{
    for (unsigned i = 0; i < DEDUPCORE_MAX_CACHES; i++)
        act(t->caches + i);
    for (unsigned i = 0; i < DEDUPCORE_DATA_CACHES; i++)
        act(t->data + i);
}

void dedupcore_tlb_destroy(dedupcore_tlb *t)
{
    if (!t)
        return;
    each_cache(t, lru_close);
    free(t->ranges);
    free(t);
}

/* The first range whose size is none, or that is a part of 1 GiB of which not all is; n if there is none. */
static size_t first_wrong(const uint8_t *sizes, size_t n)
{
    enum { GIB = 512 };
    for (size_t i = 0; i < n; i++) {
        if (sizes[i] >= DEDUPCORE_PAGE_SIZES)
            return i;
        const size_t first = i & ~(size_t)(GIB - 1);
        if (sizes[i] != DEDUPCORE_PAGE_1G)
            continue;
        for (size_t j = first; j < first + GIB; j++) {
            if (j >= n || sizes[j] != DEDUPCORE_PAGE_1G)
                return i;
        }
        i = first + GIB - 1;
    }
    return n;
}

int dedupcore_tlb_map(dedupcore_tlb *t, const uint8_t *sizes, const uint8_t *host_sizes, size_t n_ranges, unsigned table_size,
                      size_t *wrong)
{
    *wrong = n_ranges;
    if (n_ranges == 0 || n_ranges > MOST_RANGES || table_size >= DEDUPCORE_PAGE_SIZES)
        return DEDUPCORE_EINVAL;
    *wrong = first_wrong(sizes, n_ranges);
    if (*wrong == n_ranges && host_sizes)
        *wrong = first_wrong(host_sizes, n_ranges);
    if (*wrong != n_ranges)
        return DEDUPCORE_EINVAL;
    range *ranges = realloc(t->ranges, n_ranges * sizeof *ranges);
    if (!ranges)
        return DEDUPCORE_ENOMEM;
    for (size_t i = 0; i < n_ranges; i++) {
        const uint8_t own = sizes[i], host = host_sizes ? host_sizes[i] : own;
        ranges[i] = (range){own, host, own < host ? own : host};
    }
    t->ranges = ranges;
    t->n_ranges = n_ranges;
    t->table_size = (uint8_t)table_size;
    t->is_nested = host_sizes != NULL;
    const unsigned gib = 2 * PER_TABLE_BITS;
    uint64_t next = (((uint64_t)n_ranges << RANGE_BITS) + (UINT64_C(1) << gib) - 1) >> gib << gib;
    for (unsigned l = 0; l < LEVELS; l++) {
        t->tables[l] = next;
        next += ((((uint64_t)n_ranges << RANGE_BITS) - 1) >> PER_TABLE_BITS * (l + 1)) + 1;
    }
    each_cache(t, lru_clear);
    return 0;
}

/* --- data caches --------------------------------------------------------------------------------------------------- */

/*
 * Counts where a line is found, 0 to 2 or 3 for memory; from there it comes into all caches before. kind 0: data, the line's
 * number is that of its address. Others: entries of a level of a side's tables, numbered through all tables of the level.
 * The pages that lines are in lie anywhere in memory, so what set a line is in hangs on its place in its page, and on chance.
 */
static void fetch_line(dedupcore_tlb *t, unsigned kind, uint64_t line, uint64_t *found)
{
    enum { LINES_BITS = PAGE_BITS - LINE_BITS };
    const uint64_t key = (uint64_t)kind << LINE_KIND_SHIFT | line;
    const uint64_t in = random_mix(key >> LINES_BITS) << LINES_BITS | (line & ((1 << LINES_BITS) - 1));
    unsigned at = 0;
    while (at < DEDUPCORE_DATA_CACHES && !lru_use(t->data + at, key, in))
        at++;
    found[at]++;
}

/* A walk reads entries of a side's tables for the page, from one level down to another. */
static inline void read_entries(dedupcore_tlb *t, const side *s, unsigned from, unsigned to, uint64_t page)
{
    t->done.references[s == &t->host] += from - to + 1;
    if (!t->data[0].n) {
        t->done.references_found[DEDUPCORE_DATA_CACHES] += from - to + 1;
        return;
    }
    for (unsigned l = from + 1; l-- > to;)
        fetch_line(t, s->line_kind + l, page >> PER_TABLE_BITS * l >> ENTRY_BITS, t->done.references_found);
}

/* --- walks --------------------------------------------------------------------------------------------------------- */

/* Whether the cache holds that number of that kind; it does now. */
static inline int is_held(lru *cache, unsigned kind, uint64_t number)
{
    return lru_use(cache, number << KIND_BITS | kind, number);
}


/*
 * The lowest level whose table the side's caches know, not below `level`; LEVELS - 1 is where walks begin. They come to know those
 * below, of which the walk will read where they are.
 */
static inline unsigned lowest_known(side *s, unsigned level, uint64_t page, uint64_t *hits)
{
    for (unsigned l = level; l < LEVELS - 1; l++) {
        if (is_held(s->caches[l], s->entry_kind + l, page >> PER_TABLE_BITS * (l + 1))) {
            hits[l]++;
            return l;
        }
    }
    return LEVELS - 1;
}

/* Finds out where a guest-physical page is. */
static void translate_physical(dedupcore_tlb *t, uint64_t page, unsigned size)
{
    if (is_held(t->nested, OF_PHYSICAL_PAGES + size, page >> PER_TABLE_BITS * size)) {
        t->done.nested_hits++;
        return;
    }
    read_entries(t, &t->host, lowest_known(&t->host, size, page, t->done.host_walk_hits), size, page);
}

static void walk(dedupcore_tlb *t, uint64_t page, const range *r)
{
    const unsigned known = lowest_known(&t->own, r->own, page, t->done.walk_hits);
    if (!t->is_nested) {
        read_entries(t, &t->own, known, r->own, page);
        return;
    }
    for (unsigned l = known + 1; l-- > r->own;) {
        if (l != known || l == LEVELS - 1) /* otherwise the cache knows where the table is in the host */
            translate_physical(t, t->tables[l] + (page >> PER_TABLE_BITS * (l + 1)), t->table_size);
        read_entries(t, &t->own, l, l, page);
    }
    translate_physical(t, page, r->host);
}

/* --- accesses ------------------------------------------------------------------------------------------------------ */

/* Kept out of the loop of hits. */
static __attribute__((noinline)) void miss(dedupcore_tlb *t, uint64_t page, const range *r)
{
    const unsigned as = t->geometry.l2_as[r->entry];
    if (is_held(t->l2[r->entry], OF_PAGES + as, page >> PER_TABLE_BITS * as)) {
        t->done.l2_hits[r->entry]++;
    } else {
        t->done.walks[r->entry]++;
        walk(t, page, r);
    }
}

int dedupcore_tlb_access(dedupcore_tlb *t, const uint64_t *addresses, size_t n, size_t *wrong)
{
    const uint64_t end = t->n_ranges << (RANGE_BITS + PAGE_BITS);
    for (*wrong = 0; *wrong < n; ++*wrong) {
        if (addresses[*wrong] >= end)
            return DEDUPCORE_EINVAL;
    }
    const int caches = t->data[0].n != 0;
    for (size_t i = 0; i < n; i++) {
        const uint64_t page = addresses[i] >> PAGE_BITS;
        const range *r = t->ranges + (page >> RANGE_BITS);
        if (is_held(t->l1[r->entry], OF_PAGES + r->entry, page >> PER_TABLE_BITS * r->entry))
            t->done.l1_hits[r->entry]++;
        else
            miss(t, page, r);
        if (caches)
            fetch_line(t, OF_DATA, addresses[i] >> LINE_BITS, t->done.data_found);
    }
    return 0;
}

void dedupcore_tlb_count(const dedupcore_tlb *t, dedupcore_tlb_counts *counts)
{
    *counts = t->done;
}
