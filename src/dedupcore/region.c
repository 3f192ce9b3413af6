#define _GNU_SOURCE
#include "region.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dedupcore.h"

enum { HUGE_PAGE = 2 << 20 };

int region_map(region *made, size_t size, size_t align, region_pages pages)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    *made = (region){NULL, 0};
    if (size > SIZE_MAX / 4)
        return DEDUPCORE_ENOMEM;
    size = (size + page - 1) / page * page;
    if (pages == PAGES_HUGE && size >= HUGE_PAGE && align < HUGE_PAGE)
        align = HUGE_PAGE;
    if (align < page)
        align = page;

    const size_t room = size + (align - page);
    uint8_t *at = mmap(NULL, room, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (at == MAP_FAILED)
        return DEDUPCORE_ENOMEM;
    const size_t before = -(uintptr_t)at % align, after = room - before - size;
    if (before)
        munmap(at, before);
    if (after)
        munmap(at + before + size, after);
    at += before;
    (void)madvise(at, size, pages == PAGES_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE); /* a wish; may fail */
    *made = (region){at, size};
    return 0;
}

int region_grow(region *r, size_t size, region_pages pages)
{
    if (!r->at)
        return region_map(r, size, 1, pages);
    if (size <= r->size)
        return 0;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (size > SIZE_MAX / 4)
        return DEDUPCORE_ENOMEM;
    size = (size + page - 1) / page * page;
    void *at = mremap(r->at, r->size, size, MREMAP_MAYMOVE);
    if (at == MAP_FAILED)
        return DEDUPCORE_ENOMEM;
    (void)madvise(at, size, pages == PAGES_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    *r = (region){at, size};
    return 0;
}

void region_unmap(region *r)
{
    if (r->at)
        munmap(r->at, r->size);
    *r = (region){NULL, 0};
}
