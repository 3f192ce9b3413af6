# cython: language_level=3
"""An extension as others would write it: finds duplicates among the frames of a buffer, without the GIL."""
cimport dedupcore
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

dedupcore.import_dedupcore()


def find(const unsigned char[::1] memory, size_t frame_size, unsigned long long seed):
    cdef size_t n = memory.shape[0] // frame_size
    cdef uint32_t[::1] canonical
    cdef dedupcore.dedupcore_key key
    cdef dedupcore.dedupcore_span span
    cdef dedupcore.dedupcore_result result
    cdef int rc
    import array
    canonical = array.array("I", bytes(4 * n))
    span.base = &memory[0]
    span.n_frames = n
    with nogil:
        dedupcore.key_seeded(&key, seed)
        rc = dedupcore.find_duplicates(&span, 1, frame_size, &key, &canonical[0], &result)
    if rc:
        raise ValueError(dedupcore.strerror(rc).decode())
    return list(canonical), result.n_zero, result.n_distinct, result.work.frames_compared


def step_by_step(const unsigned char[::1] memory, size_t frame_size):
    """The job's calls one by one; returns the phases."""
    cdef size_t n = memory.shape[0] // frame_size
    cdef uint32_t[::1] canonical
    cdef dedupcore.dedupcore_key key
    cdef dedupcore.dedupcore_span span
    cdef dedupcore.dedupcore_result result
    cdef dedupcore.dedupcore_job *job = NULL
    cdef uint32_t n_tasks, task
    import array
    canonical = array.array("I", bytes(4 * n))
    span.base = &memory[0]
    span.n_frames = n
    assert dedupcore.key_random(&key) == 0
    assert dedupcore.job_create(&job, &span, 1, frame_size, &key, &canonical[0]) == 0
    assert dedupcore.job_result(job, &result) == dedupcore.DEDUPCORE_ESTATE
    phases = []
    while dedupcore.job_next(job, &n_tasks) == 1:
        phases.append(dedupcore.job_phase(job).decode())
        for task in range(n_tasks):
            assert dedupcore.job_run(job, task) == 0
    assert dedupcore.job_result(job, &result) == 0
    dedupcore.job_destroy(job)
    return phases, list(canonical)


def count(canonicals, guests):
    cdef uint32_t canonical[16]
    cdef uint32_t copies[16]
    cdef uint32_t owners[16]
    cdef uint32_t scratch[16]
    cdef dedupcore.dedupcore_guest held[4]
    cdef dedupcore.dedupcore_guest_counts counts[4]
    cdef int i
    for i in range(16):
        copies[i] = owners[i] = scratch[i] = 0
        canonical[i] = canonicals[i] if i < len(canonicals) else 0
    for i, (first, end) in enumerate(guests):
        held[i].first, held[i].end, held[i].zero_canonical = first, end, <uint32_t>0xffffffff
    with nogil:
        dedupcore.count(canonical, held, 2, copies, owners, scratch, counts)
    return [copies[i] for i in range(len(canonicals))], [counts[i].distinct for i in range(2)]


def first_byte(int fd, size_t size):
    cdef dedupcore.dedupcore_map *map = NULL
    if dedupcore.map_create(&map, fd, size):
        raise OSError("cannot be mapped")
    byte, shrank = (<const unsigned char *>dedupcore.map_base(map))[0], dedupcore.map_shrank(map)
    dedupcore.map_destroy(map)
    return byte, shrank


def hashes(const unsigned char[::1] frames, size_t frame_size):
    cdef uint64_t found[4]
    cdef dedupcore.dedupcore_key key
    cdef int i, n = frames.shape[0] // frame_size
    dedupcore.key_seeded(&key, 1)
    assert dedupcore.hash_frames(&frames[0], n, frame_size, &key, found) == 0
    return [found[i] for i in range(n)]


def like_the_first(const unsigned char[::1] frames, size_t frame_size):
    cdef uint32_t[4] places = [0, 0, 0, 0]
    cdef uint8_t same[4]
    cdef int i, n = frames.shape[0] // frame_size
    assert dedupcore.match_frames(&frames[0], n, frame_size, &frames[0], places, same) == 0
    return [same[i] for i in range(n)]


