# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""The binding of the C core: buffers in, counts out. Nothing here computes; pagedup.sharing has the API for people."""
cimport cython
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release
from cpython.buffer cimport PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from dedupcore cimport (
    DEDUPCORE_ABSENT, DEDUPCORE_ACCESSED_BY_GUEST, DEDUPCORE_ACCESSED_BY_HOST, DEDUPCORE_ALWAYS, DEDUPCORE_EBROKEN, DEDUPCORE_ECHANGED, DEDUPCORE_EFULL, DEDUPCORE_EINVAL,
    DEDUPCORE_ENOMEM, DEDUPCORE_ESYS, DEDUPCORE_ETOOBIG, DEDUPCORE_LARGE_PAGE, DEDUPCORE_MAX_DOMAINS,
    DEDUPCORE_MAX_LARGE_FRAME, DEDUPCORE_MAX_ORDER, DEDUPCORE_MIXED, DEDUPCORE_NOISE, DEDUPCORE_ONE_BYTE, DEDUPCORE_OUT,
    DEDUPCORE_POLICY_DIRTY, DEDUPCORE_POLICY_ESX, DEDUPCORE_POLICY_KSM, DEDUPCORE_PREFIX,
    DEDUPCORE_DATA_CACHES, DEDUPCORE_MAX_CACHES, DEDUPCORE_NO_CACHE, DEDUPCORE_PAGE_SIZES, DEDUPCORE_QUANTILES,
    DEDUPCORE_SPARSE,
    dedupcore_flaw, dedupcore_guest, dedupcore_guest_counts, dedupcore_job, dedupcore_key, dedupcore_large_hint,
    dedupcore_map, dedupcore_policy, dedupcore_pool, dedupcore_pool_counts, dedupcore_result, dedupcore_scan_counts,
    dedupcore_span, dedupcore_template, dedupcore_tlb, dedupcore_tlb_counts, dedupcore_tlb_geometry, dedupcore_touched, dedupcore_variation, dedupcore_work,
)

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple


cdef extern from "dedupcore_api.h" nogil:
    const char *DEDUPCORE_VERSION
    int DEDUPCORE_ABI_VERSION
    const char *DEDUPCORE_CAPSULE
    const char *dedupcore_strerror(int error)
    unsigned dedupcore_cpu_detected()
    unsigned dedupcore_cpu_used()
    const char *dedupcore_cpu_name(unsigned rung)
    int dedupcore_key_random(dedupcore_key *key)
    void dedupcore_key_seeded(dedupcore_key *key, uint64_t seed)
    int dedupcore_job_create(dedupcore_job **job, const dedupcore_span *spans, size_t n_spans, size_t frame_size,
                             const dedupcore_key *key, uint32_t *canonical)
    int dedupcore_job_next(dedupcore_job *job, uint32_t *n_tasks)
    const char *dedupcore_job_phase(const dedupcore_job *job)
    int dedupcore_job_run(dedupcore_job *job, uint32_t task)
    int dedupcore_job_result(const dedupcore_job *job, dedupcore_result *result)
    void dedupcore_job_destroy(dedupcore_job *job)
    void dedupcore_count(const uint32_t *canonical, const dedupcore_guest *guests, size_t n_guests, uint32_t *copies,
                         uint32_t *owners, uint32_t *scratch, dedupcore_guest_counts *counts)
    int dedupcore_map_create(dedupcore_map **map, int fd, size_t size)
    const void *dedupcore_map_base(const dedupcore_map *map)
    int dedupcore_map_shrank(const dedupcore_map *map)
    void dedupcore_map_destroy(dedupcore_map *map)
    int dedupcore_hash_frames(const void *frames, size_t n, size_t frame_size, const dedupcore_key *key, uint64_t *hashes)
    int dedupcore_match_frames(const void *frames, size_t n, size_t frame_size, const void *originals,
                               const uint32_t *places, uint8_t *same)
    uint64_t dedupcore_random(uint64_t key, uint64_t i)
    int dedupcore_place(uint64_t key, uint64_t n_pages, uint64_t fragmentation, const uint64_t *counts,
                        const uint8_t *max_orders, const int64_t *fixed, size_t n_regions, uint32_t *places)
    int dedupcore_name_pages(const dedupcore_template *pages, const dedupcore_variation *variation,
                             const uint32_t *places, uint64_t *names, uint8_t *regions, size_t n_pages, size_t *wrong)
    int dedupcore_draw_accesses(uint64_t key, uint64_t first, const uint32_t *working_set, size_t n_pages,
                                const uint32_t *quantiles, uint64_t write_chance, uint32_t *gpns, uint8_t *writes, size_t n)
    int dedupcore_materialize(const uint64_t *names, size_t n, size_t frame_size, unsigned texture, void *out)
    int dedupcore_pool_create(dedupcore_pool **pool, uint64_t capacity, size_t frame_size)
    void dedupcore_pool_destroy(dedupcore_pool *pool)
    const void *dedupcore_pool_memory(const dedupcore_pool *pool)
    int dedupcore_pool_add_guest(dedupcore_pool *pool, uint64_t n_pages, uint32_t domain, uint32_t *guest)
    const uint32_t *dedupcore_pool_table(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages)
    int dedupcore_pool_write(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const void *data, size_t n,
                             size_t *wrong)
    int dedupcore_pool_read(const dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, void *out, size_t n,
                            size_t *wrong)
    int dedupcore_pool_release(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n, size_t *wrong)
    int dedupcore_pool_merge(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const uint32_t *into, size_t n,
                             uint8_t *merged, size_t *wrong)
    int dedupcore_pool_share(dedupcore_pool *pool, const dedupcore_key *key, dedupcore_work *work)
    void dedupcore_pool_count(const dedupcore_pool *pool, dedupcore_pool_counts *counts)
    int dedupcore_pool_check(const dedupcore_pool *pool, dedupcore_flaw *flaw)
    int dedupcore_pool_set_policy(dedupcore_pool *pool, const dedupcore_policy *policy, const dedupcore_key *key)
    int dedupcore_pool_scan(dedupcore_pool *pool, uint64_t n_pages, int *ended)
    int dedupcore_pool_scan_guest(dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages, int *ended)
    void dedupcore_pool_scan_count(const dedupcore_pool *pool, dedupcore_scan_counts *counts)
    int dedupcore_pool_use_large(dedupcore_pool *pool, uint32_t guest)
    const uint8_t *dedupcore_pool_large(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_ranges)
    int dedupcore_pool_break_large(dedupcore_pool *pool, uint32_t guest, const uint32_t *ranges, size_t n, size_t *wrong)
    int dedupcore_pool_rebuild_large(dedupcore_pool *pool, uint32_t guest, const uint32_t *ranges, size_t n,
                                     uint32_t max_shared, uint8_t *rebuilt, size_t *wrong)
    int dedupcore_pool_share_large(dedupcore_pool *pool, const dedupcore_key *key, dedupcore_work *work)
    int dedupcore_pool_large_hints(const dedupcore_pool *pool, const dedupcore_key *key, dedupcore_large_hint *hints,
                                   size_t n, dedupcore_work *work)
    int dedupcore_pool_touch(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const uint8_t *writes,
                             const void *data, size_t n, dedupcore_touched *touched, size_t *wrong)
    int dedupcore_pool_set_limit(dedupcore_pool *pool, uint64_t n_frames)
    uint64_t dedupcore_pool_limit(const dedupcore_pool *pool)
    int dedupcore_pool_page_out(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, void *out, size_t n,
                                size_t *wrong)
    int dedupcore_pool_page_in(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, const void *data, size_t n,
                               size_t *wrong)
    int dedupcore_pool_forget(dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n, size_t *wrong)
    uint64_t dedupcore_pool_present(const dedupcore_pool *pool, uint32_t guest)
    uint64_t dedupcore_pool_out(const dedupcore_pool *pool, uint32_t guest)
    const uint8_t *dedupcore_pool_marks(const dedupcore_pool *pool, uint32_t guest, uint64_t *n_pages)
    int dedupcore_pool_take_accessed(dedupcore_pool *pool, uint32_t guest, unsigned by, const uint32_t *gpns,
                                     size_t n, uint8_t *accessed, size_t *wrong)
    int dedupcore_pool_oldest(dedupcore_pool *pool, uint32_t guest, unsigned by, const uint8_t *eligible,
                              uint32_t *gpns, size_t n, size_t *found)
    int dedupcore_pool_pick(dedupcore_pool *pool, uint32_t guest, const uint8_t *eligible, uint32_t *gpns, size_t n,
                            size_t *found)
    void dedupcore_pool_set_seed(dedupcore_pool *pool, uint64_t seed)
    int dedupcore_pool_alone(const dedupcore_pool *pool, uint32_t guest, const uint32_t *gpns, size_t n,
                             uint8_t *alone, size_t *wrong)
    int dedupcore_tlb_create(dedupcore_tlb **tlb, const dedupcore_tlb_geometry *geometry)
    void dedupcore_tlb_destroy(dedupcore_tlb *tlb)
    int dedupcore_tlb_map(dedupcore_tlb *tlb, const uint8_t *sizes, const uint8_t *host_sizes, size_t n_ranges,
                          unsigned table_size, size_t *wrong)
    int dedupcore_tlb_access(dedupcore_tlb *tlb, const uint64_t *addresses, size_t n, size_t *wrong)
    void dedupcore_tlb_count(const dedupcore_tlb *tlb, dedupcore_tlb_counts *counts)


