/* Counts in shared memory for as long as it lives, in one of several ways: counting FILE WAY.
   FILE holds 64-bit counters: one for each of four threads, then signals SIGRTMIN received, then "is ready". */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, SIGNALS = THREADS, READY };
static volatile uint64_t *counters;

/* The first without a rest, the others with many, so that both running and waiting threads are met. */
static void *count(void *counter)
{
    for (;;) {
        ++*(volatile uint64_t *)counter;
        if (counter != counters)
            usleep(100);
    }
    return NULL;
}

static void *nothing(void *unused) { return unused; }

/* Threads and processes that end as fast as they begin. */
static void *multiply(void *counter)
{
    for (;;) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, nothing, NULL) == 0)
            pthread_join(thread, NULL);
        if (*(volatile uint64_t *)counter % 16 == 0) {
            pid_t child = fork();
            if (child == 0)
                _exit(0);
            waitpid(child, NULL, 0);
        }
        ++*(volatile uint64_t *)counter;
    }
    return NULL;
}

/* Begin this program anew, from a thread that is not the first. */
static void *again(void *arguments)
{
    execv("/proc/self/exe", arguments);
    abort();
}

static void received(int number)
{
    (void)number;
    __atomic_fetch_add(&counters[SIGNALS], 1, __ATOMIC_RELAXED);
}

int main(int n, char **arguments)
{
    if (n != 3)
        return 2;
    const char *way = arguments[2];
    int file = open(arguments[1], O_RDWR | O_CLOEXEC);
    void *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED)
        return 1;
    counters = mapped;
    struct sigaction action = {.sa_handler = received, .sa_flags = SA_RESTART};
    sigaction(SIGRTMIN, &action, NULL);
    if (strcmp(way, "private") == 0)
        prctl(PR_SET_DUMPABLE, 0);
    void *(*what)(void *) = strcmp(way, "multiply") == 0 ? multiply : count;
    pthread_t thread;
    for (int i = 0; i < THREADS; ++i)
        pthread_create(&thread, NULL, what, (void *)&counters[i]);
    if (strcmp(way, "exec") == 0)
        pthread_create(&thread, NULL, again, arguments);
    counters[READY] = 1;
    if (strcmp(way, "headless") == 0)
        pthread_exit(NULL);
    if (strcmp(way, "stuck") == 0 && vfork() == 0) { /* waits inside the kernel until this child ends */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    for (;;)
        pause();
}
