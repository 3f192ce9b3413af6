/*
 * policies STEP PAGES: two guests of content names in a pool with a policy, each name twice, and then one step of its scanner:
 * "dirty" and "ksm": the pass that shares all of them; "dirty again": one after each 64th page of a guest was written;
 * "ksm again" and "smart": one of which nothing comes, without smart_scan and with it; "esx": the first pass of a guest whose pages
 * are all different; "esx idle": 1000 pages after it, of which nothing comes. Or a guest's accesses, as many as it has pages, 3 of
 * 10 of them writes: "access" in place, "access shared" to pages that the other guest shares. Or all pages of a guest are equal, and
 * shared by KSM, four a frame: "crowd leaves": two pages of each frame are written, in scattered order; "crowd joins": so many others
 * take their places. Instructions are counted in that pass, or batch, alone: it is made by a function of its own. Prints nothing.
 */
#include <dedupcore.h>

#include <stdlib.h>
#include <string.h>

static size_t n;
static uint32_t *gpns;
static uint64_t *names;
static dedupcore_pool *pool;

#define APART __attribute__((noinline)) /* so that callgrind can tell it */

APART int step_scan(void)
{
    int ended;
    return dedupcore_pool_scan(pool, UINT64_MAX, &ended) || !ended;
}

APART int step_scan_guest(void)
{
    int ended;
    uint64_t pages = UINT64_MAX;
    return dedupcore_pool_scan_guest(pool, 0, &pages, &ended) || !ended;
}

static uint8_t *writes;

APART int step_touch(void)
{
    dedupcore_touched touched;
    size_t wrong;
    return dedupcore_pool_touch(pool, 0, gpns, writes, names, n, &touched, &wrong) || touched.done != n;
}

/* In scattered order. */
static int access_pages(void)
{
    writes = malloc(n);
    if (!writes)
        return 1;
    for (size_t i = 0; i < n; i++) {
        gpns[i] = (uint32_t)(i * 7 % n);
        writes[i] = i % 10 < 3;
    }
    return step_touch();
}

/* Two guests with n pages each, of which the second has the same as the first. */
static int fill(uint32_t kind, uint32_t smart_scan)
{
    const dedupcore_policy policy = {kind, 256, 0, smart_scan, 1};
    dedupcore_key key;
    size_t wrong;
    uint32_t guest;
    dedupcore_key_seeded(&key, 1);
    if (dedupcore_pool_set_policy(pool, &policy, &key))
        return 1;
    for (int i = 0; i < 2; i++) {
        if (dedupcore_pool_add_guest(pool, n, 0, &guest) || dedupcore_pool_write(pool, guest, gpns, names, n, &wrong))
            return 1;
    }
    return 0;
}

/* The same, but alone: nothing is shared. */
static int fill_unique(uint32_t kind, uint32_t smart_scan)
{
    size_t wrong;
    if (fill(kind, smart_scan) || dedupcore_pool_release(pool, 1, gpns, n, &wrong))
        return 1;
    return 0;
}

APART int pass_before(void) /* the same, but not counted: it has another name */
{
    int ended;
    return dedupcore_pool_scan(pool, UINT64_MAX, &ended);
}

APART int guest_pass_before(void)
{
    int ended;
    uint64_t pages = UINT64_MAX;
    return dedupcore_pool_scan_guest(pool, 0, &pages, &ended);
}

APART int write_pages(uint32_t guest, size_t n_pages)
{
    size_t wrong;
    return dedupcore_pool_write(pool, guest, gpns, names, n_pages, &wrong);
}

APART int step_leave(void)
{
    return write_pages(1, n / 2);
}

APART int step_join(void)
{
    int ended;
    return dedupcore_pool_scan(pool, n / 2, &ended) || ended;
}

/* Guest 0, of n / 2 pages, is looked at before the crowd, guest 1. */
static int crowd(int joins)
{
    const dedupcore_policy policy = {DEDUPCORE_POLICY_KSM, 4, 0, 0, 1};
    dedupcore_key key;
    uint32_t guest;
    dedupcore_key_seeded(&key, 1);
    for (size_t i = 0; i < n; i++)
        names[i] = 1;
    if (dedupcore_pool_set_policy(pool, &policy, &key) || dedupcore_pool_add_guest(pool, n / 2, 0, &guest) ||
        dedupcore_pool_add_guest(pool, n, 0, &guest) || write_pages(1, n) || pass_before() || pass_before())
        return 1;
    for (size_t i = 0; i < n / 2; i++) {
        gpns[i] = (uint32_t)(4 * (i * 7 % (n / 4)) + i / (n / 4));
        names[i] = 2 + i;
    }
    if (!joins)
        return step_leave();
    if (step_leave())
        return 1;
    for (size_t i = 0; i < n / 2; i++) {
        gpns[i] = (uint32_t)i;
        names[i] = 1;
    }
    return write_pages(0, n / 2) || pass_before() || step_join();
}

/* A tick of a scanner that has nothing to look at. */
APART int step_idle(void)
{
    int ended;
    uint64_t pages = 1000;
    return dedupcore_pool_scan_guest(pool, 0, &pages, &ended) || pages || ended;
}

int main(int argc, char **argv)
{
    size_t wrong;
    if (argc != 3)
        return 2;
    const char *step = argv[1];
    n = strtoull(argv[2], NULL, 10);
    gpns = malloc(n * sizeof *gpns);
    names = malloc(n * sizeof *names);
    if (!gpns || !names || dedupcore_pool_create(&pool, 3 * n, 8))
        return 1;
    for (size_t i = 0; i < n; i++) {
        gpns[i] = (uint32_t)i;
        names[i] = i + 1;
    }
    if (strcmp(step, "dirty") == 0)
        return fill(DEDUPCORE_POLICY_DIRTY, 0) || step_scan();
    if (strcmp(step, "dirty again") == 0) {
        if (fill(DEDUPCORE_POLICY_DIRTY, 0) || pass_before())
            return 1;
        for (size_t i = 0; i < n / 64; i++) {
            gpns[i] = (uint32_t)(i * 64);
            names[i] = n + i;
        }
        return dedupcore_pool_write(pool, 0, gpns, names, n / 64, &wrong) || step_scan();
    }
    if (strcmp(step, "ksm") == 0)
        return fill(DEDUPCORE_POLICY_KSM, 0) || pass_before() || step_scan();
    if (strcmp(step, "ksm again") == 0)
        return fill_unique(DEDUPCORE_POLICY_KSM, 0) || pass_before() || pass_before() || step_scan();
    if (strcmp(step, "smart") == 0)
        return fill_unique(DEDUPCORE_POLICY_KSM, 1) || pass_before() || pass_before() || step_scan();
    if (strcmp(step, "esx idle") == 0)
        return fill_unique(DEDUPCORE_POLICY_ESX, 0) || guest_pass_before() || step_idle();
    if (strcmp(step, "access") == 0)
        return fill_unique(DEDUPCORE_POLICY_KSM, 0) || pass_before() || pass_before() || access_pages();
    if (strcmp(step, "access shared") == 0)
        return fill(DEDUPCORE_POLICY_KSM, 0) || pass_before() || pass_before() || access_pages();
    if (strcmp(step, "crowd leaves") == 0)
        return crowd(0);
    if (strcmp(step, "crowd joins") == 0)
        return crowd(1);
    if (strcmp(step, "esx") == 0)
        return fill_unique(DEDUPCORE_POLICY_ESX, 0) || step_scan_guest();
    return 2;
}