cdef extern from *:
    """
    #include <stdatomic.h>
    #include <time.h>

    /* The phase's tasks, handed out one by one to whichever thread asks. */
    typedef struct {
        dedupcore_job *job;
        uint32_t n_tasks;
        _Atomic(uint32_t) next;
        _Atomic(int) error;
    } task_queue;

    static void queue_start(task_queue *queue, dedupcore_job *job, uint32_t n_tasks)
    {
        queue->job = job;
        queue->n_tasks = n_tasks;
        atomic_store(&queue->next, 0);
        atomic_store(&queue->error, 0);
    }

    static void queue_stop(task_queue *queue)
    {
        atomic_store(&queue->next, queue->n_tasks);
    }

    static uint32_t queue_done(task_queue *queue)
    {
        uint32_t next = atomic_load(&queue->next);
        return next < queue->n_tasks ? next : queue->n_tasks;
    }

    /* Runs the next task; 0 when there is none left. */
    static int queue_run_one(task_queue *queue)
    {
        uint32_t task = atomic_load(&queue->next);
        do {
            if (task >= queue->n_tasks)
                return 0;
        } while (!atomic_compare_exchange_weak(&queue->next, &task, task + 1));
        int rc = dedupcore_job_run(queue->job, task);
        if (rc) {
            atomic_store(&queue->error, rc);
            queue_stop(queue);
        }
        return 1;
    }

    static void queue_run_all(task_queue *queue)
    {
        while (queue_run_one(queue))
            ;
    }

    /* Runs tasks for about so long; 0 when there is none left. */
    static int queue_run_for(task_queue *queue, double seconds)
    {
        struct timespec start, now;
        clock_gettime(CLOCK_MONOTONIC, &start);
        do {
            if (!queue_run_one(queue))
                return 0;
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while ((double)(now.tv_sec - start.tv_sec) + 1e-9 * (double)(now.tv_nsec - start.tv_nsec) < seconds);
        return 1;
    }

    static int queue_error(task_queue *queue) { return atomic_load(&queue->error); }

    static const dedupcore_api api_table = {
        .abi_version = DEDUPCORE_ABI_VERSION,
        .struct_size = sizeof(dedupcore_api),
        .strerror = dedupcore_strerror,
        .cpu_detected = dedupcore_cpu_detected,
        .cpu_used = dedupcore_cpu_used,
        .cpu_name = dedupcore_cpu_name,
        .key_random = dedupcore_key_random,
        .key_seeded = dedupcore_key_seeded,
        .job_create = dedupcore_job_create,
        .job_next = dedupcore_job_next,
        .job_phase = dedupcore_job_phase,
        .job_run = dedupcore_job_run,
        .job_result = dedupcore_job_result,
        .job_destroy = dedupcore_job_destroy,
        .find_duplicates = dedupcore_find_duplicates,
        .count = dedupcore_count,
        .map_create = dedupcore_map_create,
        .map_base = dedupcore_map_base,
        .map_shrank = dedupcore_map_shrank,
        .map_destroy = dedupcore_map_destroy,
        .hash_frames = dedupcore_hash_frames,
        .match_frames = dedupcore_match_frames,
        .random = dedupcore_random,
        .place = dedupcore_place,
        .name_pages = dedupcore_name_pages,
        .materialize = dedupcore_materialize,
        .pool_create = dedupcore_pool_create,
        .pool_destroy = dedupcore_pool_destroy,
        .pool_memory = dedupcore_pool_memory,
        .pool_add_guest = dedupcore_pool_add_guest,
        .pool_table = dedupcore_pool_table,
        .pool_write = dedupcore_pool_write,
        .pool_read = dedupcore_pool_read,
        .pool_release = dedupcore_pool_release,
        .pool_merge = dedupcore_pool_merge,
        .pool_share = dedupcore_pool_share,
        .pool_count = dedupcore_pool_count,
        .pool_check = dedupcore_pool_check,
        .pool_set_policy = dedupcore_pool_set_policy,
        .pool_scan = dedupcore_pool_scan,
        .pool_scan_guest = dedupcore_pool_scan_guest,
        .pool_scan_count = dedupcore_pool_scan_count,
        .pool_use_large = dedupcore_pool_use_large,
        .pool_large = dedupcore_pool_large,
        .pool_break_large = dedupcore_pool_break_large,
        .pool_rebuild_large = dedupcore_pool_rebuild_large,
        .pool_share_large = dedupcore_pool_share_large,
        .pool_large_hints = dedupcore_pool_large_hints,
        .pool_touch = dedupcore_pool_touch,
        .pool_set_limit = dedupcore_pool_set_limit,
        .pool_limit = dedupcore_pool_limit,
        .pool_page_out = dedupcore_pool_page_out,
        .pool_page_in = dedupcore_pool_page_in,
        .pool_forget = dedupcore_pool_forget,
        .pool_present = dedupcore_pool_present,
        .pool_out = dedupcore_pool_out,
        .pool_marks = dedupcore_pool_marks,
        .pool_take_accessed = dedupcore_pool_take_accessed,
        .pool_oldest = dedupcore_pool_oldest,
        .pool_pick = dedupcore_pool_pick,
        .pool_set_seed = dedupcore_pool_set_seed,
        .draw_accesses = dedupcore_draw_accesses,
        .pool_alone = dedupcore_pool_alone,
        .tlb_create = dedupcore_tlb_create,
        .tlb_destroy = dedupcore_tlb_destroy,
        .tlb_map = dedupcore_tlb_map,
        .tlb_access = dedupcore_tlb_access,
        .tlb_count = dedupcore_tlb_count,
    };
    """
    ctypedef struct task_queue:
        uint32_t n_tasks
    void queue_start(task_queue *queue, dedupcore_job *job, uint32_t n_tasks) noexcept nogil
    void queue_stop(task_queue *queue) noexcept nogil
    uint32_t queue_done(task_queue *queue) noexcept nogil
    int queue_run_for(task_queue *queue, double seconds) noexcept nogil
    void queue_run_all(task_queue *queue) noexcept nogil
    int queue_error(task_queue *queue) noexcept nogil
    const void *api_address "(&api_table)"


api = PyCapsule_New(<void *>api_address, DEDUPCORE_CAPSULE, NULL)
version = DEDUPCORE_VERSION.decode()
abi_version = DEDUPCORE_ABI_VERSION


# --- the CPU -------------------------------------------------------------------------------------------------------


cdef list _names(unsigned rungs):
    cdef unsigned bit
    return [dedupcore_cpu_name(1 << bit).decode() for bit in range(32) if rungs >> bit & 1]


def cpu_detected():
    """The instruction sets above the baseline that this CPU offers and dedupcore can use, such as ["avx2"]."""
    return _names(dedupcore_cpu_detected())


def cpu_used():
    """Those of them that are in use: DEDUPCORE_DISABLE_CPU, a list of names with commas or "all", turns some off."""
    return _names(dedupcore_cpu_used())


# --- duplicates ----------------------------------------------------------------------------------------------------


class Work(NamedTuple):
    """Exact counters of what was done, the same for any number of threads and any CPU; see dedupcore.h."""

    frames_signed: int
    bytes_signed: int
    frames_hashed: int
    bytes_hashed: int
    frames_compared: int
    bytes_compared: int
    frames_not_read: int


class Result(NamedTuple):
    """What find_duplicates found: counts of frames; zero_canonical is None if no frame is zero."""

    n_frames: int
    n_zero: int
    n_distinct: int
    zero_canonical: int | None
    work: Work


cdef dedupcore_key process_key
cdef bint have_key = False
_key_lock = threading.Lock()


def _after_fork():
    """A thread that held the lock is not in the child."""
    global _key_lock
    _key_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


cdef int _check(int rc) except -1:
    if rc == DEDUPCORE_ENOMEM:
        raise MemoryError("dedupcore: out of memory")
    if rc == DEDUPCORE_ECHANGED:
        raise RuntimeError("the memory changes while it is read; take a copy of it, and group that")
    if rc == DEDUPCORE_ESYS:
        PyErr_SetFromErrno(OSError)
    elif rc < 0:
        raise ValueError(f"dedupcore: {dedupcore_strerror(rc).decode()}")
    return rc


cdef int _take_key(dedupcore_key *key) except -1:
    """A copy of the process's secret key, drawn at its first use: set_key may replace it while a job runs."""
    global have_key
    with _key_lock:
        if not have_key:
            _check(dedupcore_key_random(&process_key))
            have_key = True
        key[0] = process_key
    return 0


def set_key(seed):
    """Key all later calls of this process by a number, so that work counters repeat to the last digit; None: anew."""
    global have_key
    with _key_lock:
        if seed is None:
            _check(dedupcore_key_random(&process_key))
        else:
            dedupcore_key_seeded(&process_key, seed)
        have_key = True


cdef class _Spans:
    """Spans as C wants them; holds the buffers that they point into."""

    cdef dedupcore_span *spans
    cdef Py_buffer *views
    cdef size_t n_spans, n_views
    cdef uint64_t n_frames

    def __cinit__(self, spans, size_t frame_size):
        cdef uint64_t offset, n_frames
        cdef Py_buffer *view
        items = list(spans)
        self.spans = <dedupcore_span *>calloc(len(items) + 1, sizeof(dedupcore_span))
        self.views = <Py_buffer *>calloc(len(items) + 1, sizeof(Py_buffer))
        if not self.spans or not self.views:
            raise MemoryError
        for buffer, offset, n_frames in items:
            if buffer is not None:
                view = self.views + self.n_views
                PyObject_GetBuffer(buffer, view, PyBUF_C_CONTIGUOUS)
                self.n_views += 1
                if offset > <uint64_t>view.len or n_frames > (view.len - offset) // frame_size:
                    raise ValueError(f"a span of {n_frames} frames of {frame_size} bytes from byte {offset} on"
                                     f" does not fit its buffer of {view.len} bytes")
                self.spans[self.n_spans].base = <const char *>view.buf + offset
            self.spans[self.n_spans].n_frames = n_frames
            self.n_spans += 1
            self.n_frames += n_frames

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.n_views):
            PyBuffer_Release(self.views + i)
        free(self.views)
        free(self.spans)


