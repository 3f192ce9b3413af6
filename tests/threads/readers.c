/*
 * readers [policy | writes | probe]: threads that read a pool side by side, as dedupcore.h allows; one with a policy; with "writes" one
 * thread writes meanwhile, which it forbids; with "probe" nothing at all. For ThreadSanitizer, which makes a run with a race fail.
 */
#include <dedupcore.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 64, PAGES = 500, READERS = 4, TURNS = 50 };

static dedupcore_pool *pool;
static dedupcore_key key;
static int racing; /* then what is read may be wrong */
static atomic_int done, written;
static uint32_t gpns[PAGES];
static unsigned char data[PAGES * SIZE];

static void must(int rc)
{
    if (rc && !racing) {
        fprintf(stderr, "%s\n", dedupcore_strerror(rc));
        exit(1);
    }
}

static void *read_all(void *number)
{
    unsigned char *out = malloc(sizeof data);
    dedupcore_pool_counts counts;
    dedupcore_flaw flaw;
    dedupcore_large_hint hint;
    size_t wrong;
    (void)number;
    for (int turn = 0; turn < TURNS || (racing && atomic_load_explicit(&written, memory_order_relaxed) < TURNS); turn++) {
        must(dedupcore_pool_read(pool, 0, gpns, out, PAGES, &wrong));
        if (memcmp(out, data, sizeof data))
            must(DEDUPCORE_EBROKEN);
        dedupcore_pool_count(pool, &counts);
        if (dedupcore_pool_out(pool, 0) || dedupcore_pool_marks(pool, 0, NULL)[0] || dedupcore_pool_limit(pool) < counts.in_use)
            must(DEDUPCORE_EBROKEN);
        must(dedupcore_pool_check(pool, &flaw));
        must(dedupcore_pool_large_hints(pool, &key, &hint, counts.large_pages, NULL));
        if (!dedupcore_pool_large(pool, 1, NULL)[0])
            must(DEDUPCORE_EBROKEN);
        if (dedupcore_pool_table(pool, 0, NULL)[0] == DEDUPCORE_ABSENT || !dedupcore_pool_memory(pool))
            must(DEDUPCORE_EBROKEN);
    }
    free(out);
    atomic_fetch_add_explicit(&done, 1, memory_order_relaxed);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[READERS];
    const dedupcore_policy policy = {DEDUPCORE_POLICY_DIRTY, 0, 0, 0, 0};
    const int with_policy = argc > 1 && strcmp(argv[1], "policy") == 0;
    uint32_t guest;
    size_t wrong;
    int ended;
    if (argc > 1 && strcmp(argv[1], "probe") == 0)
        return 0;
    for (uint32_t i = 0; i < PAGES; i++) {
        gpns[i] = i;
        data[i * SIZE] = (unsigned char)(i % 100);
    }
    dedupcore_key_seeded(&key, 1);
    must(dedupcore_pool_create(&pool, 2 * DEDUPCORE_LARGE_PAGE, SIZE));
    if (with_policy)
        must(dedupcore_pool_set_policy(pool, &policy, &key));
    must(dedupcore_pool_add_guest(pool, PAGES, 0, &guest));
    must(dedupcore_pool_write(pool, guest, gpns, data, PAGES, &wrong));
    if (with_policy)
        must(dedupcore_pool_scan(pool, UINT64_MAX, &ended));
    else
        must(dedupcore_pool_share(pool, &key, NULL));
    must(dedupcore_pool_add_guest(pool, DEDUPCORE_LARGE_PAGE, 0, &guest));
    must(dedupcore_pool_use_large(pool, guest));
    must(dedupcore_pool_write(pool, guest, gpns, data, 1, &wrong));
    racing = argc > 1 && !with_policy;
    for (int i = 0; i < READERS; i++)
        pthread_create(threads + i, NULL, read_all, NULL);
    while (racing && atomic_load_explicit(&done, memory_order_relaxed) < READERS) {
        must(dedupcore_pool_write(pool, 0, gpns, data, 1, &wrong));
        atomic_fetch_add_explicit(&written, 1, memory_order_relaxed); /* which orders nothing else */
    }
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    dedupcore_pool_destroy(pool);
    return 0;
}