def simulated_guest(uint64_t key, size_t frame_size):
    """A guest of 4 pages, of which 3 are placed, named and made bytes."""
    cdef uint64_t counts = 3
    cdef uint8_t order = 0
    cdef int64_t fixed = -1
    cdef uint32_t places[3]
    cdef uint64_t common[3]
    cdef uint16_t numbers[3]
    cdef uint64_t value = 0
    cdef uint32_t chance = 0
    cdef uint64_t names[4]
    cdef uint8_t kinds[3]
    cdef uint8_t regions[4]
    cdef dedupcore.dedupcore_template pages
    cdef dedupcore.dedupcore_variation variation
    cdef size_t wrong
    cdef int i
    cdef unsigned char[::1] memory = bytearray(4 * frame_size)
    for i in range(3):
        common[i], numbers[i], kinds[i] = i + 1, 0, 0
    for i in range(4):
        names[i] = regions[i] = 0
    pages.n_pages, pages.names, pages.variables, pages.regions, pages.first = 3, common, numbers, kinds, 0
    variation.n_variables, variation.own, variation.key = 1, 0, key
    variation.values, variation.chances = &value, &chance
    with nogil:
        if dedupcore.place(key, 4, dedupcore.DEDUPCORE_ALWAYS, &counts, &order, &fixed, 1, places):
            with gil:
                raise ValueError
        dedupcore.name_pages(&pages, &variation, places, names, regions, 4, &wrong)
        dedupcore.materialize(names, 4, frame_size, dedupcore.DEDUPCORE_PREFIX, &memory[0])
    return list(names), bytes(memory)[frame_size - 8 :: frame_size], dedupcore.random(key, 0)


def pool(const unsigned char[::1] contents):
    """Guests of a page of 8 equal bytes each, shared: frames in use, frames of the pages, what the last one reads."""
    cdef dedupcore.dedupcore_pool *made = NULL
    cdef dedupcore.dedupcore_pool_counts counts
    cdef dedupcore.dedupcore_flaw flaw
    cdef dedupcore.dedupcore_key key
    cdef dedupcore.dedupcore_work work
    cdef uint32_t guest = 0, gpn = 1, n = <uint32_t>contents.shape[0]
    cdef uint64_t n_pages = 0
    cdef uint8_t page[8]
    cdef uint8_t merged = 0
    cdef size_t wrong
    cdef int i
    dedupcore.key_seeded(&key, 1)
    assert dedupcore.pool_create(&made, n, 8) == 0
    assert dedupcore.pool_memory(made) != NULL
    for guest in range(n):
        for i in range(8):
            page[i] = contents[guest]
        assert dedupcore.pool_add_guest(made, 2, 0, &guest) == 0
        assert dedupcore.pool_write(made, guest, &gpn, page, 1, &wrong) == 0
    gpn = 2
    assert dedupcore.pool_write(made, 0, &gpn, page, 1, &wrong) == dedupcore.DEDUPCORE_EINVAL
    gpn = 0
    assert dedupcore.pool_release(made, 0, &gpn, 1, &wrong) == 0
    gpn = 1
    assert dedupcore.pool_merge(made, 0, &gpn, dedupcore.pool_table(made, 0, &n_pages) + 1, 1, &merged, &wrong) == 0
    assert merged == 1 and n_pages == 2
    with nogil:
        dedupcore.pool_share(made, &key, &work)
        dedupcore.pool_read(made, n - 1, &gpn, page, 1, &wrong)
        dedupcore.pool_count(made, &counts)
    assert dedupcore.pool_check(made, &flaw) == 0
    tables = [dedupcore.pool_table(made, guest, NULL)[1] for guest in range(n)]
    assert dedupcore.pool_table(made, 0, NULL)[0] == dedupcore.DEDUPCORE_ABSENT
    dedupcore.pool_destroy(made)
    return counts.in_use, tables, bytes(page[:8])


def cpu():
    return dedupcore.cpu_used(), dedupcore.cpu_detected(), dedupcore.cpu_name(dedupcore.DEDUPCORE_CPU_AVX2).decode()


