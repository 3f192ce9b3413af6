/*
 * pool STEP PAGES: two guests of content names in a pool, each name twice, and then one step of it: "touch", "write" (in place),
 * "break" (copy on write), "read", "release" of a guest's pages in scattered order, or "share" of all; or, of a guest that uses
 * large pages, "touch_large" and "rebuild", the latter by copying. Instructions are counted in the call of the step alone: it
 * is made by a function of this name. Prints nothing.
 */
#include <dedupcore.h>

#include <stdlib.h>
#include <string.h>

static size_t n;
static uint32_t *gpns;
static uint64_t *names;
static dedupcore_pool *pool;

#define APART __attribute__((noinline)) /* so that callgrind can tell it */

APART int step_write(void)
{
    size_t wrong;
    return dedupcore_pool_write(pool, 0, gpns, names, n, &wrong);
}

APART int step_read(void)
{
    size_t wrong;
    return dedupcore_pool_read(pool, 0, gpns, names, n, &wrong);
}

APART int step_release(void)
{
    size_t wrong;
    return dedupcore_pool_release(pool, 0, gpns, n, &wrong);
}

APART int step_share(void)
{
    dedupcore_key key;
    dedupcore_key_seeded(&key, 1);
    return dedupcore_pool_share(pool, &key, NULL);
}

APART int step_rebuild(void)
{
    static uint8_t rebuilt[1 << 16];
    size_t wrong, n_rebuilt = 0;
    for (size_t i = 0; i < n / DEDUPCORE_LARGE_PAGE; i++)
        gpns[i] = (uint32_t)i;
    if (dedupcore_pool_rebuild_large(pool, 0, gpns, n / DEDUPCORE_LARGE_PAGE, 0, rebuilt, &wrong))
        return 1;
    for (size_t i = 0; i < n / DEDUPCORE_LARGE_PAGE; i++)
        n_rebuilt += rebuilt[i];
    return n_rebuilt != n / DEDUPCORE_LARGE_PAGE;
}

/* Makes the two guests. */
static int fill(void)
{
    size_t wrong;
    uint32_t guest;
    for (int i = 0; i < 2; i++) {
        if (dedupcore_pool_add_guest(pool, n, 0, &guest) || dedupcore_pool_write(pool, guest, gpns, names, n, &wrong))
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    dedupcore_key key;
    uint32_t guest;
    if (argc != 3)
        return 2;
    const char *step = argv[1];
    n = strtoull(argv[2], NULL, 10);
    gpns = malloc(n * sizeof *gpns);
    names = malloc(n * sizeof *names);
    if (!gpns || !names || dedupcore_pool_create(&pool, 3 * n, 8))
        return 1;
    for (size_t i = 0; i < n; i++) {
        gpns[i] = (uint32_t)(i * 5 % n); /* each once, for n that is a power of two */
        names[i] = i + 1;
    }
    if (strcmp(step, "touch") == 0)
        return dedupcore_pool_add_guest(pool, n, 0, &guest) || step_write();
    if (strcmp(step, "touch_large") == 0)
        return dedupcore_pool_add_guest(pool, n, 0, &guest) || dedupcore_pool_use_large(pool, guest) || step_write();
    if (fill())
        return 1;
    for (size_t i = 0; i < n; i++)
        gpns[i] = (uint32_t)(i * 7 % n); /* frames are not in this order, either */
    if (strcmp(step, "share") == 0)
        return step_share();
    if (strcmp(step, "write") == 0)
        return step_write();
    if (strcmp(step, "rebuild") == 0)
        return step_rebuild();
    dedupcore_key_seeded(&key, 1);
    if (dedupcore_pool_share(pool, &key, NULL))
        return 1;
    if (strcmp(step, "break") == 0)
        return step_write();
    if (strcmp(step, "read") == 0)
        return step_read();
    if (dedupcore_pool_release(pool, 1, gpns, n, &(size_t){0})) /* so that the frames become free */
        return 1;
    return strcmp(step, "release") == 0 ? step_release() : 2;
}
