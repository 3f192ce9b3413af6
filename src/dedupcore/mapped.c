/*
 * Files mapped for reading that may shrink meanwhile.
 *
 * The kernel answers a read of a mapped page that its file no longer has with SIGBUS. The handler here looks whether the
 * address lies in one of our mappings; if so it puts zero pages from there to the end, notes it, and returns; the read goes on.
 * All that it does is safe in a signal handler: it reads a list whose nodes are published by atomic stores and unmapped but
 * never freed (a node is 40 bytes and is used again by the next mapping), and calls mmap, which on Linux is a bare system call.
 */
#define _GNU_SOURCE
#include "dedupcore.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct dedupcore_map {
    _Atomic(uintptr_t) base; /* 0: free to be used again */
    atomic_size_t size;
    atomic_int shrank;
    dedupcore_map *next; /* set before the node is published, then constant */
};

static _Atomic(dedupcore_map *) maps;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous;
static int installed;

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
    const uintptr_t at = (uintptr_t)info->si_addr, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const int saved_errno = errno;
    /* Not a signal that somebody sent, and not a hardware memory error. */
    for (dedupcore_map *map = info->si_code == BUS_ADRERR ? atomic_load(&maps) : NULL; map; map = map->next) {
        const uintptr_t base = atomic_load(&map->base);
        if (base && at >= base && at - base < atomic_load(&map->size)) {
            /* The file ends before this page, so all that follows is lost as well. One mapping, however many faults. */
            void *place = (void *)(at & ~(page - 1));
            const size_t lost = base + atomic_load(&map->size) - (uintptr_t)place;
            const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
            if (mmap(place, lost, PROT_READ, flags, -1, 0) == place) {
                atomic_store(&map->shrank, 1);
                errno = saved_errno;
                return;
            }
        }
    }
    errno = saved_errno;
    const int sent = info->si_code <= 0; /* by kill and the like: nothing faults again */
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal, info, context);
    } else if (previous.sa_handler == SIG_IGN && sent) {
        return;
    } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
        /* Nobody's: the read faults again and the default action ends the process, as it would have without us. */
        struct sigaction fall_back = {.sa_handler = SIG_DFL};
        sigaction(SIGBUS, &fall_back, NULL);
        if (sent)
            raise(signal);
    } else {
        previous.sa_handler(signal);
    }
}

/* A child must not inherit the lock from a thread that it does not have. */
static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&lock);
}

static int install(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    if (installed)
        return 0;
    if (sigaction(SIGBUS, &action, &previous))
        return DEDUPCORE_ESYS;
    installed = 1;
    return pthread_atfork(before_fork, after_fork, after_fork) ? DEDUPCORE_ENOMEM : 0;
}

/* A node that is free, or a new one. Called with the lock held. */
static dedupcore_map *take_node(void)
{
    for (dedupcore_map *map = atomic_load(&maps); map; map = map->next) {
        if (!atomic_load(&map->base))
            return map;
    }
    dedupcore_map *map = calloc(1, sizeof *map);
    if (map) {
        map->next = atomic_load(&maps);
        atomic_store(&maps, map);
    }
    return map;
}

int dedupcore_map_create(dedupcore_map **created, int fd, size_t size)
{
    *created = NULL;
    if (size == 0)
        return DEDUPCORE_EINVAL;
    void *base = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        return DEDUPCORE_ESYS;
    pthread_mutex_lock(&lock);
    int rc = install();
    dedupcore_map *map = rc ? NULL : take_node();
    if (map) {
        atomic_store(&map->size, size);
        atomic_store(&map->shrank, 0);
        atomic_store(&map->base, (uintptr_t)base);
        *created = map;
    } else {
        munmap(base, size);
        rc = rc ? rc : DEDUPCORE_ENOMEM;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

const void *dedupcore_map_base(const dedupcore_map *map)
{
    return (const void *)atomic_load(&map->base);
}

int dedupcore_map_shrank(const dedupcore_map *map)
{
    return atomic_load(&map->shrank);
}

void dedupcore_map_destroy(dedupcore_map *map)
{
    if (!map)
        return;
    pthread_mutex_lock(&lock);
    void *base = (void *)atomic_load(&map->base);
    const size_t size = atomic_load(&map->size);
    atomic_store(&map->base, 0); /* first: the address may be somebody else's as soon as it is unmapped */
    munmap(base, size);
    pthread_mutex_unlock(&lock);
}
