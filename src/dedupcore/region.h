/* Memory of the engine's own that is mapped at once and costs nothing until it is touched. */
#ifndef DEDUPCORE_REGION_H
#define DEDUPCORE_REGION_H

#include <stddef.h>

typedef struct {
    void *at; /* NULL: none */
    size_t size;
} region;

typedef enum { PAGES_SMALL, PAGES_HUGE } region_pages;

/*
 * Zeroed memory that is not reserved, at an address of which `align`, a power of two, is a divisor (1: any). PAGES_HUGE asks
 * for huge pages, for what is used densely and in any order; PAGES_SMALL for none, so that what is resident is what was touched.
 * Errors: DEDUPCORE_ENOMEM.
 */
int region_map(region *made, size_t size, size_t align, region_pages pages);

/* Makes it larger, at another address if need be; what is new is zero. One that is not mapped becomes so. Errors: as above. */
int region_grow(region *r, size_t size, region_pages pages);

void region_unmap(region *r); /* one that is not mapped is fine */

#endif