def large_pages():
    """Two equal large pages of names, shared, one broken and rebuilt: frames in use after each step, and hints."""
    cdef dedupcore.dedupcore_pool *made = NULL
    cdef dedupcore.dedupcore_pool_counts counts
    cdef dedupcore.dedupcore_key key
    cdef dedupcore.dedupcore_large_hint hints[2]
    cdef uint32_t guest = 0, gpn = 1, number = 0
    cdef uint64_t n_ranges = 0
    cdef uint8_t rebuilt = 0
    cdef uint8_t page[8]
    cdef size_t wrong
    page[:] = [1, 2, 3, 4, 5, 6, 7, 8]
    used = []
    dedupcore.key_seeded(&key, 1)
    assert dedupcore.pool_create(&made, 3 * dedupcore.DEDUPCORE_LARGE_PAGE, 8) == 0
    for _ in range(2):
        assert dedupcore.pool_add_guest(made, dedupcore.DEDUPCORE_LARGE_PAGE, 0, &guest) == 0
        assert dedupcore.pool_use_large(made, guest) == 0
        assert dedupcore.pool_write(made, guest, &gpn, page, 1, &wrong) == 0
    with nogil:
        dedupcore.pool_large_hints(made, &key, hints, 2, NULL)
        dedupcore.pool_share_large(made, &key, NULL)
        dedupcore.pool_count(made, &counts)
    used.append(counts.in_use)
    assert dedupcore.pool_break_large(made, 1, &number, 1, &wrong) == 0
    assert dedupcore.pool_large(made, 1, &n_ranges)[0] == 0 and n_ranges == 1
    gpn = 0
    assert dedupcore.pool_write(made, 1, &gpn, page, 1, &wrong) == 0
    assert dedupcore.pool_rebuild_large(made, 1, &number, 1, dedupcore.DEDUPCORE_LARGE_PAGE, &rebuilt, &wrong) == 0
    dedupcore.pool_count(made, &counts)
    used.append(counts.in_use)
    dedupcore.pool_destroy(made)
    return used, [(hint.guest, hint.range, hint.zero, hint.shareable) for hint in hints], rebuilt


def policies():
    """A guest with two equal pages of names under each policy: frames in use, and pages scanned."""
    cdef dedupcore.dedupcore_pool *made = NULL
    cdef dedupcore.dedupcore_pool_counts counts
    cdef dedupcore.dedupcore_scan_counts scanned
    cdef dedupcore.dedupcore_policy policy
    cdef dedupcore.dedupcore_key key
    cdef uint32_t guest = 0
    cdef uint64_t left
    cdef int ended, i
    cdef uint32_t *gpns = [0, 1]
    cdef uint64_t *names = [7, 7]
    cdef size_t wrong
    found = []
    dedupcore.key_seeded(&key, 1)
    for kind in (dedupcore.DEDUPCORE_POLICY_DIRTY, dedupcore.DEDUPCORE_POLICY_KSM, dedupcore.DEDUPCORE_POLICY_ESX):
        policy.kind, policy.max_page_sharing, policy.use_zero_pages, policy.smart_scan, policy.seed = kind, 2, 0, 0, 1
        assert dedupcore.pool_create(&made, 4, 8) == 0
        assert dedupcore.pool_set_policy(made, &policy, &key) == 0
        assert dedupcore.pool_add_guest(made, 2, 0, &guest) == 0
        assert dedupcore.pool_write(made, guest, gpns, names, 2, &wrong) == 0
        with nogil:
            for i in range(2):
                left = 2
                if policy.kind == dedupcore.DEDUPCORE_POLICY_ESX:
                    dedupcore.pool_scan_guest(made, guest, &left, &ended)
                else:
                    dedupcore.pool_scan(made, 100, &ended)
            dedupcore.pool_count(made, &counts)
            dedupcore.pool_scan_count(made, &scanned)
        assert ended
        found.append((counts.in_use, scanned.pages_scanned))
        dedupcore.pool_destroy(made)
    return found


