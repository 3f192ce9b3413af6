/*
 * dedupcore's calls for other extension modules, through a function table in a capsule: no symbol to link, and an extension
 * built against one version works with every later one of the same DEDUPCORE_ABI_VERSION.
 *
 *     const dedupcore_api *api = dedupcore_import();       NULL with a Python exception set if that fails; needs the GIL
 *     api->find_duplicates(spans, n_spans, 4096, &key, canonical, &result);                        needs no GIL
 *
 * The calls are those of dedupcore.h without their prefix. Later versions append members; struct_size tells what is there.
 */
#ifndef DEDUPCORE_API_H
#define DEDUPCORE_API_H

#include <Python.h>

#include "dedupcore.h"

#define DEDUPCORE_ABI_VERSION 1
#define DEDUPCORE_CAPSULE "dedupcore._dedupcore.api"

typedef struct {
    uint32_t abi_version;
    uint32_t struct_size;
    const char *(*strerror)(int error);
    unsigned (*cpu_detected)(void);
    unsigned (*cpu_used)(void);
    const char *(*cpu_name)(unsigned rung);
    int (*key_random)(dedupcore_key *key);
    void (*key_seeded)(dedupcore_key *key, uint64_t seed);
    int (*job_create)(dedupcore_job **job, const dedupcore_span *spans, size_t n_spans, size_t frame_size,
                      const dedupcore_key *key, uint32_t *canonical);
    int (*job_next)(dedupcore_job *job, uint32_t *n_tasks);
    const char *(*job_phase)(const dedupcore_job *job);
    int (*job_run)(dedupcore_job *job, uint32_t task);
    int (*job_result)(const dedupcore_job *job, dedupcore_result *result);
    void (*job_destroy)(dedupcore_job *job);
    int (*find_duplicates)(const dedupcore_span *spans, size_t n_spans, size_t frame_size, const dedupcore_key *key,
                           uint32_t *canonical, dedupcore_result *result);
    void (*count)(const uint32_t *canonical, const dedupcore_guest *guests, size_t n_guests, uint32_t *copies,
                  uint32_t *owners, uint32_t *scratch, dedupcore_guest_counts *counts);
    int (*map_create)(dedupcore_map **map, int fd, size_t size);
    const void *(*map_base)(const dedupcore_map *map);
    int (*map_shrank)(const dedupcore_map *map);
    void (*map_destroy)(dedupcore_map *map);
    int (*hash_frames)(const void *frames, size_t n, size_t frame_size, const dedupcore_key *key, uint64_t *hashes);
    int (*match_frames)(const void *frames, size_t n, size_t frame_size, const void *originals, const uint32_t *places,
                        uint8_t *same);
    uint64_t (*random)(uint64_t key, uint64_t i);
    int (*place)(uint64_t key, uint64_t n_pages, uint64_t fragmentation, const uint64_t *counts,
                 const uint8_t *max_orders, const int64_t *fixed, size_t n_regions, uint32_t *places);
    int (*name_pages)(const dedupcore_template *pages, const dedupcore_variation *variation, const uint32_t *places,
                      uint64_t *names, uint8_t *regions, size_t n_pages, size_t *wrong);
    int (*materialize)(const uint64_t *names, size_t n, size_t frame_size, unsigned texture, void *out);
    int (*pool_create)(dedupcore_pool **pool, uint64_t capacity, size_t frame_size);
    void (*pool_destroy)(dedupcore_pool *pool);
    const void *(*pool_memory)(const dedupcore_pool *pool);
    int (*pool_add_guest)(dedupcore_pool *pool, uint64_t n_pages, uint32_t domain, uint32_t *guest);
    const uint32_t *(*pool_table)(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages);
    int (*pool_write)(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const void *data, size_t n, size_t *wrong);
    int (*pool_read)(const dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, void *out, size_t n, size_t *wrong);
    int (*pool_release)(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n, size_t *wrong);
    int (*pool_merge)(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const uint32_t *into, size_t n,
                      uint8_t *merged, size_t *wrong);
    int (*pool_share)(dedupcore_pool *pool, const dedupcore_key *key, dedupcore_work *work);
    void (*pool_count)(const dedupcore_pool *pool, dedupcore_pool_counts *counts);
    int (*pool_check)(const dedupcore_pool *pool, dedupcore_flaw *flaw);
    int (*pool_set_policy)(dedupcore_pool *pool, const dedupcore_policy *policy, const dedupcore_key *key);
    int (*pool_scan)(dedupcore_pool *pool, uint64_t n_pages, int *ended);
    int (*pool_scan_guest)(dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages, int *ended);
    void (*pool_scan_count)(const dedupcore_pool *pool, dedupcore_scan_counts *counts);
    int (*pool_use_large)(dedupcore_pool *pool, uint32_t guest);
    const uint8_t *(*pool_large)(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_ranges);
    int (*pool_break_large)(dedupcore_pool *pool, uint32_t guest, const uint32_t *ranges, size_t n, size_t *wrong);
    int (*pool_rebuild_large)(dedupcore_pool *pool, uint32_t guest, const uint32_t *ranges, size_t n, uint32_t max_shared,
                              uint8_t *rebuilt, size_t *wrong);
    int (*pool_share_large)(dedupcore_pool *pool, const dedupcore_key *key, dedupcore_work *work);
    int (*pool_large_hints)(const dedupcore_pool *pool, const dedupcore_key *key, dedupcore_large_hint *hints, size_t n,
                            dedupcore_work *work);
    int (*pool_touch)(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const uint8_t *writes, const void *data,
                      size_t n, dedupcore_touched *touched, size_t *wrong);
    int (*pool_set_limit)(dedupcore_pool *pool, uint64_t n_frames);
    uint64_t (*pool_limit)(const dedupcore_pool *pool);
    int (*pool_page_out)(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, void *out, size_t n, size_t *wrong);
    int (*pool_page_in)(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const void *data, size_t n,
                        size_t *wrong);
    int (*pool_forget)(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n, size_t *wrong);
    uint64_t (*pool_present)(const dedupcore_pool *pool, uint32_t guest);
    uint64_t (*pool_out)(const dedupcore_pool *pool, uint32_t guest);
    const uint8_t *(*pool_marks)(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages);
    int (*pool_take_accessed)(dedupcore_pool *pool, uint32_t guest, unsigned by, const uint32_t *gpns, size_t n,
                              uint8_t *accessed, size_t *wrong);
    int (*pool_oldest)(dedupcore_pool *pool, uint32_t guest, unsigned by, const uint8_t *eligible, uint32_t *gpns, size_t n,
                       size_t *found);
    int (*pool_pick)(dedupcore_pool *pool, uint32_t guest, const uint8_t *eligible, uint32_t *gpns, size_t n, size_t *found);
    void (*pool_set_seed)(dedupcore_pool *pool, uint64_t seed);
    int (*draw_accesses)(uint64_t key, uint64_t first, const uint32_t *working_set, size_t n_pages, const uint32_t *quantiles,
                         uint64_t write_chance, uint32_t *gpns, uint8_t *writes, size_t n);
    int (*pool_alone)(const dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n, uint8_t *alone,
                      size_t *wrong);
    int (*tlb_create)(dedupcore_tlb **tlb, const dedupcore_tlb_geometry *geometry);
    void (*tlb_destroy)(dedupcore_tlb *tlb);
    int (*tlb_map)(dedupcore_tlb *tlb, const uint8_t *sizes, const uint8_t *host_sizes, size_t n_ranges, unsigned table_size,
                   size_t *wrong);
    int (*tlb_access)(dedupcore_tlb *tlb, const uint64_t *addresses, size_t n, size_t *wrong);
    void (*tlb_count)(const dedupcore_tlb *tlb, dedupcore_tlb_counts *counts);
} dedupcore_api;

static inline const dedupcore_api *dedupcore_import(void)
{
    const dedupcore_api *api = (const dedupcore_api *)PyCapsule_Import(DEDUPCORE_CAPSULE, 0);
    if (api && (api->abi_version != DEDUPCORE_ABI_VERSION || api->struct_size < sizeof(dedupcore_api))) {
        PyErr_Format(PyExc_ImportError,
                     "dedupcore: built for ABI %d with a table of %zu bytes, but ABI %u with %u bytes is installed",
                     DEDUPCORE_ABI_VERSION, sizeof(dedupcore_api), (unsigned)api->abi_version, (unsigned)api->struct_size);
        return NULL;
    }
    return api;
}

#endif
