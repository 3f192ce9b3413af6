# cython: language_level=3
"""For `cimport dedupcore`: the types of dedupcore.h, and its calls through the table of the installed module.

Call `dedupcore.import_dedupcore()` once, at module level; after it every call here works without the GIL.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "dedupcore_api.h":
    int DEDUPCORE_EINVAL
    int DEDUPCORE_ENOMEM
    int DEDUPCORE_ETOOBIG
    int DEDUPCORE_ESTATE
    int DEDUPCORE_ESYS
    int DEDUPCORE_ECHANGED
    int DEDUPCORE_EFULL
    int DEDUPCORE_EBROKEN
    unsigned DEDUPCORE_CPU_AVX2
    unsigned DEDUPCORE_MAX_ORDER
    uint64_t DEDUPCORE_ALWAYS
    unsigned DEDUPCORE_QUANTILES
    unsigned DEDUPCORE_MIN_TEXTURED_SIZE
    unsigned DEDUPCORE_SPARSE
    unsigned DEDUPCORE_NOISE
    unsigned DEDUPCORE_ONE_BYTE
    unsigned DEDUPCORE_PREFIX
    unsigned DEDUPCORE_MIXED
    uint32_t DEDUPCORE_ABSENT
    unsigned DEDUPCORE_OUT
    unsigned DEDUPCORE_ACCESSED_BY_HOST
    unsigned DEDUPCORE_ACCESSED_BY_GUEST
    unsigned DEDUPCORE_MAX_DOMAINS
    unsigned DEDUPCORE_PAGE_4K
    unsigned DEDUPCORE_PAGE_2M
    unsigned DEDUPCORE_PAGE_1G
    unsigned DEDUPCORE_PAGE_SIZES
    unsigned DEDUPCORE_MAX_CACHES
    unsigned DEDUPCORE_DATA_CACHES
    unsigned DEDUPCORE_NO_CACHE
    uint32_t DEDUPCORE_MAX_CACHE
    unsigned DEDUPCORE_LARGE_PAGE
    size_t DEDUPCORE_MAX_LARGE_FRAME

    ctypedef struct dedupcore_key:
        pass

    ctypedef struct dedupcore_span:
        const void *base
        uint64_t n_frames

    ctypedef struct dedupcore_work:
        uint64_t frames_signed
        uint64_t bytes_signed
        uint64_t frames_hashed
        uint64_t bytes_hashed
        uint64_t frames_compared
        uint64_t bytes_compared
        uint64_t frames_not_read

    ctypedef struct dedupcore_result:
        uint64_t n_frames
        uint64_t n_zero
        uint64_t n_distinct
        uint32_t zero_canonical
        dedupcore_work work

    ctypedef struct dedupcore_job:
        pass

    ctypedef struct dedupcore_guest:
        uint64_t first
        uint64_t end
        uint32_t zero_canonical

    ctypedef struct dedupcore_guest_counts:
        uint64_t zero
        uint64_t distinct
        uint64_t shared_across

    ctypedef struct dedupcore_map:
        pass

    ctypedef struct dedupcore_template:
        size_t n_pages
        const uint64_t *names
        const uint16_t *variables
        const uint8_t *regions
        uint64_t first

    ctypedef struct dedupcore_variation:
        size_t n_variables
        const uint64_t *values
        const uint32_t *chances
        uint64_t own
        uint64_t key

    ctypedef struct dedupcore_pool:
        pass

    ctypedef struct dedupcore_pool_counts:
        uint64_t capacity
        uint64_t in_use
        uint64_t pages_present
        uint64_t zero_frames
        uint64_t zero_pages
        uint64_t pages_shared
        uint64_t pages_sharing
        uint64_t pages_unshared
        uint64_t first_touches
        uint64_t cow_breaks
        uint64_t pages_merged
        uint64_t pages_released
        uint64_t large_pages
        uint64_t large_breaks
        uint64_t large_rebuilds

    ctypedef struct dedupcore_touched:
        uint64_t done
        uint64_t first_touches
        uint64_t cow_breaks

    ctypedef struct dedupcore_large_hint:
        uint32_t guest
        uint32_t range
        uint16_t zero
        uint16_t shareable

    unsigned DEDUPCORE_POLICY_DIRTY
    unsigned DEDUPCORE_POLICY_KSM
    unsigned DEDUPCORE_POLICY_ESX

    ctypedef struct dedupcore_policy:
        uint32_t kind
        uint32_t max_page_sharing
        uint32_t use_zero_pages
        uint32_t smart_scan
        uint64_t seed

    ctypedef struct dedupcore_scan_counts:
        uint64_t full_scans
        uint64_t pages_scanned
        uint64_t pages_skipped
        uint64_t pages_hashed
        uint64_t stable_searches
        uint64_t unstable_searches
        uint64_t hints_matched
        uint64_t hints_stale
        uint64_t collisions
        uint64_t frames_hashed
        uint64_t frames_compared
        uint64_t pages_stable
        uint64_t frames_stable
        uint64_t pages_settled
        uint64_t pages_items
        uint64_t pages_changed

    ctypedef struct dedupcore_flaw:
        const char *what
        uint32_t guest
        uint64_t page
        uint64_t frame

    ctypedef struct dedupcore_cache:
        uint32_t entries
        uint32_t ways

    ctypedef struct dedupcore_tlb_geometry:
        dedupcore_cache[16] caches
        uint8_t[3] l1
        uint8_t[3] l2
        uint8_t[3] l2_as
        uint8_t[3] walk
        uint8_t nested
        uint8_t[3] host_walk
        dedupcore_cache[3] data

    ctypedef struct dedupcore_tlb_counts:
        uint64_t[3] l1_hits
        uint64_t[3] l2_hits
        uint64_t[3] walks
        uint64_t[2] references
        uint64_t[3] walk_hits
        uint64_t[3] host_walk_hits
        uint64_t nested_hits
        uint64_t[4] references_found
        uint64_t[4] data_found

    ctypedef struct dedupcore_tlb:
        pass

    ctypedef struct dedupcore_api:
        const char *(*strerror)(int) noexcept nogil
        unsigned (*cpu_detected)() noexcept nogil
        unsigned (*cpu_used)() noexcept nogil
        const char *(*cpu_name)(unsigned) noexcept nogil
        int (*key_random)(dedupcore_key *) noexcept nogil
        void (*key_seeded)(dedupcore_key *, uint64_t) noexcept nogil
        int (*job_create)(dedupcore_job **, const dedupcore_span *, size_t, size_t, const dedupcore_key *,
                          uint32_t *) noexcept nogil
        int (*job_next)(dedupcore_job *, uint32_t *) noexcept nogil
        const char *(*job_phase)(const dedupcore_job *) noexcept nogil
        int (*job_run)(dedupcore_job *, uint32_t) noexcept nogil
        int (*job_result)(const dedupcore_job *, dedupcore_result *) noexcept nogil
        void (*job_destroy)(dedupcore_job *) noexcept nogil
        int (*find_duplicates)(const dedupcore_span *, size_t, size_t, const dedupcore_key *, uint32_t *,
                               dedupcore_result *) noexcept nogil
        void (*count)(const uint32_t *, const dedupcore_guest *, size_t, uint32_t *, uint32_t *, uint32_t *,
                      dedupcore_guest_counts *) noexcept nogil
        int (*map_create)(dedupcore_map **, int, size_t) noexcept nogil
        const void *(*map_base)(const dedupcore_map *) noexcept nogil
        int (*map_shrank)(const dedupcore_map *) noexcept nogil
        void (*map_destroy)(dedupcore_map *) noexcept nogil
        int (*hash_frames)(const void *, size_t, size_t, const dedupcore_key *, uint64_t *) noexcept nogil
        int (*match_frames)(const void *, size_t, size_t, const void *, const uint32_t *, uint8_t *) noexcept nogil
        uint64_t (*random)(uint64_t, uint64_t) noexcept nogil
        int (*place)(uint64_t, uint64_t, uint64_t, const uint64_t *, const uint8_t *, const int64_t *, size_t,
                     uint32_t *) noexcept nogil
        int (*name_pages)(const dedupcore_template *, const dedupcore_variation *, const uint32_t *, uint64_t *,
                          uint8_t *, size_t, size_t *) noexcept nogil
        int (*materialize)(const uint64_t *, size_t, size_t, unsigned, void *) noexcept nogil
        int (*pool_create)(dedupcore_pool **, uint64_t, size_t) noexcept nogil
        void (*pool_destroy)(dedupcore_pool *) noexcept nogil
        const void *(*pool_memory)(const dedupcore_pool *) noexcept nogil
        int (*pool_add_guest)(dedupcore_pool *, uint64_t, uint32_t, uint32_t *) noexcept nogil
        const uint32_t *(*pool_table)(const dedupcore_pool *, uint32_t, uint64_t *) noexcept nogil
        int (*pool_write)(dedupcore_pool *, uint32_t, const uint32_t *, const void *, size_t, size_t *) noexcept nogil
        int (*pool_read)(const dedupcore_pool *, uint32_t, const uint32_t *, void *, size_t, size_t *) noexcept nogil
        int (*pool_release)(dedupcore_pool *, uint32_t, const uint32_t *, size_t, size_t *) noexcept nogil
        int (*pool_merge)(dedupcore_pool *, uint32_t, const uint32_t *, const uint32_t *, size_t, uint8_t *,
                          size_t *) noexcept nogil
        int (*pool_share)(dedupcore_pool *, const dedupcore_key *, dedupcore_work *) noexcept nogil
        void (*pool_count)(const dedupcore_pool *, dedupcore_pool_counts *) noexcept nogil
        int (*pool_check)(const dedupcore_pool *, dedupcore_flaw *) noexcept nogil
        int (*pool_set_policy)(dedupcore_pool *, const dedupcore_policy *, const dedupcore_key *) noexcept nogil
        int (*pool_scan)(dedupcore_pool *, uint64_t, int *) noexcept nogil
        int (*pool_scan_guest)(dedupcore_pool *, uint32_t, uint64_t *, int *) noexcept nogil
        void (*pool_scan_count)(const dedupcore_pool *, dedupcore_scan_counts *) noexcept nogil
        int (*pool_use_large)(dedupcore_pool *, uint32_t) noexcept nogil
        const uint8_t *(*pool_large)(const dedupcore_pool *, uint32_t, uint64_t *) noexcept nogil
        int (*pool_break_large)(dedupcore_pool *, uint32_t, const uint32_t *, size_t, size_t *) noexcept nogil
        int (*pool_rebuild_large)(dedupcore_pool *, uint32_t, const uint32_t *, size_t, uint32_t, uint8_t *,
                                  size_t *) noexcept nogil
        int (*pool_share_large)(dedupcore_pool *, const dedupcore_key *, dedupcore_work *) noexcept nogil
        int (*pool_large_hints)(const dedupcore_pool *, const dedupcore_key *, dedupcore_large_hint *, size_t,
                                dedupcore_work *) noexcept nogil
        int (*pool_touch)(dedupcore_pool *, uint32_t, const uint32_t *, const uint8_t *, const void *, size_t,
                          dedupcore_touched *, size_t *) noexcept nogil
        int (*pool_set_limit)(dedupcore_pool *, uint64_t) noexcept nogil
        uint64_t (*pool_limit)(const dedupcore_pool *) noexcept nogil
        int (*pool_page_out)(dedupcore_pool *, uint32_t, const uint32_t *, void *, size_t, size_t *) noexcept nogil
        int (*pool_page_in)(dedupcore_pool *, uint32_t, const uint32_t *, const void *, size_t,
                            size_t *) noexcept nogil
        int (*pool_forget)(dedupcore_pool *, uint32_t, const uint32_t *, size_t, size_t *) noexcept nogil
        uint64_t (*pool_present)(const dedupcore_pool *, uint32_t) noexcept nogil
        uint64_t (*pool_out)(const dedupcore_pool *, uint32_t) noexcept nogil
        const uint8_t *(*pool_marks)(const dedupcore_pool *, uint32_t, uint64_t *) noexcept nogil
        int (*pool_take_accessed)(dedupcore_pool *, uint32_t, unsigned, const uint32_t *, size_t, uint8_t *,
                                  size_t *) noexcept nogil
        int (*pool_oldest)(dedupcore_pool *, uint32_t, unsigned, const uint8_t *, uint32_t *, size_t,
                           size_t *) noexcept nogil
        int (*pool_pick)(dedupcore_pool *, uint32_t, const uint8_t *, uint32_t *, size_t, size_t *) noexcept nogil
        void (*pool_set_seed)(dedupcore_pool *, uint64_t) noexcept nogil
        int (*draw_accesses)(uint64_t, uint64_t, const uint32_t *, size_t, const uint32_t *, uint64_t, uint32_t *,
                             uint8_t *, size_t) noexcept nogil
        int (*pool_alone)(const dedupcore_pool *, uint32_t, const uint32_t *, size_t, uint8_t *,
                          size_t *) noexcept nogil
        int (*tlb_create)(dedupcore_tlb **, const dedupcore_tlb_geometry *) noexcept nogil
        void (*tlb_destroy)(dedupcore_tlb *) noexcept nogil
        int (*tlb_map)(dedupcore_tlb *, const uint8_t *, const uint8_t *, size_t, unsigned, size_t *) noexcept nogil
        int (*tlb_access)(dedupcore_tlb *, const uint64_t *, size_t, size_t *) noexcept nogil
        void (*tlb_count)(const dedupcore_tlb *, dedupcore_tlb_counts *) noexcept nogil

    const dedupcore_api *dedupcore_import() except NULL


cdef extern from *:
    """
    /* One table a module that cimports; set by import_dedupcore. */
    static const dedupcore_api *dedupcore_table;
    """
    const dedupcore_api *dedupcore_table


cdef inline int import_dedupcore() except -1:
    global dedupcore_table
    dedupcore_table = dedupcore_import()
    return 0


cdef inline const char *strerror(int error) noexcept nogil:
    return dedupcore_table.strerror(error)


cdef inline unsigned cpu_detected() noexcept nogil:
    return dedupcore_table.cpu_detected()


cdef inline unsigned cpu_used() noexcept nogil:
    return dedupcore_table.cpu_used()


cdef inline const char *cpu_name(unsigned rung) noexcept nogil:
    return dedupcore_table.cpu_name(rung)


cdef inline int key_random(dedupcore_key *key) noexcept nogil:
    return dedupcore_table.key_random(key)


cdef inline void key_seeded(dedupcore_key *key, uint64_t seed) noexcept nogil:
    dedupcore_table.key_seeded(key, seed)


cdef inline int job_create(dedupcore_job **job, const dedupcore_span *spans, size_t n_spans, size_t frame_size,
                           const dedupcore_key *key, uint32_t *canonical) noexcept nogil:
    return dedupcore_table.job_create(job, spans, n_spans, frame_size, key, canonical)


cdef inline int job_next(dedupcore_job *job, uint32_t *n_tasks) noexcept nogil:
    return dedupcore_table.job_next(job, n_tasks)


cdef inline const char *job_phase(const dedupcore_job *job) noexcept nogil:
    return dedupcore_table.job_phase(job)


cdef inline int job_run(dedupcore_job *job, uint32_t task) noexcept nogil:
    return dedupcore_table.job_run(job, task)


cdef inline int job_result(const dedupcore_job *job, dedupcore_result *result) noexcept nogil:
    return dedupcore_table.job_result(job, result)


cdef inline void job_destroy(dedupcore_job *job) noexcept nogil:
    dedupcore_table.job_destroy(job)


cdef inline int find_duplicates(const dedupcore_span *spans, size_t n_spans, size_t frame_size, const dedupcore_key *key,
                                uint32_t *canonical, dedupcore_result *result) noexcept nogil:
    return dedupcore_table.find_duplicates(spans, n_spans, frame_size, key, canonical, result)


cdef inline void count(const uint32_t *canonical, const dedupcore_guest *guests, size_t n_guests, uint32_t *copies,
                       uint32_t *owners, uint32_t *scratch, dedupcore_guest_counts *counts) noexcept nogil:
    dedupcore_table.count(canonical, guests, n_guests, copies, owners, scratch, counts)


cdef inline int map_create(dedupcore_map **map, int fd, size_t size) noexcept nogil:
    return dedupcore_table.map_create(map, fd, size)


cdef inline const void *map_base(const dedupcore_map *map) noexcept nogil:
    return dedupcore_table.map_base(map)


cdef inline int map_shrank(const dedupcore_map *map) noexcept nogil:
    return dedupcore_table.map_shrank(map)


cdef inline void map_destroy(dedupcore_map *map) noexcept nogil:
    dedupcore_table.map_destroy(map)


cdef inline int hash_frames(const void *frames, size_t n, size_t frame_size, const dedupcore_key *key,
                            uint64_t *hashes) noexcept nogil:
    return dedupcore_table.hash_frames(frames, n, frame_size, key, hashes)


cdef inline int match_frames(const void *frames, size_t n, size_t frame_size, const void *originals,
                             const uint32_t *places, uint8_t *same) noexcept nogil:
    return dedupcore_table.match_frames(frames, n, frame_size, originals, places, same)


cdef inline uint64_t random(uint64_t key, uint64_t i) noexcept nogil:
    return dedupcore_table.random(key, i)


cdef inline int place(uint64_t key, uint64_t n_pages, uint64_t fragmentation, const uint64_t *counts,
                      const uint8_t *max_orders, const int64_t *fixed, size_t n_regions,
                      uint32_t *places) noexcept nogil:
    return dedupcore_table.place(key, n_pages, fragmentation, counts, max_orders, fixed, n_regions, places)


cdef inline int name_pages(const dedupcore_template *pages, const dedupcore_variation *variation,
                           const uint32_t *places, uint64_t *names, uint8_t *regions, size_t n_pages,
                           size_t *wrong) noexcept nogil:
    return dedupcore_table.name_pages(pages, variation, places, names, regions, n_pages, wrong)


cdef inline int materialize(const uint64_t *names, size_t n, size_t frame_size, unsigned texture,
                            void *out) noexcept nogil:
    return dedupcore_table.materialize(names, n, frame_size, texture, out)


cdef inline int pool_create(dedupcore_pool **pool, uint64_t capacity, size_t frame_size) noexcept nogil:
    return dedupcore_table.pool_create(pool, capacity, frame_size)


cdef inline void pool_destroy(dedupcore_pool *pool) noexcept nogil:
    dedupcore_table.pool_destroy(pool)


cdef inline const void *pool_memory(const dedupcore_pool *pool) noexcept nogil:
    return dedupcore_table.pool_memory(pool)


cdef inline int pool_add_guest(dedupcore_pool *pool, uint64_t n_pages, uint32_t domain,
                               uint32_t *guest) noexcept nogil:
    return dedupcore_table.pool_add_guest(pool, n_pages, domain, guest)


cdef inline const uint32_t *pool_table(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages) noexcept nogil:
    return dedupcore_table.pool_table(pool, guest, n_pages)


cdef inline int pool_write(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const void *data, size_t n,
                           size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_write(pool, guest, gpns, data, n, wrong)


cdef inline int pool_read(const dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, void *out, size_t n,
                          size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_read(pool, guest, gpns, out, n, wrong)


cdef inline int pool_release(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n,
                             size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_release(pool, guest, gpns, n, wrong)


cdef inline int pool_merge(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const uint32_t *into, size_t n,
                           uint8_t *merged, size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_merge(pool, guest, gpns, into, n, merged, wrong)


cdef inline int pool_share(dedupcore_pool *pool, const dedupcore_key *key, dedupcore_work *work) noexcept nogil:
    return dedupcore_table.pool_share(pool, key, work)


cdef inline void pool_count(const dedupcore_pool *pool, dedupcore_pool_counts *counts) noexcept nogil:
    dedupcore_table.pool_count(pool, counts)


cdef inline int pool_check(const dedupcore_pool *pool, dedupcore_flaw *flaw) noexcept nogil:
    return dedupcore_table.pool_check(pool, flaw)


cdef inline int pool_set_policy(dedupcore_pool *pool, const dedupcore_policy *policy,
                                const dedupcore_key *key) noexcept nogil:
    return dedupcore_table.pool_set_policy(pool, policy, key)


cdef inline int pool_scan(dedupcore_pool *pool, uint64_t n_pages, int *ended) noexcept nogil:
    return dedupcore_table.pool_scan(pool, n_pages, ended)


cdef inline int pool_scan_guest(dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages, int *ended) noexcept nogil:
    return dedupcore_table.pool_scan_guest(pool, guest, n_pages, ended)


cdef inline void pool_scan_count(const dedupcore_pool *pool, dedupcore_scan_counts *counts) noexcept nogil:
    dedupcore_table.pool_scan_count(pool, counts)


cdef inline int pool_use_large(dedupcore_pool *pool, uint32_t guest) noexcept nogil:
    return dedupcore_table.pool_use_large(pool, guest)


cdef inline const uint8_t *pool_large(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_ranges) noexcept nogil:
    return dedupcore_table.pool_large(pool, guest, n_ranges)


cdef inline int pool_break_large(dedupcore_pool *pool, uint32_t guest, const uint32_t *ranges, size_t n,
                                 size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_break_large(pool, guest, ranges, n, wrong)


cdef inline int pool_rebuild_large(dedupcore_pool *pool, uint32_t guest, const uint32_t *ranges, size_t n,
                                   uint32_t max_shared, uint8_t *rebuilt, size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_rebuild_large(pool, guest, ranges, n, max_shared, rebuilt, wrong)


cdef inline int pool_share_large(dedupcore_pool *pool, const dedupcore_key *key, dedupcore_work *work) noexcept nogil:
    return dedupcore_table.pool_share_large(pool, key, work)


cdef inline int pool_large_hints(const dedupcore_pool *pool, const dedupcore_key *key, dedupcore_large_hint *hints,
                                 size_t n, dedupcore_work *work) noexcept nogil:
    return dedupcore_table.pool_large_hints(pool, key, hints, n, work)


cdef inline int pool_touch(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const uint8_t *writes,
                           const void *data, size_t n, dedupcore_touched *touched, size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_touch(pool, guest, gpns, writes, data, n, touched, wrong)


cdef inline int pool_set_limit(dedupcore_pool *pool, uint64_t n_frames) noexcept nogil:
    return dedupcore_table.pool_set_limit(pool, n_frames)


cdef inline uint64_t pool_limit(const dedupcore_pool *pool) noexcept nogil:
    return dedupcore_table.pool_limit(pool)


cdef inline int pool_page_out(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, void *out, size_t n,
                              size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_page_out(pool, guest, gpns, out, n, wrong)


cdef inline int pool_page_in(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const void *data,
                             size_t n, size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_page_in(pool, guest, gpns, data, n, wrong)


cdef inline int pool_forget(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n,
                            size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_forget(pool, guest, gpns, n, wrong)


cdef inline uint64_t pool_present(const dedupcore_pool *pool, uint32_t guest) noexcept nogil:
    return dedupcore_table.pool_present(pool, guest)


cdef inline uint64_t pool_out(const dedupcore_pool *pool, uint32_t guest) noexcept nogil:
    return dedupcore_table.pool_out(pool, guest)


cdef inline const uint8_t *pool_marks(const dedupcore_pool *pool, uint32_t guest,
                                      uint64_t *n_pages) noexcept nogil:
    return dedupcore_table.pool_marks(pool, guest, n_pages)


cdef inline int pool_take_accessed(dedupcore_pool *pool, uint32_t guest, unsigned by, const uint32_t *gpns,
                                   size_t n, uint8_t *accessed, size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_take_accessed(pool, guest, by, gpns, n, accessed, wrong)


cdef inline int pool_oldest(dedupcore_pool *pool, uint32_t guest, unsigned by, const uint8_t *eligible,
                            uint32_t *gpns, size_t n, size_t *found) noexcept nogil:
    return dedupcore_table.pool_oldest(pool, guest, by, eligible, gpns, n, found)


cdef inline int pool_pick(dedupcore_pool *pool, uint32_t guest, const uint8_t *eligible, uint32_t *gpns, size_t n,
                          size_t *found) noexcept nogil:
    return dedupcore_table.pool_pick(pool, guest, eligible, gpns, n, found)


cdef inline void pool_set_seed(dedupcore_pool *pool, uint64_t seed) noexcept nogil:
    dedupcore_table.pool_set_seed(pool, seed)


cdef inline int draw_accesses(uint64_t key, uint64_t first, const uint32_t *working_set, size_t n_pages,
                              const uint32_t *quantiles, uint64_t write_chance, uint32_t *gpns, uint8_t *writes,
                              size_t n) noexcept nogil:
    return dedupcore_table.draw_accesses(key, first, working_set, n_pages, quantiles, write_chance, gpns, writes, n)


cdef inline int pool_alone(const dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n,
                           uint8_t *alone, size_t *wrong) noexcept nogil:
    return dedupcore_table.pool_alone(pool, guest, gpns, n, alone, wrong)


cdef inline int tlb_create(dedupcore_tlb **tlb, const dedupcore_tlb_geometry *geometry) noexcept nogil:
    return dedupcore_table.tlb_create(tlb, geometry)


cdef inline void tlb_destroy(dedupcore_tlb *tlb) noexcept nogil:
    dedupcore_table.tlb_destroy(tlb)


cdef inline int tlb_map(dedupcore_tlb *tlb, const uint8_t *sizes, const uint8_t *host_sizes, size_t n_ranges,
                        unsigned table_size, size_t *wrong) noexcept nogil:
    return dedupcore_table.tlb_map(tlb, sizes, host_sizes, n_ranges, table_size, wrong)


cdef inline int tlb_access(dedupcore_tlb *tlb, const uint64_t *addresses, size_t n, size_t *wrong) noexcept nogil:
    return dedupcore_table.tlb_access(tlb, addresses, n, wrong)


cdef inline void tlb_count(const dedupcore_tlb *tlb, dedupcore_tlb_counts *counts) noexcept nogil:
    dedupcore_table.tlb_count(tlb, counts)
