/*
 * Preloaded: makes one call to the system fail, or each from there on, as a bad disk does. fail_io says which; the calls are
 * counted from then on. For files that are read and written at an offset only, as a swap file is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, READ, SYNC };
enum { SHORT = -1, TORN = -2, LIE = -3, NOTHING = -4 }; /* beside numbers of errors */

static int kind, how, for_ever;
static long left, bytes, failed;

void fail_io(int new_kind, long call, int new_how, long new_bytes, int new_for_ever)
{
    kind = new_kind;
    left = call;
    how = new_how;
    bytes = new_bytes;
    for_ever = new_for_ever;
    failed = 0;
}

/* How many calls were made to fail. */
long io_failed(void)
{
    return failed;
}

static int is_due(int which)
{
    if (which != kind || left <= 0 || --left > 0)
        return 0;
    failed++;
    left = for_ever;
    return 1;
}

static long some(size_t n)
{
    return (size_t)bytes < n ? bytes : (long)n;
}

typedef ssize_t pwrite_call(int, const void *, size_t, off_t);
typedef ssize_t preadv_call(int, const struct iovec *, int, off_t, int);
typedef int sync_call(int);

static ssize_t write_or_fail(int fd, const void *data, size_t n, off_t at)
{
    pwrite_call *real = (pwrite_call *)dlsym(RTLD_NEXT, "pwrite64");
    if (!is_due(WRITE))
        return real(fd, data, n, at);
    if (how == SHORT)
        return real(fd, data, (size_t)some(n), at);
    if (how == NOTHING)
        return 0;
    if (how == LIE) { /* in aligned memory, for O_DIRECT */
        char *other = aligned_alloc(4096, (n + 4095) / 4096 * 4096);
        memcpy(other, data, n);
        other[some(n - 1)] ^= 4;
        const ssize_t written = real(fd, other, n, at);
        free(other);
        return written;
    }
    if (how == TORN)
        (void)!real(fd, data, (size_t)some(n), at);
    errno = how == TORN ? EIO : how;
    return -1;
}

static ssize_t read_or_fail(int fd, const struct iovec *into, int n, off_t at)
{
    preadv_call *real = (preadv_call *)dlsym(RTLD_NEXT, "preadv64v2");
    if (!is_due(READ))
        return real(fd, into, n, at, 0);
    if (how == NOTHING)
        return 0;
    if (how == SHORT) {
        struct iovec part = into[0];
        part.iov_len = (size_t)some(part.iov_len);
        return real(fd, &part, 1, at, 0);
    }
    if (how == LIE) {
        const ssize_t read = real(fd, into, n, at, 0);
        ((char *)into[0].iov_base)[some(into[0].iov_len - 1)] ^= 4;
        return read;
    }
    errno = how;
    return -1;
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return write_or_fail(fd, data, n, at); }
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) { return write_or_fail(fd, data, n, at); }
ssize_t preadv(int fd, const struct iovec *into, int n, off_t at) { return read_or_fail(fd, into, n, at); }
ssize_t preadv64(int fd, const struct iovec *into, int n, off_t at) { return read_or_fail(fd, into, n, at); }
ssize_t preadv2(int fd, const struct iovec *into, int n, off_t at, int f) { (void)f; return read_or_fail(fd, into, n, at); }
ssize_t preadv64v2(int fd, const struct iovec *into, int n, off_t at, int f) { (void)f; return read_or_fail(fd, into, n, at); }

int fdatasync(int fd)
{
    if (!is_due(SYNC))
        return ((sync_call *)dlsym(RTLD_NEXT, "fdatasync"))(fd);
    errno = how;
    return -1;
}