def paging():
    """A guest of three pages on a host with frames for two: what is done, which page goes, and what it comes back as."""
    cdef dedupcore.dedupcore_pool *made = NULL
    cdef dedupcore.dedupcore_touched touched
    cdef uint32_t guest = 0
    cdef uint32_t[3] gpns = [0, 1, 2]
    cdef uint32_t victim = 9
    cdef uint8_t[3] writes = [1, 1, 1]
    cdef uint8_t[3] accessed
    cdef uint8_t alone = 0
    cdef uint64_t[3] names = [7, 8, 9]
    cdef uint64_t name = 0, n_pages = 0
    cdef size_t wrong, found = 0
    assert dedupcore.pool_create(&made, 3, 8) == 0
    assert dedupcore.pool_add_guest(made, 3, 0, &guest) == 0
    dedupcore.pool_set_seed(made, 1)
    assert dedupcore.pool_set_limit(made, 2) == 0 and dedupcore.pool_limit(made) == 2
    with nogil:
        dedupcore.pool_touch(made, 0, gpns, writes, names, 3, &touched, &wrong)
    done = [touched.done, touched.first_touches, touched.cow_breaks]
    assert dedupcore.pool_take_accessed(made, 0, dedupcore.DEDUPCORE_ACCESSED_BY_GUEST, gpns, 3, accessed, &wrong) == 0
    assert dedupcore.pool_oldest(made, 0, dedupcore.DEDUPCORE_ACCESSED_BY_GUEST, NULL, &victim, 1, &found) == 0
    assert found == 1 and victim == 0
    assert dedupcore.pool_pick(made, 0, NULL, gpns, 3, &found) == 0 and found == 2
    assert dedupcore.pool_page_out(made, 0, &victim, &name, 1, &wrong) == 0
    assert dedupcore.pool_marks(made, 0, &n_pages)[0] & dedupcore.DEDUPCORE_OUT and n_pages == 3
    out = dedupcore.pool_out(made, 0)
    assert dedupcore.pool_present(made, 0) == 1
    assert dedupcore.pool_page_in(made, 0, &victim, &name, 1, &wrong) == 0
    assert dedupcore.pool_forget(made, 0, &victim, 1, &wrong) == dedupcore.DEDUPCORE_EINVAL
    assert dedupcore.pool_alone(made, 0, &victim, 1, &alone, &wrong) == 0 and alone == 1
    dedupcore.pool_destroy(made)
    return done, [accessed[i] for i in range(3)], out, name


def accesses(uint64_t key):
    """Two accesses to a working set of one page, and the quantiles that lead there."""
    cdef uint32_t[65537] quantiles
    cdef uint32_t page = 9
    cdef uint32_t[2] gpns
    cdef uint8_t[2] writes
    for k in range(dedupcore.DEDUPCORE_QUANTILES + 1):
        quantiles[k] = 0
    with nogil:
        dedupcore.draw_accesses(key, 0, &page, 1, quantiles, 0, gpns, writes, 2)
    return [gpns[i] for i in range(2)], [writes[i] for i in range(2)]


def references(uint8_t size, uint8_t host):
    """Page table entries that two accesses to a page of that size, on one of that size, read without caches."""
    cdef dedupcore.dedupcore_tlb *made = NULL
    cdef dedupcore.dedupcore_tlb_geometry geometry
    cdef dedupcore.dedupcore_tlb_counts counts
    cdef uint64_t[2] addresses = [0, 4097]
    cdef uint64_t beyond = 1 << 21
    cdef size_t wrong = 9
    cdef int i
    for i in range(16):
        geometry.caches[i].entries = 0
    for i in range(3):
        geometry.l1[i] = geometry.l2[i] = geometry.walk[i] = geometry.host_walk[i] = dedupcore.DEDUPCORE_NO_CACHE
        geometry.l2_as[i] = i
        geometry.data[i].entries = 0
    geometry.nested = 16
    assert dedupcore.tlb_create(&made, &geometry) == dedupcore.DEDUPCORE_EINVAL and made == NULL
    geometry.nested = dedupcore.DEDUPCORE_NO_CACHE
    assert dedupcore.tlb_create(&made, &geometry) == 0
    assert dedupcore.tlb_map(made, &size, &host, 1, host, &wrong) == 0 and wrong == 1
    assert dedupcore.tlb_access(made, &beyond, 1, &wrong) == dedupcore.DEDUPCORE_EINVAL and wrong == 0
    with nogil:
        dedupcore.tlb_access(made, addresses, 2, &wrong)
        dedupcore.tlb_count(made, &counts)
    dedupcore.tlb_destroy(made)
    return counts.walks[min(size, host)], counts.references[0] + counts.references[1]
