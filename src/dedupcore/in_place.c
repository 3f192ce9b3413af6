/* Sharing within one process; see in_place.h. */
#define _GNU_SOURCE
#include "in_place.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dedupcore.h"
#include "scan_bytes.h"

#ifndef MADV_COLD
#define MADV_COLD 20 /* of Linux 5.4 */
#endif

/* Bytes: between the look at zeros and their end nobody should have time to write to them. */
enum { AT_ONCE = 2 << 20 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t n_forks;
static int counting;

static void *pointer(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

int inplace_store(int fd, const uint64_t *addresses, const uint64_t *offsets, const uint64_t *sizes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (uint64_t done = 0; done < sizes[i];) {
            const ssize_t wrote = pwrite(fd, pointer(addresses[i] + done), sizes[i] - done, (off_t)(offsets[i] + done));
            if (wrote < 0 && errno != EINTR)
                return DEDUPCORE_ESYS;
            done += wrote > 0 ? (uint64_t)wrote : 0;
        }
    }
    return 0;
}

/*
 * After a refusal. Before Linux 6.12 the old mapping may be gone by then; another thread's mmap could come to lie there.
 * So it is made again at once, from `content`, or zeros for NULL.
 */
static uint8_t refused(void *at, size_t size, int protection, const uint8_t *content)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

    if (msync(at, size, MS_ASYNC) == 0 || errno != ENOMEM) /* which looks for gaps, and does nothing to private memory */
        return INPLACE_REFUSED;
    if (mmap(at, size, PROT_READ | PROT_WRITE, flags, -1, 0) != at)
        return INPLACE_LOST;
    if (content)
        memcpy(at, content, size);
    mprotect(at, size, protection);
    return INPLACE_REFUSED;
}

void inplace_map(int fd, const uint8_t *stored, const uint64_t *addresses, const uint64_t *offsets,
                            const uint64_t *sizes, const uint8_t *protections, size_t n, uint8_t *outcomes)
{
    for (size_t i = 0; i < n; i++) {
        void *at = pointer(addresses[i]);
        const uint8_t *content = stored + offsets[i];

        if (memcmp(at, content, sizes[i]) != 0)
            outcomes[i] = INPLACE_DIFFERS;
        else if (mmap(at, sizes[i], protections[i], MAP_PRIVATE | MAP_FIXED, fd, (off_t)offsets[i]) == at)
            outcomes[i] = INPLACE_REPLACED;
        else if ((outcomes[i] = refused(at, sizes[i], protections[i], content)) == INPLACE_LOST)
            return;
    }
}

void inplace_zero(const uint64_t *addresses, const uint64_t *sizes, const uint8_t *mapped,
                             const uint8_t *protections, size_t n, uint8_t *outcomes)
{
    const byte_scans *scans = byte_scans_for(dedupcore_cpu_used());
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

    for (size_t i = 0; i < n; i++) {
        void *at = pointer(addresses[i]);

        if (scans->first_nonzero(at, sizes[i]) != sizes[i])
            outcomes[i] = INPLACE_DIFFERS;
        else if (!mapped[i])
            outcomes[i] = madvise(at, sizes[i], MADV_DONTNEED) ? INPLACE_REFUSED : INPLACE_REPLACED;
        else if (mmap(at, sizes[i], protections[i], flags, -1, 0) == at)
            outcomes[i] = INPLACE_REPLACED;
        else if ((outcomes[i] = refused(at, sizes[i], protections[i], NULL)) == INPLACE_LOST)
            return;
    }
}

void inplace_free_zeros(const uint64_t *addresses, const uint64_t *sizes, size_t n, size_t page_size,
                        uint8_t *freed)
{
    const byte_scans *scans = byte_scans_for(dedupcore_cpu_used());

    for (size_t i = 0; i < n; i++) {
        for (uint64_t at = addresses[i]; at < addresses[i] + sizes[i];) {
            const uint64_t end = addresses[i] + sizes[i];
            const uint64_t most = AT_ONCE - at % AT_ONCE;
            const size_t size = end - at < most ? end - at : most;
            const size_t zeros = scans->first_nonzero(pointer(at), size) / page_size * page_size;
            const size_t seen = zeros < size ? zeros + page_size : zeros;

            memset(freed, zeros && madvise(pointer(at), zeros, MADV_DONTNEED) == 0, zeros / page_size);
            if (seen > zeros)
                freed[zeros / page_size] = 0;
            freed += seen / page_size;
            at += seen;
        }
    }
}

void inplace_split(const uint64_t *pages, size_t n, size_t page_size)
{
    /* The kernel splits a huge page of which it is to age one small page. */
    for (size_t i = 0; i < n; i++)
        madvise(pointer(pages[i]), page_size, MADV_COLD);
}

void inplace_keep_small(const uint64_t *addresses, const uint64_t *sizes, size_t n)
{
    /* It fails where the kernel knows no huge pages, and where there is no room for a mapping more: both are fine. */
    for (size_t i = 0; i < n; i++)
        madvise(pointer(addresses[i]), sizes[i], MADV_NOHUGEPAGE);
}

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
    n_forks++;
}

static void after_fork(void)
{
    pthread_mutex_unlock(&lock);
}

int inplace_forks(uint64_t *forks)
{
    int rc = 0;

    pthread_mutex_lock(&lock);
    if (!counting)
        rc = pthread_atfork(before_fork, after_fork, after_fork) ? DEDUPCORE_ENOMEM : 0;
    counting = rc == 0;
    *forks = n_forks;
    pthread_mutex_unlock(&lock);
    return rc;
}

int inplace_punch(int fd, const uint64_t *offsets, const uint64_t *sizes, size_t n, uint64_t forks)
{
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    int rc = 0;

    pthread_mutex_lock(&lock);
    if (n_forks == forks) {
        rc = 1;
        for (size_t i = 0; i < n && rc == 1; i++) {
            int failed;
            do
                failed = fallocate(fd, mode, (off_t)offsets[i], (off_t)sizes[i]);
            while (failed && errno == EINTR);
            rc = failed ? DEDUPCORE_ESYS : 1;
        }
    }
    pthread_mutex_unlock(&lock);
    return rc;
}