cdef class _Job:
    """A job with all that it points into, so that a thread at work keeps it alive, whatever becomes of the call."""

    cdef dedupcore_job *job
    cdef dedupcore_key key
    cdef _Spans memory
    cdef Py_buffer canonical
    cdef task_queue tasks

    def __cinit__(self, spans, canonical, size_t frame_size):
        self.memory = _Spans(spans, frame_size)
        PyObject_GetBuffer(canonical, &self.canonical, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT)
        if self.canonical.itemsize != 4 or <uint64_t>(self.canonical.len // 4) != self.memory.n_frames:
            raise ValueError(f"canonical must hold {self.memory.n_frames} items of 4 bytes, not"
                             f" {self.canonical.len // self.canonical.itemsize} of {self.canonical.itemsize}")
        _take_key(&self.key)
        _check(dedupcore_job_create(&self.job, self.memory.spans, self.memory.n_spans, frame_size, &self.key,
                                    <uint32_t *>self.canonical.buf))

    def __dealloc__(self):
        with nogil:
            dedupcore_job_destroy(self.job)
        PyBuffer_Release(&self.canonical)  # does nothing if there is none

    def work(self):
        """Run tasks until none is left."""
        with nogil:
            queue_run_all(&self.tasks)

    cdef bint next_phase(self) except -1:
        cdef uint32_t n_tasks = 0
        cdef int rc
        with nogil:
            rc = dedupcore_job_next(self.job, &n_tasks)
        queue_start(&self.tasks, self.job, n_tasks)
        return _check(rc)

    cdef int run_phase(self, pool, int helpers, progress) except -1:
        """Run its tasks, here and on the pool's threads; stop them and raise when a signal or a task says so."""
        cdef bint more = True
        cdef uint32_t done = 0, n_tasks = self.tasks.n_tasks
        phase = dedupcore_job_phase(self.job).decode()
        futures = []
        try:
            for _ in range(helpers):
                try:
                    futures.append(pool.submit(self.work))
                except RuntimeError:  # no more threads can be started: go on with those that are
                    break
            while more:
                done = queue_done(&self.tasks)
                if progress is not None:
                    progress(phase, done, n_tasks)
                PyErr_CheckSignals()
                with nogil:
                    more = queue_run_for(&self.tasks, 0.05)
        finally:
            queue_stop(&self.tasks)
            for future in futures:
                future.result()
        _check(queue_error(&self.tasks))
        if progress is not None and done < n_tasks:
            progress(phase, n_tasks, n_tasks)
        return 0


def find_duplicates(spans, canonical, *, size_t frame_size, int threads=1, progress=None):
    """Group equal frames.

    spans: (buffer, offset in bytes, number of frames) each, buffer None for frames known to be zero. canonical: a
    writable contiguous buffer of uint32, one a frame; receives each frame's canonical frame number. progress(phase,
    done, total) is called from this thread, which works, too; what it raises ends the call. Returns a Result. Raises
    ValueError for a frame size, a span or a number of threads out of range, MemoryError, and RuntimeError when the
    memory changes so much meanwhile that no result can be had.
    """
    cdef _Job job
    cdef dedupcore_result r
    cdef int helpers
    if frame_size == 0 or threads < 1:
        raise ValueError(f"dedupcore: frame_size is {frame_size} and threads is {threads}; both must be 1 or more")
    job = _Job(spans, canonical, frame_size)
    pool = None
    try:
        while job.next_phase():
            helpers = <int>min(<uint32_t>threads, job.tasks.n_tasks) - 1
            if helpers > 0 and pool is None:
                pool = ThreadPoolExecutor(threads - 1, "dedupcore")
            job.run_phase(pool, helpers, progress)
    finally:
        if pool is not None:
            pool.shutdown()
    dedupcore_job_result(job.job, &r)
    return Result(
        r.n_frames, r.n_zero, r.n_distinct, None if r.n_zero == 0 else r.zero_canonical,
        Work(r.work.frames_signed, r.work.bytes_signed, r.work.frames_hashed, r.work.bytes_hashed,
             r.work.frames_compared, r.work.bytes_compared, r.work.frames_not_read),
    )


def count(const uint32_t[::1] canonical, guests, uint32_t[::1] copies, uint32_t[::1] owners):
    """Count the copies and the owners of each class; see dedupcore_count in dedupcore.h.

    guests: (first frame, end, canonical zero frame or None) each. copies and owners: uint32, one a frame, zero at the
    call. Returns (zero, distinct, shared_across) for each guest. Raises ValueError when sizes do not fit.
    """
    cdef Py_ssize_t n = canonical.shape[0], n_guests = len(guests), i
    cdef uint32_t highest = 0
    cdef dedupcore_guest *c_guests = <dedupcore_guest *>calloc(n_guests + 1, sizeof(dedupcore_guest))
    cdef dedupcore_guest_counts *counts = <dedupcore_guest_counts *>calloc(n_guests + 1, sizeof(dedupcore_guest_counts))
    cdef uint32_t *scratch = <uint32_t *>calloc(n + 1, sizeof(uint32_t))
    cdef const uint32_t *c_canonical = &canonical[0] if n else NULL
    cdef uint32_t *c_copies = &copies[0] if copies.shape[0] else NULL
    cdef uint32_t *c_owners = &owners[0] if owners.shape[0] else NULL
    try:
        if not c_guests or not counts or not scratch:
            raise MemoryError
        if copies.shape[0] != n or owners.shape[0] != n:
            raise ValueError(f"copies and owners must have {n} items, one a frame")
        with nogil:
            for i in range(n):
                highest = max(highest, c_canonical[i])
        if n and highest >= <uint64_t>n:
            raise ValueError(f"canonical has the frame {highest}, but there are {n} frames")
        for i, (first, end, zero) in enumerate(guests):
            if not 0 <= first <= end <= n:
                raise ValueError(f"guest {i} has frames {first} to {end}, but there are {n}")
            c_guests[i].first = first
            c_guests[i].end = end
            c_guests[i].zero_canonical = <uint32_t>0xffffffff if zero is None else zero
        with nogil:
            dedupcore_count(c_canonical, c_guests, n_guests, c_copies, c_owners, scratch, counts)
        return [(counts[i].zero, counts[i].distinct, counts[i].shared_across) for i in range(n_guests)]
    finally:
        free(c_guests)
        free(counts)
        free(scratch)


# --- frames that stream by -----------------------------------------------------------------------------------------


cdef int _check_frames(size_t n_bytes, size_t n, size_t frame_size) except -1:
    if not frame_size or n_bytes % frame_size or n_bytes // frame_size != n:
        raise ValueError(f"frames must be {n} of {frame_size} bytes each, not {n_bytes} bytes")
    return 0


def hash_frames(const uint8_t[::1] frames, size_t frame_size, uint64_t[::1] hashes, seed=None):
    """Hash each frame, 0 for one of zero bytes, under this process's key; see dedupcore_hash_frames in dedupcore.h.

    frames: len(hashes) frames of frame_size bytes, one behind the other. After set_key the same frame has another hash.
    seed: of a key to use instead, 0 to 2**64 - 1. Raises ValueError when sizes do not fit. Releases the GIL.
    """
    cdef size_t n = hashes.shape[0]
    cdef dedupcore_key key
    cdef int rc
    _check_frames(frames.shape[0], n, frame_size)
    if n == 0:
        return
    if seed is None:
        _take_key(&key)
    else:
        dedupcore_key_seeded(&key, seed)
    with nogil:
        rc = dedupcore_hash_frames(&frames[0], n, frame_size, &key, &hashes[0])
    _check(rc)


def match_frames(const uint8_t[::1] frames, size_t frame_size, const uint8_t[::1] originals, const uint32_t[::1] places,
                 uint8_t[::1] same):
    """Compare frame i with frame places[i] of `originals`: same[i] becomes 1 or 0; see dedupcore_match_frames.

    frames: len(same) frames of frame_size bytes, one behind the other, as `originals` are. Raises ValueError when sizes or
    places do not fit. Releases the GIL.
    """
    cdef size_t n = same.shape[0], i
    cdef size_t n_originals
    cdef bint fits = True
    cdef int rc = 0
    _check_frames(frames.shape[0], n, frame_size)
    if <size_t>places.shape[0] != n:
        raise ValueError(f"there must be {n} places, one a frame, not {places.shape[0]}")
    if n == 0:
        return
    n_originals = originals.shape[0] // frame_size
    with nogil:
        for i in range(n):
            fits = fits and places[i] < n_originals
        if fits:
            rc = dedupcore_match_frames(&frames[0], n, frame_size, &originals[0], &places[0], &same[0])
    if not fits:
        raise ValueError(f"a place lies beyond the {n_originals} originals")
    _check(rc)


# --- simulated guests ----------------------------------------------------------------------------------------------

MAX_ORDER = DEDUPCORE_MAX_ORDER
SPARSE = DEDUPCORE_SPARSE
NOISE = DEDUPCORE_NOISE
ONE_BYTE = DEDUPCORE_ONE_BYTE
PREFIX = DEDUPCORE_PREFIX
MIXED = DEDUPCORE_MIXED


def random_numbers(uint64_t key, uint64_t[::1] out, uint64_t first=0):
    """Write numbers `first`, first + 1 and so on of the stream `key` to out; see dedupcore_random in dedupcore.h."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(out.shape[0]):
            out[i] = dedupcore_random(key, first + <uint64_t>i)


def place(uint64_t key, uint64_t n_pages, double fragmentation, counts, const uint8_t[::1] max_orders,
          const int64_t[::1] fixed, uint32_t[::1] places):
    """Place regions of pages in a memory of n_pages, as a buddy allocator would; see dedupcore_place in dedupcore.h.

    fragmentation: the probability, 0 to 1, that a block of free memory is split. counts (int64 or uint64), max_orders,
    fixed (-1: anywhere): one item a region. places: an item a page, region after region. Raises ValueError that names
    what does not fit, and MemoryError. Releases the GIL.
    """
    cdef const int64_t[::1] signed_counts
    cdef const uint64_t[::1] unsigned_counts
    cdef const uint64_t *c_counts = NULL
    cdef size_t n_regions = max_orders.shape[0], r, n_counts
    cdef uint64_t split, total = 0
    cdef int rc
    if memoryview(counts).format in ("l", "q"):
        signed_counts = counts  # a negative one is larger than any memory
        n_counts = signed_counts.shape[0]
        c_counts = <const uint64_t *>&signed_counts[0] if n_counts else NULL
    else:
        unsigned_counts = counts
        n_counts = unsigned_counts.shape[0]
        c_counts = &unsigned_counts[0] if n_counts else NULL
    if not 0 <= fragmentation <= 1:
        raise ValueError(f"fragmentation is {fragmentation}; it must be from 0 to 1")
    if n_counts != n_regions or <size_t>fixed.shape[0] != n_regions:
        raise ValueError(f"counts has {n_counts} items, max_orders {n_regions} and fixed {fixed.shape[0]};"
                         " each must have one a region")
    for r in range(n_regions):
        if c_counts[r] > n_pages - total:
            raise ValueError(f"counts[{r}] is {counts[r]}, but of {n_pages} pages {n_pages - total} are left")
        total += c_counts[r]
    if <uint64_t>places.shape[0] != total:
        raise ValueError(f"places has {places.shape[0]} items, but the regions have {total} pages")
    split = <uint64_t>(fragmentation * <double>DEDUPCORE_ALWAYS + 0.5)
    with nogil:
        rc = dedupcore_place(key, n_pages, split, c_counts, &max_orders[0] if n_regions else NULL,
                             &fixed[0] if n_regions else NULL, n_regions, &places[0] if total else NULL)
    if rc == DEDUPCORE_EINVAL:
        _explain_place(n_pages, counts, max_orders, fixed)
    _check(rc)


def _explain_place(n_pages, counts, max_orders, fixed):
    """Raise ValueError with what dedupcore_place refused."""
    if n_pages >= 2**32:
        raise ValueError(f"n_pages is {n_pages}; at most 2^32 - 1 are possible")
    end = 0
    for first, r in sorted((fixed[r], r) for r in range(len(fixed)) if fixed[r] != -1):
        if not 0 <= first <= n_pages - counts[r]:
            raise ValueError(f"fixed[{r}] is {first}, where {counts[r]} pages do not fit in {n_pages}")
        if counts[r] and first < end:
            raise ValueError(f"fixed[{r}] is {first}, but another region lies there up to page {end}")
        end = max(end, first + counts[r])
    for r, order in enumerate(max_orders):
        if order > MAX_ORDER:
            raise ValueError(f"max_orders[{r}] is {order}; at most {MAX_ORDER} is possible")


def name_pages(const uint32_t[::1] places, const uint64_t[::1] names, const uint16_t[::1] variables,
               const uint8_t[::1] regions, const uint64_t[::1] values, const uint32_t[::1] chances, uint64_t own,
               uint64_t key, uint64_t[::1] out_names, uint8_t[::1] out_regions, uint64_t first=0):
    """Write a template's names and regions to where a guest has them; see dedupcore_name_pages in dedupcore.h.

    places, names, variables, regions: one item a page of the template. values, chances (in units of 2^-32): one a
    variable. out_names, out_regions: one a page of the guest. first: the number of the first page, where these are but
    a part of the template. Raises ValueError that names what does not fit; pages
    before the one at fault are then written. Releases the GIL.
    """
    cdef dedupcore_template pages
    cdef dedupcore_variation variation
    cdef size_t n = places.shape[0], n_guest = out_names.shape[0], wrong = 0
    cdef int rc
    for length, what in ((names.shape[0], "names"), (variables.shape[0], "variables"), (regions.shape[0], "regions")):
        if length != n:
            raise ValueError(f"{what} has {length} items, but places {n}")
    if chances.shape[0] != values.shape[0]:
        raise ValueError(f"chances has {chances.shape[0]} items, but values {values.shape[0]}")
    if out_regions.shape[0] != out_names.shape[0]:
        raise ValueError(f"out_regions has {out_regions.shape[0]} items, but out_names {n_guest}")
    if n == 0:
        return
    pages.n_pages, pages.names, pages.variables, pages.regions = n, &names[0], &variables[0], &regions[0]
    pages.first = first
    variation.n_variables, variation.own, variation.key = values.shape[0], own, key
    variation.values = &values[0] if variation.n_variables else NULL
    variation.chances = &chances[0] if variation.n_variables else NULL
    with nogil:
        rc = dedupcore_name_pages(&pages, &variation, &places[0], &out_names[0] if n_guest else NULL,
                                  &out_regions[0] if n_guest else NULL, n_guest, &wrong)
    if rc == DEDUPCORE_EINVAL and places[wrong] >= n_guest:
        raise ValueError(f"places[{wrong}] is {places[wrong]}, but the guest has {n_guest} pages")
    if rc == DEDUPCORE_EINVAL:
        raise ValueError(f"variables[{wrong}] is {variables[wrong]}, but there are {variation.n_variables}")
    _check(rc)


def draw_accesses(uint64_t key, uint64_t first, const uint32_t[::1] working_set, const uint32_t[::1] quantiles,
                  uint64_t write_chance, uint32_t[::1] gpns, uint8_t[::1] writes):
    """Draw accesses number `first` and on, one for each item of gpns and writes; see dedupcore.h, without the GIL.

    working_set: pages from the hottest to the coldest. quantiles: QUANTILES + 1 ranks, ascending. write_chance: in
    units of 2^-32. Raises ValueError for an empty working set, a chance beyond 2^32, and lengths that do not fit.
    """
    cdef size_t n = gpns.shape[0]
    cdef int rc
    if quantiles.shape[0] != DEDUPCORE_QUANTILES + 1:
        raise ValueError(f"quantiles has {quantiles.shape[0]} items; it must have {DEDUPCORE_QUANTILES + 1}")
    if <size_t>writes.shape[0] != n:
        raise ValueError(f"writes has {writes.shape[0]} items, but gpns {n}")
    if working_set.shape[0] == 0 or write_chance > DEDUPCORE_ALWAYS:
        raise ValueError(f"working_set has {working_set.shape[0]} pages and write_chance is {write_chance}; it must have"
                         f" some, and this be 0 to {DEDUPCORE_ALWAYS}")
    if n == 0:
        return
    with nogil:
        rc = dedupcore_draw_accesses(key, first, &working_set[0], working_set.shape[0], &quantiles[0], write_chance,
                                     &gpns[0], &writes[0], n)
    _check(rc)


def materialize(const uint64_t[::1] names, out, size_t frame_size, unsigned texture):
    """Write the bytes that stand for content names, frame after frame; see dedupcore_materialize in dedupcore.h.

    out: a writable contiguous buffer of len(names) frames, of any type. texture: SPARSE, NOISE, ONE_BYTE, PREFIX or
    MIXED. Raises ValueError for a size, a frame size or a texture out of range. Releases the GIL.
    """
    cdef Py_buffer view
    cdef size_t n = names.shape[0]
    cdef int rc
    PyObject_GetBuffer(out, &view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    try:
        if frame_size == 0 or view.len % frame_size or <size_t>view.len // frame_size != n:
            raise ValueError(f"out has {view.len} bytes, but {n} frames of {frame_size} bytes are to be written")
        with nogil:
            rc = dedupcore_materialize(&names[0] if n else NULL, n, frame_size, texture, view.buf)
        if rc == DEDUPCORE_EINVAL:
            raise ValueError(f"frame_size is {frame_size} and texture {texture}; a power of two from 64 to 2^30 and one"
                             f" of SPARSE to MIXED, 0 to {MIXED}, are possible")
        _check(rc)
    finally:
        PyBuffer_Release(&view)


# --- the pool ------------------------------------------------------------------------------------------------------

ABSENT = DEDUPCORE_ABSENT
OUT = DEDUPCORE_OUT
QUANTILES = DEDUPCORE_QUANTILES
ACCESSED_BY_HOST = DEDUPCORE_ACCESSED_BY_HOST
ACCESSED_BY_GUEST = DEDUPCORE_ACCESSED_BY_GUEST
MAX_DOMAINS = DEDUPCORE_MAX_DOMAINS
LARGE_PAGE = DEDUPCORE_LARGE_PAGE
MAX_LARGE_FRAME = DEDUPCORE_MAX_LARGE_FRAME


cdef _work(const dedupcore_work *work):
    return Work(work.frames_signed, work.bytes_signed, work.frames_hashed, work.bytes_hashed, work.frames_compared,
                work.bytes_compared, work.frames_not_read)


class PoolCounts(NamedTuple):
    """What a Pool holds and did, see dedupcore_pool_counts in dedupcore.h; frames unless it says pages."""

    capacity: int
    in_use: int
    pages_present: int
    zero_frames: int
    zero_pages: int
    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    first_touches: int
    cow_breaks: int
    pages_merged: int
    pages_released: int
    large_pages: int
    large_breaks: int
    large_rebuilds: int


class ScanCounts(NamedTuple):
    """What a sharing policy did and found, see dedupcore_scan_counts in dedupcore.h; pages unless it says frames."""

    full_scans: int
    pages_scanned: int
    pages_skipped: int
    pages_hashed: int
    stable_searches: int
    unstable_searches: int
    hints_matched: int
    hints_stale: int
    collisions: int
    frames_hashed: int
    frames_compared: int
    pages_stable: int
    frames_stable: int
    pages_settled: int
    pages_items: int
    pages_changed: int


cdef dict _policies = {"dirty": DEDUPCORE_POLICY_DIRTY, "ksm": DEDUPCORE_POLICY_KSM, "esx": DEDUPCORE_POLICY_ESX}


cdef double _seconds() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double>now.tv_sec + 1e-9 * <double>now.tv_nsec


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_rwlock_t:
        pass
    int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
    int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
    int pthread_rwlock_unlock(pthread_rwlock_t *lock)
    int pthread_rwlock_destroy(pthread_rwlock_t *lock)
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *lock, const void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)
    int pthread_mutex_destroy(pthread_mutex_t *lock)


cdef extern from *:
    """
    #include <pthread.h>

    /* A lock for which writers do not wait for readers that come after them, where there is such a kind. */
    static int pool_lock_init(pthread_rwlock_t *lock)
    {
        pthread_rwlockattr_t attributes;
        int rc = pthread_rwlockattr_init(&attributes);
        if (rc)
            return rc;
    #ifdef __GLIBC__
        pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    #endif
        rc = pthread_rwlock_init(lock, &attributes);
        pthread_rwlockattr_destroy(&attributes);
        return rc;
    }
    """
    int pool_lock_init(pthread_rwlock_t *lock)


cdef class Pool:
    """Live guests over frames that they share; see dedupcore_pool_create in dedupcore.h, pagedup.sharing for people.

    Guests are numbers, domains too. gpns: contiguous uint32. Reads run side by side, other calls wait for each other;
    all release the GIL. Raises ValueError that names what does not fit, or says that the pool is closed, MemoryError
    when it is full, and RuntimeError when `check` finds a flaw; the pool is then as it was.
    """

    cdef dedupcore_pool *pool
    # Taken and given back without the GIL, so that nobody waits for it who holds what others wait for.
    cdef pthread_rwlock_t lock
    cdef pthread_mutex_t turn  # held while waiting for the lock: a long scan that lets go of it is not the next to have it
    cdef Py_ssize_t exports
    cdef bint is_closed
    cdef readonly uint64_t capacity
    cdef readonly size_t frame_size

    def __cinit__(self, uint64_t capacity, size_t frame_size):
        cdef int rc
        if pool_lock_init(&self.lock) or pthread_mutex_init(&self.turn, NULL):
            raise MemoryError
        self.capacity, self.frame_size = capacity, frame_size
        with nogil:
            rc = dedupcore_pool_create(&self.pool, capacity, frame_size)
        if rc == DEDUPCORE_EINVAL:
            raise ValueError(f"capacity is {capacity} and frame_size {frame_size}; 1 to 2^32 - 1 frames of a power of"
                             " two from 8 to 2^30 bytes are possible")
        _check(rc)

    def __dealloc__(self):
        with nogil:
            dedupcore_pool_destroy(self.pool)
        pthread_rwlock_destroy(&self.lock)
        pthread_mutex_destroy(&self.turn)

    cdef int _begin_read(self) except -1:
        with nogil:
            pthread_mutex_lock(&self.turn)
            pthread_rwlock_rdlock(&self.lock)
            pthread_mutex_unlock(&self.turn)
        return self._must_be_open()

    cdef int _begin_write(self) except -1:
        with nogil:
            pthread_mutex_lock(&self.turn)
            pthread_rwlock_wrlock(&self.lock)
            pthread_mutex_unlock(&self.turn)
        return self._must_be_open()

    cdef int _must_be_open(self) except -1:
        if self.is_closed:
            pthread_rwlock_unlock(&self.lock)
            raise ValueError("the pool is closed")
        return 0

    def add_guest(self, uint64_t pages, uint32_t domain, bint large=False):
        """Add a guest of so many pages, all absent; returns its number: 0, 1, and so on. large: uses large pages."""
        cdef uint32_t guest = 0
        cdef int rc
        if large and self.frame_size > DEDUPCORE_MAX_LARGE_FRAME:
            raise ValueError(f"frame_size is {self.frame_size}; there are large pages of frames of at most"
                             f" {DEDUPCORE_MAX_LARGE_FRAME} bytes")
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_add_guest(self.pool, pages, domain, &guest)
            if rc == 0 and large:
                rc = dedupcore_pool_use_large(self.pool, guest)
            pthread_rwlock_unlock(&self.lock)
        if rc == DEDUPCORE_EINVAL:
            raise ValueError(f"pages is {pages} and domain {domain}; a guest has at least 1 page, and a domain below"
                             f" {DEDUPCORE_MAX_DOMAINS}")
        if rc == DEDUPCORE_ETOOBIG:
            raise ValueError(f"pages is {pages}: more than the 2^32 - 1 that the guests of a pool have together")
        _check(rc)
        return guest

    def write(self, uint32_t guest, const uint32_t[::1] gpns, const uint8_t[::1] data):
        """Page gpns[i] becomes data[i * frame_size:][:frame_size]; see dedupcore_pool_write in dedupcore.h."""
        cdef size_t n = gpns.shape[0], wrong = 0
        cdef int rc
        self._must_fit("data", data.shape[0], n)
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_write(self.pool, guest, &gpns[0] if n else NULL, &data[0] if n else NULL, n, &wrong)
            pthread_rwlock_unlock(&self.lock)
        if rc == DEDUPCORE_EFULL:
            raise MemoryError(f"the pool is full: writing {n} pages takes more than the frames that are free, of"
                              f" {self.limit}")
        self._explain(rc, guest, gpns, wrong, "data")

    def read(self, uint32_t guest, const uint32_t[::1] gpns, uint8_t[::1] out):
        """out[i * frame_size:][:frame_size] becomes what page gpns[i] holds, zero bytes for an absent one."""
        cdef size_t n = gpns.shape[0], wrong = 0
        cdef int rc
        self._must_fit("out", out.shape[0], n)
        self._begin_read()
        with nogil:
            rc = dedupcore_pool_read(self.pool, guest, &gpns[0] if n else NULL, &out[0] if n else NULL, n, &wrong)
            pthread_rwlock_unlock(&self.lock)
        self._explain(rc, guest, gpns, wrong, "out")

    def release(self, uint32_t guest, const uint32_t[::1] gpns):
        """Make these pages absent; those that are so already, too."""
        cdef size_t n = gpns.shape[0], wrong = 0
        cdef int rc
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_release(self.pool, guest, &gpns[0] if n else NULL, n, &wrong)
            pthread_rwlock_unlock(&self.lock)
        self._explain(rc, guest, gpns, wrong, "")

    def merge(self, uint32_t guest, const uint32_t[::1] gpns, const uint32_t[::1] into, uint8_t[::1] merged):
        """Move page gpns[i] to frame into[i] if they are equal; see dedupcore_pool_merge in dedupcore.h."""
        cdef size_t n = gpns.shape[0], wrong = 0
        cdef int rc
        if <size_t>into.shape[0] != n or <size_t>merged.shape[0] != n:
            raise ValueError(f"into has {into.shape[0]} items and merged {merged.shape[0]}, but gpns {n}")
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_merge(self.pool, guest, &gpns[0] if n else NULL, &into[0] if n else NULL, n,
                                      &merged[0] if n else NULL, &wrong)
            pthread_rwlock_unlock(&self.lock)
        if rc == DEDUPCORE_EINVAL and wrong < n and not self._is_out(guest, gpns[wrong]):
            raise ValueError(f"gpns[{wrong}] is {gpns[wrong]} and into[{wrong}] {into[wrong]}: no present page of the"
                             " guest, one for the second time, or no frame in use of its domain")
        if rc == DEDUPCORE_EINVAL and wrong >= n:
            raise ValueError(f"the pool has no guest {guest}, or shares by its policy: let it scan")
        self._explain(rc, guest, gpns, wrong, "")

    def touch(self, uint32_t guest, const uint32_t[::1] gpns, const uint8_t[::1] writes, const uint8_t[::1] data):
        """Accesses in order, the k-th write with data[k * frame_size:][:frame_size]; see dedupcore_pool_touch.

        writes: None: all are reads. Returns how many were done, first touches, COW breaks.
        """
        cdef size_t n = gpns.shape[0], wrong = 0, n_writes = 0, i
        cdef dedupcore_touched touched
        cdef const uint8_t *c_writes = NULL
        cdef int rc
        if writes is not None:
            if <size_t>writes.shape[0] != n:
                raise ValueError(f"writes has {writes.shape[0]} items, but gpns {n}")
            for i in range(n):
                n_writes += writes[i] != 0
            c_writes = &writes[0] if n else NULL
        self._must_fit("data", data.shape[0], n_writes)
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_touch(self.pool, guest, &gpns[0] if n else NULL, c_writes, &data[0] if n_writes else NULL,
                                      n, &touched, &wrong)
            pthread_rwlock_unlock(&self.lock)
        self._explain(rc, guest, gpns, wrong, "data")
        return touched.done, touched.first_touches, touched.cow_breaks

    @property
    def limit(self):
        """No more frames are given out while so many are in use; see dedupcore_pool_set_limit in dedupcore.h."""
        cdef uint64_t n_frames
        self._begin_read()
        n_frames = dedupcore_pool_limit(self.pool)
        pthread_rwlock_unlock(&self.lock)
        return n_frames

    @limit.setter
    def limit(self, uint64_t n_frames):
        cdef int rc
        self._begin_write()
        rc = dedupcore_pool_set_limit(self.pool, n_frames)
        pthread_rwlock_unlock(&self.lock)
        if rc:
            raise ValueError(f"limit is {n_frames} frames; the pool has {self.capacity}")

    def page_out(self, uint32_t guest, const uint32_t[::1] gpns, uint8_t[::1] out):
        """What the pages hold goes to `out`, and their frames are given up; see dedupcore_pool_page_out."""
        cdef size_t n = gpns.shape[0], wrong = 0
        cdef int rc
        self._must_fit("out", out.shape[0], n)
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_page_out(self.pool, guest, &gpns[0] if n else NULL, &out[0] if n else NULL, n, &wrong)
            pthread_rwlock_unlock(&self.lock)
        self._explain(rc, guest, gpns, wrong, "out")

    def page_in(self, uint32_t guest, const uint32_t[::1] gpns, const uint8_t[::1] data):
        """Pages that are out get a frame that holds data; see dedupcore_pool_page_in in dedupcore.h."""
        cdef size_t n = gpns.shape[0], wrong = 0
        cdef int rc
        self._must_fit("data", data.shape[0], n)
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_page_in(self.pool, guest, &gpns[0] if n else NULL, &data[0] if n else NULL, n, &wrong)
            pthread_rwlock_unlock(&self.lock)
        if rc == DEDUPCORE_EFULL:
            raise MemoryError(f"the pool is full: paging in {n} pages takes more than the frames that are free, of"
                              f" {self.limit}")
        self._explain(rc, guest, gpns, wrong, "data", "not paged out")

    def forget(self, uint32_t guest, const uint32_t[::1] gpns):
        """Pages that are out become absent; see dedupcore_pool_forget in dedupcore.h."""
        cdef size_t n = gpns.shape[0], wrong = 0
        cdef int rc
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_forget(self.pool, guest, &gpns[0] if n else NULL, n, &wrong)
            pthread_rwlock_unlock(&self.lock)
        self._explain(rc, guest, gpns, wrong, "", "not paged out")

    def present(self, uint32_t guest):
        """How many pages of the guest have a frame."""
        cdef uint64_t n
        self._begin_read()
        n = dedupcore_pool_present(self.pool, guest)
        pthread_rwlock_unlock(&self.lock)
        return n

    def out(self, uint32_t guest):
        """How many pages of the guest are paged out."""
        cdef uint64_t n
        self._begin_read()
        n = dedupcore_pool_out(self.pool, guest)
        pthread_rwlock_unlock(&self.lock)
        return n

    def take_accessed(self, uint32_t guest, unsigned by, const uint32_t[::1] gpns, uint8_t[::1] accessed):
        """Whether the pages have the mark, which they lose; see dedupcore_pool_take_accessed in dedupcore.h."""
        cdef size_t n = gpns.shape[0], wrong = 0
        cdef int rc
        if <size_t>accessed.shape[0] != n:
            raise ValueError(f"accessed has {accessed.shape[0]} items, but gpns {n}")
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_take_accessed(self.pool, guest, by, &gpns[0] if n else NULL, n,
                                              &accessed[0] if n else NULL, &wrong)
            pthread_rwlock_unlock(&self.lock)
        self._explain(rc, guest, gpns, wrong, "")

    def alone(self, uint32_t guest, const uint32_t[::1] gpns, uint8_t[::1] alone):
        """Whether the pages share their frames with no other; see dedupcore_pool_alone in dedupcore.h."""
        cdef size_t n = gpns.shape[0], wrong = 0
        cdef int rc
        if <size_t>alone.shape[0] != n:
            raise ValueError(f"alone has {alone.shape[0]} items, but gpns {n}")
        self._begin_read()
        with nogil:
            rc = dedupcore_pool_alone(self.pool, guest, &gpns[0] if n else NULL, n, &alone[0] if n else NULL, &wrong)
            pthread_rwlock_unlock(&self.lock)
        self._explain(rc, guest, gpns, wrong, "")

    def oldest(self, uint32_t guest, unsigned by, const uint8_t[::1] eligible, uint32_t[::1] gpns):
        """Pages not accessed for long, as many as gpns has room for; see dedupcore_pool_oldest. Returns how many."""
        return self._victims(guest, by, eligible, gpns)

    def pick(self, uint32_t guest, const uint8_t[::1] eligible, uint32_t[::1] gpns):
        """Pages alone in their frames, at random; see dedupcore_pool_pick in dedupcore.h. Returns how many."""
        return self._victims(guest, 0, eligible, gpns)

    cdef size_t _victims(self, uint32_t guest, unsigned by, const uint8_t[::1] eligible, uint32_t[::1] gpns) except? 0:
        cdef size_t n = gpns.shape[0], found = 0
        cdef const uint8_t *c_eligible = NULL
        cdef int rc
        if eligible is not None:
            if eligible.shape[0] != (<_PoolView>self.marks(guest)).size:
                raise ValueError(f"eligible has {eligible.shape[0]} items; it must have one a page of the guest")
            c_eligible = &eligible[0]
        self._begin_write()
        with nogil:
            if by:
                rc = dedupcore_pool_oldest(self.pool, guest, by, c_eligible, &gpns[0] if n else NULL, n, &found)
            else:
                rc = dedupcore_pool_pick(self.pool, guest, c_eligible, &gpns[0] if n else NULL, n, &found)
            pthread_rwlock_unlock(&self.lock)
        if rc == DEDUPCORE_EINVAL:
            raise ValueError(f"the pool has no guest {guest}, or {by} is no mark of an access")
        _check(rc)
        return found

    def set_seed(self, uint64_t seed):
        """The seed of the orders in which `pick` goes."""
        self._begin_write()
        dedupcore_pool_set_seed(self.pool, seed)
        pthread_rwlock_unlock(&self.lock)

    def share(self):
        """Store each content once a domain; see dedupcore_pool_share in dedupcore.h. Returns the Work it took."""
        cdef dedupcore_key key
        cdef dedupcore_work work
        cdef int rc
        _take_key(&key)
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_share(self.pool, &key, &work)
            pthread_rwlock_unlock(&self.lock)
        if rc == DEDUPCORE_EINVAL:
            raise ValueError("the pool shares by its policy: let it scan")
        _check(rc)
        return _work(&work)

    def break_large(self, uint32_t guest, const uint32_t[::1] ranges):
        """Large pages of the guest become small ones; see dedupcore_pool_break_large in dedupcore.h."""
        cdef size_t n = ranges.shape[0], wrong = 0
        cdef int rc
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_break_large(self.pool, guest, &ranges[0] if n else NULL, n, &wrong)
            pthread_rwlock_unlock(&self.lock)
        self._explain_ranges(rc, guest, ranges, wrong, "no large page")

    def rebuild_large(self, uint32_t guest, const uint32_t[::1] ranges, uint32_t max_shared, uint8_t[::1] rebuilt):
        """Ranges of small pages become large pages; see dedupcore_pool_rebuild_large in dedupcore.h."""
        cdef size_t n = ranges.shape[0], wrong = 0
        cdef int rc
        if <size_t>rebuilt.shape[0] != n:
            raise ValueError(f"rebuilt has {rebuilt.shape[0]} items, but ranges {n}")
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_rebuild_large(self.pool, guest, &ranges[0] if n else NULL, n, max_shared,
                                              &rebuilt[0] if n else NULL, &wrong)
            pthread_rwlock_unlock(&self.lock)
        self._explain_ranges(rc, guest, ranges, wrong, "a large page already")

    def share_large(self):
        """Store equal large pages once a domain; see dedupcore_pool_share_large in dedupcore.h. Returns the Work."""
        cdef dedupcore_key key
        cdef dedupcore_work work
        cdef int rc
        _take_key(&key)
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_share_large(self.pool, &key, &work)
            pthread_rwlock_unlock(&self.lock)
        if rc == DEDUPCORE_EINVAL:
            raise ValueError("the pool shares by its policy: let it scan")
        _check(rc)
        return _work(&work)

    def large_hints(self):
        """A dedupcore_large_hint for each large page, as bytes; see dedupcore_pool_large_hints in dedupcore.h."""
        cdef dedupcore_key key
        cdef dedupcore_pool_counts c
        cdef dedupcore_large_hint *hints = NULL
        cdef int rc = DEDUPCORE_ENOMEM
        _take_key(&key)
        self._begin_read()
        with nogil:
            dedupcore_pool_count(self.pool, &c)
            hints = <dedupcore_large_hint *>calloc(c.large_pages + 1, sizeof(dedupcore_large_hint))
            if hints:
                rc = dedupcore_pool_large_hints(self.pool, &key, hints, c.large_pages, NULL)
            pthread_rwlock_unlock(&self.lock)
        try:
            _check(rc)
            return (<char *>hints)[:c.large_pages * sizeof(dedupcore_large_hint)]
        finally:
            free(hints)

    def set_policy(self, kind, *, uint32_t max_page_sharing=2, bint use_zero_pages=False, bint smart_scan=False,
                   uint64_t seed=0):
        """Share by a policy ("dirty", "ksm", "esx") from now on; see dedupcore_pool_set_policy in dedupcore.h."""
        cdef dedupcore_policy policy
        cdef dedupcore_key key
        cdef int rc
        policy.kind = _policies[kind]
        policy.max_page_sharing, policy.use_zero_pages, policy.smart_scan = max_page_sharing, use_zero_pages, smart_scan
        policy.seed = seed
        _take_key(&key)
        self._begin_write()
        with nogil:
            rc = dedupcore_pool_set_policy(self.pool, &policy, &key)
            pthread_rwlock_unlock(&self.lock)
        if rc == DEDUPCORE_EINVAL:
            raise ValueError(f"the pool has guests or a policy, or max_page_sharing is {max_page_sharing}, not 2 or more")
        _check(rc)

    def scan(self, uint64_t wakes, uint64_t n_pages, bint to_end=False):
        """Let the scanner wake so often, for so many pages each time; see dedupcore_pool_scan in dedupcore.h.

        to_end: not farther than to the end of the guests. Other calls may come in between two wakes; what a signal
        handler raises ends the call there.
        """
        cdef int rc = 0, ended = 0
        cdef double end
        while wakes and not (ended and to_end):
            self._begin_write()
            with nogil:
                end = _seconds() + 0.05
                while wakes and rc == 0 and not (ended and to_end):
                    rc = dedupcore_pool_scan(self.pool, n_pages, &ended)
                    wakes -= 1
                    if _seconds() > end:
                        break
                pthread_rwlock_unlock(&self.lock)
            if rc == DEDUPCORE_EINVAL:
                raise ValueError("the pool has no policy whose scanner goes through all guests")
            _check(rc)
            PyErr_CheckSignals()

    def scan_guest(self, uint32_t guest, uint64_t n_pages, bint to_end=False):
        """Look at so many more pages of the guest; see dedupcore_pool_scan_guest in dedupcore.h.

        to_end: not farther than to the end of its pass. Other calls may come in between; what a signal handler raises
        ends the call early.
        """
        cdef int rc = 0, ended = 0
        cdef uint64_t slice, left
        while n_pages and not (ended and to_end):
            slice = left = min(n_pages, <uint64_t>1 << 14)
            self._begin_write()
            with nogil:
                rc = dedupcore_pool_scan_guest(self.pool, guest, &left, &ended)
                pthread_rwlock_unlock(&self.lock)
            if rc == DEDUPCORE_EINVAL:
                raise ValueError(f"the pool has no guest {guest}, or no policy that looks at one guest")
            _check(rc)
            n_pages -= slice - left
            PyErr_CheckSignals()

    def scan_count(self):
        """What the policy did and found, as ScanCounts; all zero if there is none."""
        cdef dedupcore_scan_counts c
        self._begin_write()
        with nogil:
            dedupcore_pool_scan_count(self.pool, &c)
            pthread_rwlock_unlock(&self.lock)
        return ScanCounts(
            c.full_scans, c.pages_scanned, c.pages_skipped, c.pages_hashed,
            c.stable_searches, c.unstable_searches, c.hints_matched, c.hints_stale,
            c.collisions, c.frames_hashed, c.frames_compared, c.pages_stable,
            c.frames_stable, c.pages_settled, c.pages_items, c.pages_changed,
        )

    def count(self):
        """What the pool holds and did, as PoolCounts."""
        cdef dedupcore_pool_counts c
        self._begin_read()
        with nogil:
            dedupcore_pool_count(self.pool, &c)
            pthread_rwlock_unlock(&self.lock)
        return PoolCounts(
            c.capacity, c.in_use, c.pages_present, c.zero_frames,
            c.zero_pages, c.pages_shared, c.pages_sharing, c.pages_unshared,
            c.first_touches, c.cow_breaks, c.pages_merged, c.pages_released,
            c.large_pages, c.large_breaks, c.large_rebuilds,
        )

    def check(self):
        """Prove that the pool is as it says; see dedupcore_pool_check in dedupcore.h."""
        cdef dedupcore_flaw flaw
        cdef int rc
        self._begin_read()
        with nogil:
            rc = dedupcore_pool_check(self.pool, &flaw)
            pthread_rwlock_unlock(&self.lock)
        if rc == DEDUPCORE_EBROKEN:
            at = [f"{what} {number}" for what, number, none in (
                ("guest", flaw.guest, 2**32 - 1), ("page", flaw.page, 2**64 - 1), ("frame", flaw.frame, 2**64 - 1)
            ) if number != none]
            raise RuntimeError(f"the pool is broken: {flaw.what.decode()}{': ' if at else ''}{', '.join(at)}")
        _check(rc)

    def memory(self):
        """All frames one behind the other, a read-only buffer of bytes; it is what it is at every moment."""
        cdef const void *at
        self._begin_read()
        at = dedupcore_pool_memory(self.pool)
        pthread_rwlock_unlock(&self.lock)
        return _PoolView(self, <size_t>at, self.capacity * self.frame_size)

    def table(self, uint32_t guest):
        """The page table of the guest, uint32 a page, a read-only buffer of bytes; it is what it is at every moment."""
        cdef const uint32_t *at
        cdef uint64_t pages = 0
        self._begin_read()
        at = dedupcore_pool_table(self.pool, guest, &pages)
        pthread_rwlock_unlock(&self.lock)
        if not at:
            raise ValueError(f"the pool has no guest {guest}")
        return _PoolView(self, <size_t>at, pages * sizeof(uint32_t))

    def large(self, uint32_t guest):
        """For each range of the guest 1 if it is a large page, else 0, a read-only buffer of bytes; as `table`."""
        cdef const uint8_t *at
        cdef uint64_t ranges = 0
        self._begin_read()
        at = dedupcore_pool_large(self.pool, guest, &ranges)
        pthread_rwlock_unlock(&self.lock)
        if not at:
            raise ValueError(f"the pool has no guest {guest}")
        return _PoolView(self, <size_t>at, ranges)

    def marks(self, uint32_t guest):
        """The marks of each page of the guest, uint8 a page, a read-only buffer of bytes; as `table`."""
        cdef const uint8_t *at
        cdef uint64_t pages = 0
        self._begin_read()
        at = dedupcore_pool_marks(self.pool, guest, &pages)
        pthread_rwlock_unlock(&self.lock)
        if not at:
            raise ValueError(f"the pool has no guest {guest}")
        return _PoolView(self, <size_t>at, pages)

    def close(self):
        """No more calls. Its memory goes back now, or with the last view of it; closing again does nothing."""
        with nogil:
            pthread_mutex_lock(&self.turn)
            pthread_rwlock_wrlock(&self.lock)
            pthread_mutex_unlock(&self.turn)
            self.is_closed = 1
            self._end_unless_viewed()
            pthread_rwlock_unlock(&self.lock)

    cdef void _end_unless_viewed(self) noexcept nogil:
        if self.is_closed and self.exports == 0:
            dedupcore_pool_destroy(self.pool)
            self.pool = NULL

    @property
    def closed(self):
        """Whether it is closed."""
        return self.is_closed

    cdef int _must_fit(self, what, size_t n_bytes, size_t n) except -1:
        if n_bytes != n * self.frame_size:
            raise ValueError(f"{what} has {n_bytes} bytes, but {n} frames of {self.frame_size} bytes are asked for")
        return 0

    cdef int _explain(self, int rc, uint32_t guest, const uint32_t[::1] gpns, size_t wrong, what,
                      if_in="absent") except -1:
        """Raise for what a batch was refused for; if_in: what a page is that is there, not out, and yet wrong."""
        cdef size_t i
        if rc != DEDUPCORE_EINVAL:
            return _check(rc)
        if wrong >= <size_t>gpns.shape[0]:
            raise ValueError(f"the pool has no guest {guest}, or {what or 'nothing'} lies in its own memory")
        for i in range(wrong):
            if gpns[i] == gpns[wrong]:
                raise ValueError(f"gpns[{wrong}] is {gpns[wrong]}, and so is gpns[{i}]; a page can be in a batch once")
        if gpns[wrong] >= <size_t>(<_PoolView>self.marks(guest)).size:
            raise ValueError(f"gpns[{wrong}] is {gpns[wrong]}, but the guest has fewer pages")
        raise ValueError(f"gpns[{wrong}] is {gpns[wrong]}, which is"
                         f" {'paged out' if self._is_out(guest, gpns[wrong]) else if_in}")

    cdef bint _is_out(self, uint32_t guest, uint32_t gpn) except -1:
        cdef _PoolView marks = self.marks(guest)
        return gpn < <size_t>marks.size and (<const uint8_t *>marks.at)[gpn] & DEDUPCORE_OUT

    cdef int _explain_ranges(self, int rc, uint32_t guest, const uint32_t[::1] ranges, size_t wrong, what) except -1:
        """Raise for what a batch of ranges was refused for: if nothing else, for `what` they are."""
        cdef size_t i
        if rc != DEDUPCORE_EINVAL:
            return _check(rc)
        if wrong >= <size_t>ranges.shape[0]:
            raise ValueError(f"the pool has no guest {guest}")
        for i in range(wrong):
            if ranges[i] == ranges[wrong]:
                raise ValueError(f"ranges[{wrong}] is {ranges[wrong]}, and so is ranges[{i}]; each can be there once")
        if ranges[wrong] >= <size_t>(<_PoolView>self.large(guest)).size:
            raise ValueError(f"ranges[{wrong}] is {ranges[wrong]}, but the guest has fewer ranges")
        raise ValueError(f"ranges[{wrong}] is {ranges[wrong]}, which is {what}")


cdef class _PoolView:
    """A part of a pool's memory as a buffer; while it is in use the pool cannot be closed."""

    cdef Pool owner
    cdef size_t at
    cdef Py_ssize_t size

    def __cinit__(self, Pool owner, size_t at, Py_ssize_t size):
        self.owner, self.at, self.size = owner, at, size

    def __getbuffer__(self, Py_buffer *view, int flags):
        self.owner._begin_write()
        self.owner.exports += 1
        pthread_rwlock_unlock(&self.owner.lock)
        try:
            PyBuffer_FillInfo(view, self, <void *>self.at, self.size, 1, flags)
        except BufferError:  # for writing
            self._release()
            raise

    def __releasebuffer__(self, Py_buffer *view):
        self._release()

    cdef void _release(self) noexcept:
        with nogil:
            pthread_mutex_lock(&self.owner.turn)
            pthread_rwlock_wrlock(&self.owner.lock)
            pthread_mutex_unlock(&self.owner.turn)
            self.owner.exports -= 1
            self.owner._end_unless_viewed()
            pthread_rwlock_unlock(&self.owner.lock)


# --- files mapped for reading --------------------------------------------------------------------------------------


cdef class MappedFile:
    """The first `size` bytes of the open file `fd`, mapped for reading: a read-only buffer of bytes.

    When the file shrinks meanwhile, the pages that it lost read as zero bytes and `shrank` becomes true, where a plain
    mmap would end the process with SIGBUS. `fd` may be closed afterwards. Raises OSError when it cannot be mapped.
    """

    cdef dedupcore_map *map
    cdef Py_ssize_t size
    cdef Py_ssize_t exports
    cdef bint shrank_before_close

    def __cinit__(self, int fd, Py_ssize_t size):
        if size <= 0:
            raise ValueError(f"size is {size}; only one byte or more can be mapped")
        self.size = size
        _check(dedupcore_map_create(&self.map, fd, size))

    def __getbuffer__(self, Py_buffer *view, int flags):
        with cython.critical_section(self):  # for Python without the GIL
            if not self.map:
                raise ValueError("the mapping is closed")
            PyBuffer_FillInfo(view, self, <void *>dedupcore_map_base(self.map), self.size, 1, flags)
            self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        with cython.critical_section(self):
            self.exports -= 1

    def __len__(self):
        return self.size

    @property
    def shrank(self):
        """Whether a page was read that the file had lost."""
        with cython.critical_section(self):
            return dedupcore_map_shrank(self.map) != 0 if self.map else self.shrank_before_close

    def close(self):
        """Unmap. Raises BufferError while a memoryview or array still uses it; closing again does nothing."""
        with cython.critical_section(self):
            if self.exports:
                raise BufferError(f"{self.exports} buffers of the mapping are still in use")
            if self.map:
                self.shrank_before_close = dedupcore_map_shrank(self.map) != 0
            dedupcore_map_destroy(self.map)
            self.map = NULL

    def __dealloc__(self):
        dedupcore_map_destroy(self.map)


# --- sharing in place ----------------------------------------------------------------------------------------------


cdef extern from "in_place.h" nogil:
    int INPLACE_REPLACED
    int INPLACE_DIFFERS
    int INPLACE_REFUSED
    int INPLACE_LOST
    int inplace_store(int fd, const uint64_t *addresses, const uint64_t *offsets, const uint64_t *sizes,
                                 size_t n)
    void inplace_map(int fd, const uint8_t *stored, const uint64_t *addresses, const uint64_t *offsets,
                                const uint64_t *sizes, const uint8_t *protections, size_t n, uint8_t *outcomes)
    void inplace_zero(const uint64_t *addresses, const uint64_t *sizes, const uint8_t *mapped,
                                 const uint8_t *protections, size_t n, uint8_t *outcomes)
    void inplace_free_zeros(const uint64_t *addresses, const uint64_t *sizes, size_t n, size_t page_size,
                            uint8_t *freed)
    void inplace_split(const uint64_t *pages, size_t n, size_t page_size)
    void inplace_keep_small(const uint64_t *addresses, const uint64_t *sizes, size_t n)
    int inplace_forks(uint64_t *forks)
    int inplace_punch(int fd, const uint64_t *offsets, const uint64_t *sizes, size_t n, uint64_t forks)


REPLACED = INPLACE_REPLACED
DIFFERS = INPLACE_DIFFERS
REFUSED = INPLACE_REFUSED
LOST = INPLACE_LOST


def _same_length(n, *others):
    for other in others:
        if len(other) != n:
            raise ValueError(f"there are {n} addresses or offsets, but {len(other)} items of what goes with them")


def in_place_store(int fd, const uint64_t[::1] addresses, const uint64_t[::1] offsets, const uint64_t[::1] sizes):
    """Write ranges of this process's memory to a file; see in_place.h. Raises OSError."""
    cdef size_t n = addresses.shape[0]
    cdef int rc
    _same_length(n, offsets, sizes)
    if n:
        with nogil:
            rc = inplace_store(fd, &addresses[0], &offsets[0], &sizes[0], n)
        _check(rc)


def in_place_map(int fd, const uint8_t[::1] stored, const uint64_t[::1] addresses, const uint64_t[::1] offsets,
                 const uint64_t[::1] sizes, const uint8_t[::1] protections, uint8_t[::1] outcomes):
    """Map a file's bytes over ranges of this process's memory, where they are equal; see in_place.h.

    Nothing here can tell whether the ranges may be replaced. outcomes: becomes REPLACED, DIFFERS, REFUSED or LOST.
    """
    cdef size_t n = addresses.shape[0], i
    _same_length(n, offsets, sizes, protections, outcomes)
    for i in range(n):
        if offsets[i] > <uint64_t>stored.shape[0] or sizes[i] > <uint64_t>stored.shape[0] - offsets[i]:
            raise ValueError(f"range {i} is not within the {stored.shape[0]} bytes that are stored")
    if n:
        with nogil:
            inplace_map(fd, &stored[0], &addresses[0], &offsets[0], &sizes[0], &protections[0], n,
                                   &outcomes[0])


def in_place_zero(const uint64_t[::1] addresses, const uint64_t[::1] sizes, const uint8_t[::1] mapped,
                  const uint8_t[::1] protections, uint8_t[::1] outcomes):
    """Give ranges of zeros back to the kernel; see in_place.h. outcomes: as of in_place_map."""
    cdef size_t n = addresses.shape[0]
    _same_length(n, sizes, mapped, protections, outcomes)
    if n:
        with nogil:
            inplace_zero(&addresses[0], &sizes[0], &mapped[0], &protections[0], n, &outcomes[0])


def in_place_free_zeros(const uint64_t[::1] addresses, const uint64_t[::1] sizes, size_t page_size,
                        uint8_t[::1] freed):
    """Give the pages of zeros in ranges of this process's memory back to the kernel; see in_place.h."""
    cdef size_t n = addresses.shape[0], i
    cdef uint64_t n_pages = 0
    _same_length(n, sizes)
    for i in range(n):
        n_pages += sizes[i] // page_size
    if n_pages != <uint64_t>freed.shape[0]:
        raise ValueError(f"freed has {freed.shape[0]} items for {n_pages} pages")
    if n_pages:
        with nogil:
            inplace_free_zeros(&addresses[0], &sizes[0], n, page_size, &freed[0])


def in_place_split(const uint64_t[::1] pages, size_t page_size):
    """Split the huge pages that these pages, given by their addresses, belong to; see in_place.h."""
    if pages.shape[0]:
        with nogil:
            inplace_split(&pages[0], pages.shape[0], page_size)


def in_place_keep_small(const uint64_t[::1] addresses, const uint64_t[::1] sizes):
    """Ask that no huge pages are made of these ranges from now on; see in_place.h."""
    _same_length(addresses.shape[0], sizes)
    if addresses.shape[0]:
        with nogil:
            inplace_keep_small(&addresses[0], &sizes[0], addresses.shape[0])


def in_place_forks():
    """How many forks there were since the first call, in this process and those that it is a copy of."""
    cdef uint64_t forks = 0
    _check(inplace_forks(&forks))
    return forks


def in_place_punch(int fd, const uint64_t[::1] offsets, const uint64_t[::1] sizes, uint64_t forks):
    """Give a file's ranges back to the kernel, unless there was a fork meanwhile; whether it did. Raises OSError."""
    cdef size_t n = offsets.shape[0]
    cdef int rc
    _same_length(n, sizes)
    with nogil:
        rc = inplace_punch(fd, &offsets[0] if n else NULL, &sizes[0] if n else NULL, n, forks)
    return _check(rc) == 1


# --- the TLB -------------------------------------------------------------------------------------------------------


class TlbCounts(NamedTuple):
    """See dedupcore_tlb_counts in dedupcore.h."""

    l1_hits: tuple
    l2_hits: tuple
    walks: tuple
    references: tuple
    walk_hits: tuple
    host_walk_hits: tuple
    nested_hits: int
    references_found: tuple
    data_found: tuple


cdef uint8_t _number(number):
    return DEDUPCORE_NO_CACHE if number < 0 else number


cdef class Tlb:
    """TLBs, page-walk caches and data caches: geometry in, counts out; see dedupcore.h. Its users take turns.

    caches, data: pairs of entries and ways, up to 16, and 3. l1, l2, walk, nested, host_walk: numbers of caches, or -1;
    l2_as: page sizes. Raises ValueError for a geometry that cannot be, MemoryError.
    """
    cdef dedupcore_tlb *tlb
    cdef object lock

    def __cinit__(self, caches, l1, l2, l2_as, walk, nested, host_walk, data):
        cdef dedupcore_tlb_geometry geometry
        cdef unsigned i
        self.lock = threading.Lock()
        if len(caches) > DEDUPCORE_MAX_CACHES or len(data) != DEDUPCORE_DATA_CACHES:
            raise ValueError(f"{len(caches)} caches of translations and {len(data)} of data; there can be up to"
                             f" {DEDUPCORE_MAX_CACHES}, and must be {DEDUPCORE_DATA_CACHES}")
        for i in range(DEDUPCORE_MAX_CACHES):
            geometry.caches[i].entries = caches[i][0] if i < len(caches) else 0
            geometry.caches[i].ways = caches[i][1] if i < len(caches) else 0
        for i in range(DEDUPCORE_PAGE_SIZES):
            geometry.l1[i] = _number(l1[i])
            geometry.l2[i] = _number(l2[i])
            geometry.l2_as[i] = l2_as[i]
        for i in range(3):
            geometry.walk[i] = _number(walk[i])
            geometry.host_walk[i] = _number(host_walk[i])
        geometry.nested = _number(nested)
        for i in range(DEDUPCORE_DATA_CACHES):
            geometry.data[i].entries, geometry.data[i].ways = data[i]
        rc = dedupcore_tlb_create(&self.tlb, &geometry)
        if rc == DEDUPCORE_EINVAL:
            raise ValueError("a geometry that cannot be: ways must divide entries, and the sets be a power of two")
        _check(rc)

    def __dealloc__(self):
        dedupcore_tlb_destroy(self.tlb)

    def map(self, const uint8_t[::1] sizes, host_sizes, unsigned table_size):
        """Give it memory; see dedupcore_tlb_map. host_sizes: None if there is no host. Raises ValueError, MemoryError."""
        cdef const uint8_t[::1] host = sizes if host_sizes is None else host_sizes
        cdef const uint8_t *c_host = NULL
        cdef size_t n = sizes.shape[0], wrong = 0
        cdef int rc
        if <size_t>host.shape[0] != n:
            raise ValueError(f"host_sizes has {host.shape[0]} ranges, but sizes {n}")
        if host_sizes is not None and n:
            c_host = &host[0]
        with self.lock:
            rc = dedupcore_tlb_map(self.tlb, &sizes[0] if n else NULL, c_host, n, table_size, &wrong)
        if rc == DEDUPCORE_EINVAL:
            raise ValueError(f"range {wrong} of {n} has no page size, or is a part of a page of 1 GiB that is not whole")
        _check(rc)

    def access(self, const uint64_t[::1] addresses):
        """Access addresses, in bytes, in order. Raises ValueError for one that is beyond the memory. Releases the GIL."""
        cdef size_t n = addresses.shape[0], wrong = 0
        cdef int rc
        with self.lock:
            with nogil:
                rc = dedupcore_tlb_access(self.tlb, &addresses[0] if n else NULL, n, &wrong)
        if rc == DEDUPCORE_EINVAL:
            raise ValueError(f"address {wrong} is {addresses[wrong]}, beyond the memory that is mapped")
        _check(rc)

    def count(self):
        """What was counted since it was made: a TlbCounts."""
        cdef dedupcore_tlb_counts c
        with self.lock:
            dedupcore_tlb_count(self.tlb, &c)
        return TlbCounts(tuple(c.l1_hits), tuple(c.l2_hits), tuple(c.walks), tuple(c.references), tuple(c.walk_hits),
                         tuple(c.host_walk_hits), c.nested_hits, tuple(c.references_found), tuple(c.data_found))
