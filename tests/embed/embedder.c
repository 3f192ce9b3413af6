/* Uses all of dedupcore.h, as a simulator would that links libdedupcore.a. Exits 0 if everything is as it should be. */
#define _GNU_SOURCE
#include <dedupcore.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

enum { SIZE = 4096, FRAMES = 6, GUESTS = 2 };

static void *run_tasks(void *at)
{
    dedupcore_job *job = at;
    CHECK(dedupcore_job_run(job, 0) == 0);
    return NULL;
}

/* References of an access to a page of that size, on one of that size, with tables in pages of the latter. */
static uint64_t references(const dedupcore_tlb_geometry *geometry, uint8_t size, uint8_t host)
{
    dedupcore_tlb *tlb;
    dedupcore_tlb_counts counts;
    size_t wrong = 9;
    CHECK(dedupcore_tlb_create(&tlb, geometry) == 0);
    CHECK(dedupcore_tlb_map(tlb, &size, &host, 1, host, &wrong) == 0 && wrong == 1);
    CHECK(dedupcore_tlb_access(tlb, (uint64_t[]){4097}, 1, &wrong) == 0 && wrong == 1);
    dedupcore_tlb_count(tlb, &counts);
    CHECK(counts.walks[size < host ? size : host] == 1);
    CHECK(counts.references_found[3] == counts.references[0] + counts.references[1]);
    dedupcore_tlb_destroy(tlb);
    return counts.references[0] + counts.references[1];
}

static void translate(void)
{
    enum { NONE = DEDUPCORE_NO_CACHE, GIB = 512 };
    const dedupcore_tlb_geometry none = {.l1 = {NONE, NONE, NONE},
                                         .l2 = {NONE, NONE, NONE},
                                         .walk = {NONE, NONE, NONE},
                                         .nested = NONE,
                                         .host_walk = {NONE, NONE, NONE}};
    dedupcore_tlb_geometry geometry = none;
    dedupcore_tlb_counts counts;
    dedupcore_tlb *tlb = (dedupcore_tlb *)&geometry;
    static uint8_t sizes[GIB + 1];
    size_t wrong = 9;
    CHECK(references(&none, DEDUPCORE_PAGE_4K, DEDUPCORE_PAGE_4K) == 24);
    CHECK(references(&none, DEDUPCORE_PAGE_4K, DEDUPCORE_PAGE_2M) == 19);
    CHECK(references(&none, DEDUPCORE_PAGE_2M, DEDUPCORE_PAGE_2M) == 15);

    /* Geometries that cannot be. */
    geometry.caches[1] = (dedupcore_cache){6, 4}; /* ways that do not divide */
    CHECK(dedupcore_tlb_create(&tlb, &geometry) == DEDUPCORE_EINVAL && !tlb);
    geometry.caches[1] = (dedupcore_cache){12, 4}; /* three sets */
    CHECK(dedupcore_tlb_create(&tlb, &geometry) == DEDUPCORE_EINVAL && !tlb);
    geometry.caches[1] = (dedupcore_cache){4, 0};
    CHECK(dedupcore_tlb_create(&tlb, &geometry) == DEDUPCORE_EINVAL && !tlb);
    geometry.caches[1] = (dedupcore_cache){DEDUPCORE_MAX_CACHE + 1, DEDUPCORE_MAX_CACHE + 1};
    CHECK(dedupcore_tlb_create(&tlb, &geometry) == DEDUPCORE_EINVAL && !tlb);
    geometry = none;
    geometry.data[2] = (dedupcore_cache){6, 4};
    CHECK(dedupcore_tlb_create(&tlb, &geometry) == DEDUPCORE_EINVAL && !tlb);
    dedupcore_tlb_geometry *const g = &geometry;
    uint8_t *const numbers[] = {g->l1, g->l2 + 2, g->walk + 1, &g->nested, g->host_walk + 2};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        geometry = none;
        *numbers[i] = DEDUPCORE_MAX_CACHES;
        CHECK(dedupcore_tlb_create(&tlb, &geometry) == DEDUPCORE_EINVAL && !tlb);
        *numbers[i] = DEDUPCORE_MAX_CACHES - 1; /* of no entries */
        CHECK(dedupcore_tlb_create(&tlb, &geometry) == 0);
        dedupcore_tlb_destroy(tlb);
    }
    geometry = none;
    geometry.l2_as[DEDUPCORE_PAGE_2M] = DEDUPCORE_PAGE_1G;
    CHECK(dedupcore_tlb_create(&tlb, &geometry) == DEDUPCORE_EINVAL && !tlb);

    /* Memories that cannot be, and accesses beyond one. */
    geometry = none;
    geometry.caches[0] = (dedupcore_cache){2, 2};
    geometry.l1[DEDUPCORE_PAGE_4K] = 0;
    CHECK(dedupcore_tlb_create(&tlb, &geometry) == 0);
    CHECK(dedupcore_tlb_access(tlb, (uint64_t[]){0}, 1, &wrong) == DEDUPCORE_EINVAL && wrong == 0);
    CHECK(dedupcore_tlb_map(tlb, sizes, NULL, 0, DEDUPCORE_PAGE_4K, &wrong) == DEDUPCORE_EINVAL && wrong == 0);
    CHECK(dedupcore_tlb_map(tlb, sizes, NULL, 1, DEDUPCORE_PAGE_SIZES, &wrong) == DEDUPCORE_EINVAL && wrong == 1);
    memset(sizes, DEDUPCORE_PAGE_1G, GIB);
    CHECK(dedupcore_tlb_map(tlb, sizes, NULL, GIB + 1, DEDUPCORE_PAGE_4K, &wrong) == 0);
    CHECK(dedupcore_tlb_map(tlb, sizes, NULL, GIB - 1, DEDUPCORE_PAGE_4K, &wrong) == DEDUPCORE_EINVAL);
    CHECK(wrong == 0);
    sizes[GIB] = DEDUPCORE_PAGE_1G;
    CHECK(dedupcore_tlb_map(tlb, sizes, NULL, GIB + 1, DEDUPCORE_PAGE_4K, &wrong) == DEDUPCORE_EINVAL);
    CHECK(wrong == GIB);
    memset(sizes, DEDUPCORE_PAGE_4K, GIB);
    CHECK(dedupcore_tlb_map(tlb, sizes, sizes + 1, GIB, DEDUPCORE_PAGE_4K, &wrong) == DEDUPCORE_EINVAL);
    CHECK(wrong == GIB - 1);
    sizes[5] = DEDUPCORE_PAGE_SIZES;
    CHECK(dedupcore_tlb_map(tlb, sizes, NULL, GIB, DEDUPCORE_PAGE_4K, &wrong) == DEDUPCORE_EINVAL && wrong == 5);
    CHECK(dedupcore_tlb_map(tlb, sizes, NULL, 2, DEDUPCORE_PAGE_4K, &wrong) == 0);
    CHECK(dedupcore_tlb_access(tlb, (uint64_t[]){0, 2 << 21, 3 << 21}, 3, &wrong) == DEDUPCORE_EINVAL);
    CHECK(wrong == 1);
    dedupcore_tlb_count(tlb, &counts);
    CHECK(counts.walks[0] == 0 && counts.references[0] == 0);
    CHECK(dedupcore_tlb_access(tlb, (uint64_t[]){0, 4096, (2 << 21) - 1, 4096}, 4, &wrong) == 0 && wrong == 4);
    dedupcore_tlb_count(tlb, &counts);
    CHECK(counts.walks[0] == 3 && counts.l1_hits[0] == 1);
    CHECK(counts.references[0] == 12 && counts.references[1] == 0);
    dedupcore_tlb_destroy(tlb);
    dedupcore_tlb_destroy(NULL);
}

int main(void)
{
    /* Two guests: A 0 B | A B B, the last from a span of its own. */
    static unsigned char memory[5 * SIZE], more[SIZE + 1];
    memset(memory, 'A', SIZE);
    memset(memory + 2 * SIZE, 'B', SIZE);
    memset(memory + 3 * SIZE, 'A', SIZE);
    memset(memory + 4 * SIZE, 'B', SIZE);
    memset(more, 'B', sizeof more);
    const dedupcore_span spans[] = {{memory, 5}, {NULL, 0}, {more + 1, 1}};
    static const uint32_t expected[FRAMES] = {0, 1, 2, 0, 2, 2};

    dedupcore_key key;
    uint32_t canonical[FRAMES];
    dedupcore_result result;
    CHECK(dedupcore_key_random(&key) == 0);
    dedupcore_key_seeded(&key, 1);
    CHECK(dedupcore_find_duplicates(spans, 3, SIZE, &key, canonical, &result) == 0);
    CHECK(memcmp(canonical, expected, sizeof expected) == 0);
    CHECK(result.n_frames == 6 && result.n_zero == 1 && result.n_distinct == 2 && result.zero_canonical == 1);
    CHECK(result.work.frames_signed == 6 && result.work.frames_compared == 3);

    /* The same, step by step, each phase's first task on a thread of its own. */
    dedupcore_job *job;
    uint32_t tasks;
    int rc, phases = 0;
    memset(canonical, 0xff, sizeof canonical);
    CHECK(dedupcore_job_create(&job, spans, 3, SIZE, &key, canonical) == 0);
    CHECK(dedupcore_job_result(job, &result) == DEDUPCORE_ESTATE);
    CHECK(strcmp(dedupcore_job_phase(job), "created") == 0);
    while ((rc = dedupcore_job_next(job, &tasks)) == 1) {
        pthread_t thread;
        CHECK(tasks >= 1);
        CHECK(dedupcore_job_run(job, tasks) == DEDUPCORE_EINVAL);
        CHECK(pthread_create(&thread, NULL, run_tasks, job) == 0);
        for (uint32_t task = 1; task < tasks; task++)
            CHECK(dedupcore_job_run(job, task) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        phases++;
    }
    CHECK(rc == 0 && phases == 4 && strcmp(dedupcore_job_phase(job), "done") == 0);
    CHECK(dedupcore_job_next(job, &tasks) == 0 && tasks == 0);
    CHECK(dedupcore_job_run(job, 0) == DEDUPCORE_EINVAL);
    CHECK(dedupcore_job_result(job, &result) == 0 && result.n_distinct == 2);
    CHECK(memcmp(canonical, expected, sizeof expected) == 0);
    dedupcore_job_destroy(job);

    /* A job may be given up at any time. */
    CHECK(dedupcore_job_create(&job, spans, 3, SIZE, &key, canonical) == 0);
    CHECK(dedupcore_job_next(job, &tasks) == 1);
    dedupcore_job_destroy(job);
    dedupcore_job_destroy(NULL);

    /* Errors. */
    const dedupcore_span many[] = {{NULL, DEDUPCORE_MAX_FRAMES}, {NULL, 1}};
    const size_t bad[] = {0, 4, 12, 4095, (size_t)DEDUPCORE_MAX_FRAME_SIZE * 2};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        job = (dedupcore_job *)&key;
        CHECK(dedupcore_job_create(&job, spans, 3, bad[i], &key, canonical) == DEDUPCORE_EINVAL && !job);
    }
    CHECK(dedupcore_find_duplicates(many, 2, SIZE, &key, canonical, &result) == DEDUPCORE_ETOOBIG);
    CHECK(dedupcore_find_duplicates(NULL, 0, SIZE, &key, NULL, &result) == 0);
    CHECK(result.n_frames == 0 && result.zero_canonical == UINT32_MAX);
    for (int error = -8; error <= 1; error++)
        CHECK(*dedupcore_strerror(error));
    CHECK(strcmp(dedupcore_strerror(DEDUPCORE_ENOMEM), dedupcore_strerror(DEDUPCORE_EINVAL)) != 0);
    CHECK(strcmp(dedupcore_strerror(-99), "unknown error") == 0);

    /* Guests. */
    const dedupcore_guest guests[GUESTS] = {{0, 3, 1}, {3, 6, 1}};
    uint32_t copies[FRAMES] = {0}, owners[FRAMES] = {0}, scratch[FRAMES] = {0};
    dedupcore_guest_counts counts[GUESTS];
    dedupcore_count(canonical, guests, GUESTS, copies, owners, scratch, counts);
    CHECK(copies[0] == 2 && copies[1] == 1 && copies[2] == 3 && copies[3] == 0);
    CHECK(owners[0] == 2 && owners[1] == 1 && owners[2] == 2 && owners[5] == 0);
    CHECK(counts[0].zero == 1 && counts[0].distinct == 2 && counts[0].shared_across == 2);
    CHECK(counts[1].zero == 0 && counts[1].distinct == 2 && counts[1].shared_across == 3);

    /* Frames that stream by. */
    uint64_t hashes[4] = {0};
    CHECK(dedupcore_hash_frames("same 16 bytes...\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0same 16 bytes...same 16 bytes!!!", 4, 16, &key,
                                hashes) == 0);
    CHECK(hashes[0] && !hashes[1] && hashes[2] == hashes[0] && hashes[3] && hashes[3] != hashes[0]);
    CHECK(dedupcore_hash_frames(NULL, 0, 16, &key, NULL) == 0 && dedupcore_hash_frames(NULL, 0, 2, &key, NULL) < 0);
    const uint32_t both_second[] = {1, 1};
    uint8_t same[2] = {7, 7};
    CHECK(dedupcore_match_frames("aaaaaaaabbbbbbbb", 2, 8, "ccccccccbbbbbbbb", both_second, same) == 0);
    CHECK(!same[0] && same[1] == 1);
    CHECK(dedupcore_match_frames(NULL, 0, 2, NULL, NULL, NULL) == DEDUPCORE_EINVAL);

    /* A simulated guest: two pages in one block and one at a fixed place, of which the second diverges. */
    const uint64_t sizes[] = {2, 1}, common[] = {1, 2, 3}, values[] = {16, 0};
    const uint8_t orders[] = {DEDUPCORE_MAX_ORDER, 0};
    const int64_t fixed[] = {-1, 1};
    const uint16_t variables[] = {0, 1, 0};
    const uint8_t regions[] = {7, 7, 9};
    const uint32_t chances[] = {0, UINT32_MAX};
    uint32_t places[3];
    uint64_t guest_names[4] = {0};
    uint8_t guest_regions[4] = {0};
    size_t wrong = 9;
    CHECK(dedupcore_random(1, 2) == dedupcore_random(1, 2) && dedupcore_random(1, 2) != dedupcore_random(2, 1));
    CHECK(dedupcore_place(1, 4, 0, sizes, orders, fixed, 2, places) == 0);
    CHECK(places[0] == 2 && places[1] == 3 && places[2] == 1);
    CHECK(dedupcore_place(1, 2, 0, sizes, orders, fixed, 2, places) == DEDUPCORE_EINVAL);
    CHECK(dedupcore_place(1, 4, DEDUPCORE_ALWAYS + 1, sizes, orders, fixed, 2, places) == DEDUPCORE_EINVAL);
    const dedupcore_template pages = {3, common, variables, regions, 0};
    const dedupcore_variation variation = {2, values, chances, 1u << 20, 5};
    CHECK(dedupcore_name_pages(&pages, &variation, places, guest_names, guest_regions, 4, &wrong) == 0);
    CHECK(guest_names[0] == 0 && guest_names[1] == 19 && guest_names[2] == 17 && guest_names[3] == ((1u << 20) | 1));
    CHECK(guest_regions[0] == 0 && guest_regions[1] == 9 && guest_regions[3] == 7 && wrong == 9);
    CHECK(dedupcore_name_pages(&pages, &variation, places, guest_names, guest_regions, 3, &wrong) == DEDUPCORE_EINVAL);
    CHECK(wrong == 1);
    static uint32_t quantiles[DEDUPCORE_QUANTILES + 1];
    uint32_t drawn[2];
    uint8_t is_write[2];
    for (uint32_t k = 0; k <= DEDUPCORE_QUANTILES; k++)
        quantiles[k] = k < DEDUPCORE_QUANTILES / 2 ? 0 : 3; /* a half is the hottest page's, the rest beyond the coldest */
    CHECK(dedupcore_draw_accesses(1, 7, places, 3, quantiles, DEDUPCORE_ALWAYS, drawn, is_write, 2) == 0);
    for (uint32_t i = 0; i < 2; i++)
        CHECK(is_write[i] == 1 && drawn[i] == places[dedupcore_random(1, 7 + i) >> 63 ? 2 : 0]);
    CHECK(dedupcore_draw_accesses(1, 7, places, 0, quantiles, 0, drawn, is_write, 2) == DEDUPCORE_EINVAL);
    CHECK(dedupcore_draw_accesses(1, 7, places, 3, quantiles, DEDUPCORE_ALWAYS + 1, drawn, is_write, 2) == DEDUPCORE_EINVAL);
    for (unsigned texture = DEDUPCORE_SPARSE; texture <= DEDUPCORE_MIXED; texture++) {
        CHECK(dedupcore_materialize(guest_names, 4, SIZE, texture, memory) == 0);
        CHECK(dedupcore_find_duplicates(spans, 1, SIZE, &key, (uint32_t[5]){0}, &result) == 0);
        CHECK(result.n_zero == 1);
    }
    CHECK(dedupcore_materialize(guest_names, 4, SIZE, DEDUPCORE_MIXED + 1, memory) == DEDUPCORE_EINVAL);
    CHECK(dedupcore_materialize(guest_names, 4, SIZE - 8, DEDUPCORE_NOISE, memory) == DEDUPCORE_EINVAL);
    CHECK(dedupcore_materialize(guest_names, 4, 32, DEDUPCORE_NOISE, memory) == DEDUPCORE_EINVAL);
    memset(memory, 1, sizeof memory);

    /* A pool: two guests of a domain and one of another, two of whose pages are equal, as are two of the first's. */
    dedupcore_pool *pool = (dedupcore_pool *)&key;
    dedupcore_pool_counts now;
    dedupcore_flaw flaw;
    const uint32_t gpns[] = {2, 0}, out_of_range[] = {0, 3}, twice[] = {1, 1}, first_frame[] = {0};
    unsigned char pages_in[] = "aaaaaaaabbbbbbbb", pages_out[17] = {0};
    uint32_t number = 9;
    uint64_t n_pages;
    uint8_t moved = 9;
    CHECK(dedupcore_pool_create(&pool, 0, 8) == DEDUPCORE_EINVAL && !pool);
    CHECK(dedupcore_pool_create(&pool, 4, 12) == DEDUPCORE_EINVAL && !pool);
    CHECK(dedupcore_pool_create(&pool, 5, 8) == 0);
    CHECK(dedupcore_pool_add_guest(pool, 0, 0, &number) == DEDUPCORE_EINVAL);
    CHECK(dedupcore_pool_add_guest(pool, 3, DEDUPCORE_MAX_DOMAINS, &number) == DEDUPCORE_EINVAL && number == 9);
    for (uint32_t domain = 0; domain < 2; domain++) {
        CHECK(dedupcore_pool_add_guest(pool, 3, domain, &number) == 0 && number == domain);
        CHECK(dedupcore_pool_write(pool, number, gpns, pages_in, 2, &wrong) == 0);
    }
    CHECK(dedupcore_pool_add_guest(pool, DEDUPCORE_MAX_FRAMES, 0, &number) == DEDUPCORE_ETOOBIG);
    CHECK(dedupcore_pool_table(pool, 1, &n_pages)[2] == 2 && n_pages == 3 && !dedupcore_pool_table(pool, 2, NULL));
    CHECK(dedupcore_pool_write(pool, 0, gpns, "bbbbbbbb", 1, &wrong) == 0);
    CHECK(dedupcore_pool_write(pool, 0, out_of_range, pages_in, 2, &wrong) == DEDUPCORE_EINVAL && wrong == 1);
    CHECK(dedupcore_pool_write(pool, 0, twice, pages_in, 2, &wrong) == DEDUPCORE_EINVAL && wrong == 1);
    CHECK(dedupcore_pool_write(pool, 2, gpns, pages_in, 2, &wrong) == DEDUPCORE_EINVAL && wrong == 2);
    CHECK(dedupcore_pool_write(pool, 0, gpns, dedupcore_pool_memory(pool), 2, &wrong) == DEDUPCORE_EINVAL && wrong == 2);
    dedupcore_work took;
    CHECK(dedupcore_pool_share(pool, &key, &took) == 0 && took.frames_signed == 4);
    dedupcore_pool_count(pool, &now);
    CHECK(now.capacity == 5 && now.in_use == 3 && now.pages_present == 4 && now.pages_shared == 1 && now.pages_merged == 1);
    CHECK(memcmp(dedupcore_pool_memory(pool), "bbbbbbbb\0\0\0\0\0\0\0\0aaaaaaaabbbbbbbb", 32) == 0);
    CHECK(dedupcore_pool_write(pool, 0, (uint32_t[]){0, 1}, pages_in, 2, &wrong) == 0);
    CHECK(dedupcore_pool_write(pool, 1, (uint32_t[]){1}, pages_in, 1, &wrong) == DEDUPCORE_EFULL);
    CHECK(dedupcore_pool_read(pool, 0, gpns, pages_out, 2, &wrong) == 0 && memcmp(pages_out, "bbbbbbbbaaaaaaaa", 17) == 0);
    CHECK(dedupcore_pool_read(pool, 0, out_of_range, pages_out, 2, &wrong) == DEDUPCORE_EINVAL && wrong == 1);
    CHECK(dedupcore_pool_merge(pool, 0, (uint32_t[]){1}, first_frame, 1, &moved, &wrong) == 0 && moved == 1);
    CHECK(dedupcore_pool_merge(pool, 0, (uint32_t[]){0}, first_frame, 1, &moved, &wrong) == 0 && moved == 0);
    CHECK(dedupcore_pool_merge(pool, 1, gpns, first_frame, 1, &moved, &wrong) == DEDUPCORE_EINVAL && wrong == 0);
    CHECK(dedupcore_pool_release(pool, 0, (uint32_t[]){0, 1, 2}, 3, &wrong) == 0);
    CHECK(dedupcore_pool_release(pool, 0, twice, 2, &wrong) == DEDUPCORE_EINVAL && wrong == 1);
    CHECK(dedupcore_pool_check(pool, &flaw) == 0);
    dedupcore_pool_count(pool, &now);
    CHECK(now.in_use == 2 && now.cow_breaks == 1 && now.first_touches == 5 && now.pages_released == 3);
    dedupcore_pool_destroy(pool);
    dedupcore_pool_destroy(NULL);

    /* Large pages: those of two guests, equal but for the page that is written. */
    enum { LARGE = DEDUPCORE_LARGE_PAGE };
    dedupcore_large_hint hints[2];
    const uint32_t range[] = {0}, no_range[] = {1};
    CHECK(dedupcore_pool_create(&pool, 3 * LARGE, 8) == 0);
    CHECK(dedupcore_pool_use_large(pool, 0) == DEDUPCORE_EINVAL);
    for (uint32_t guest = 0; guest < 2; guest++) {
        CHECK(dedupcore_pool_add_guest(pool, LARGE + 1, 0, &number) == 0 && dedupcore_pool_use_large(pool, number) == 0);
        CHECK(dedupcore_pool_write(pool, number, gpns, "aaaaaaaabbbbbbbb", 2, &wrong) == 0);
    }
    CHECK(dedupcore_pool_large(pool, 1, &n_pages)[0] == 1 && n_pages == 1 && !dedupcore_pool_large(pool, 2, NULL));
    CHECK(dedupcore_pool_large_hints(pool, &key, hints, 1, NULL) == DEDUPCORE_EINVAL);
    CHECK(dedupcore_pool_large_hints(pool, &key, hints, 2, &took) == 0 && took.frames_signed == 2 * LARGE);
    CHECK(hints[1].guest == 1 && hints[1].range == 0 && hints[1].zero == LARGE - 2 && hints[1].shareable == 2);
    CHECK(dedupcore_pool_share_large(pool, &key, &took) == 0 && took.frames_signed == 2);
    CHECK(dedupcore_pool_write(pool, 1, gpns, "cccccccc", 1, &wrong) == 0 && dedupcore_pool_large(pool, 1, NULL)[0] == 0);
    CHECK(dedupcore_pool_break_large(pool, 1, range, 1, &wrong) == DEDUPCORE_EINVAL && wrong == 0);
    CHECK(dedupcore_pool_rebuild_large(pool, 1, no_range, 1, 0, &moved, &wrong) == DEDUPCORE_EINVAL && wrong == 0);
    CHECK(dedupcore_pool_rebuild_large(pool, 1, range, 1, LARGE - 2, &moved, &wrong) == 0 && moved == 0);
    CHECK(dedupcore_pool_rebuild_large(pool, 1, range, 1, LARGE - 1, &moved, &wrong) == 0 && moved == 1);
    CHECK(dedupcore_pool_break_large(pool, 1, range, 1, &wrong) == 0 && dedupcore_pool_check(pool, &flaw) == 0);
    dedupcore_pool_count(pool, &now);
    CHECK(now.in_use == 2 * LARGE && now.large_pages == 1 && now.large_breaks == 2 && now.large_rebuilds == 1);
    dedupcore_pool_destroy(pool);

    /* Policies: two pages of two guests are equal. */
    dedupcore_policy policy = {DEDUPCORE_POLICY_KSM, 1, 0, 0, 0};
    dedupcore_scan_counts scanned;
    uint64_t left = 5;
    int ended = 9;
    CHECK(dedupcore_pool_create(&pool, 8, 8) == 0);
    CHECK(dedupcore_pool_set_policy(pool, &policy, &key) == DEDUPCORE_EINVAL); /* max_page_sharing */
    dedupcore_pool_scan_count(pool, &scanned);
    CHECK(dedupcore_pool_scan(pool, 1, &ended) == DEDUPCORE_EINVAL && ended == 0 && scanned.pages_scanned == 0);
    policy.max_page_sharing = 256;
    CHECK(dedupcore_pool_set_policy(pool, &policy, &key) == 0);
    CHECK(dedupcore_pool_set_policy(pool, &policy, &key) == DEDUPCORE_EINVAL);
    for (uint32_t guest = 0; guest < 2; guest++) {
        CHECK(dedupcore_pool_add_guest(pool, 3, 0, &number) == 0);
        CHECK(dedupcore_pool_write(pool, number, gpns, guest ? "aaaaaaaacccccccc" : "aaaaaaaabbbbbbbb", 2, &wrong) == 0);
    }
    CHECK(dedupcore_pool_share(pool, &key, NULL) == DEDUPCORE_EINVAL);
    CHECK(dedupcore_pool_share_large(pool, &key, NULL) == DEDUPCORE_EINVAL);
    CHECK(dedupcore_pool_merge(pool, 0, gpns, first_frame, 1, &moved, &wrong) == DEDUPCORE_EINVAL && wrong == 1);
    CHECK(dedupcore_pool_scan_guest(pool, 0, &left, &ended) == DEDUPCORE_EINVAL && left == 5);
    CHECK(dedupcore_pool_scan(pool, 4, &ended) == 0 && !ended && dedupcore_pool_scan(pool, 1, &ended) == 0 && ended);
    CHECK(dedupcore_pool_scan(pool, UINT64_MAX, &ended) == 0 && ended && dedupcore_pool_check(pool, &flaw) == 0);
    dedupcore_pool_scan_count(pool, &scanned);
    CHECK(scanned.full_scans == 2 && scanned.pages_scanned == 8 && scanned.frames_stable == 1 && scanned.pages_stable == 2);
    dedupcore_pool_count(pool, &now);
    CHECK(now.in_use == 3);
    dedupcore_pool_destroy(pool);

    /* A host with too little memory: frames for two of three pages. */
    dedupcore_touched touched;
    size_t found = 9;
    const uint32_t accesses[] = {1, 1, 0, 2};
    const uint8_t writes[] = {0, 1, 1, 1}, only_second[] = {0, 1, 0};
    uint32_t victims[3] = {9, 9, 9};
    CHECK(dedupcore_pool_create(&pool, 3, 8) == 0 && dedupcore_pool_add_guest(pool, 3, 0, &number) == 0);
    dedupcore_pool_set_seed(pool, 1);
    CHECK(dedupcore_pool_set_limit(pool, 4) == DEDUPCORE_EINVAL && dedupcore_pool_limit(pool) == 3);
    CHECK(dedupcore_pool_set_limit(pool, 2) == 0 && dedupcore_pool_limit(pool) == 2);
    CHECK(dedupcore_pool_touch(pool, 0, accesses, writes, "aaaaaaaabbbbbbbbcccccccc", 4, &touched, &wrong) == 0);
    CHECK(touched.done == 3 && touched.first_touches == 2 && touched.cow_breaks == 0);
    CHECK(dedupcore_pool_touch(pool, 0, out_of_range, NULL, NULL, 2, &touched, &wrong) == DEDUPCORE_EINVAL && wrong == 1);
    CHECK(dedupcore_pool_take_accessed(pool, 0, DEDUPCORE_ACCESSED_BY_HOST, accesses, 1, &moved, &wrong) == 0 && moved == 1);
    CHECK(dedupcore_pool_marks(pool, 0, &n_pages)[1] == DEDUPCORE_ACCESSED_BY_GUEST && n_pages == 3);
    CHECK(dedupcore_pool_oldest(pool, 0, DEDUPCORE_ACCESSED_BY_HOST, NULL, victims, 1, &found) == 0 && found == 1);
    CHECK(victims[0] == 1 && !dedupcore_pool_marks(pool, 1, NULL));
    CHECK(dedupcore_pool_alone(pool, 0, accesses, 1, &moved, &wrong) == 0 && moved == 1);
    CHECK(dedupcore_pool_alone(pool, 1, accesses, 1, &moved, &wrong) == DEDUPCORE_EINVAL);
    CHECK(dedupcore_pool_pick(pool, 0, only_second, victims, 3, &found) == 0 && found == 1 && victims[0] == 1);
    CHECK(dedupcore_pool_page_out(pool, 0, victims, pages_out, 1, &wrong) == 0 && memcmp(pages_out, "aaaaaaaa", 8) == 0);
    CHECK(dedupcore_pool_page_out(pool, 0, victims, pages_out, 1, &wrong) == DEDUPCORE_EINVAL && wrong == 0);
    CHECK(dedupcore_pool_read(pool, 0, victims, pages_out, 1, &wrong) == DEDUPCORE_EINVAL && dedupcore_pool_out(pool, 0) == 1);
    CHECK(dedupcore_pool_present(pool, 0) == 1 && dedupcore_pool_present(pool, 9) == 0);
    CHECK(dedupcore_pool_touch(pool, 0, accesses + 3, writes + 3, "cccccccc", 1, &touched, &wrong) == 0 && touched.done == 1);
    CHECK(dedupcore_pool_touch(pool, 0, victims, NULL, NULL, 1, &touched, &wrong) == 0 && touched.done == 0);
    CHECK(dedupcore_pool_page_in(pool, 0, victims, pages_out, 1, &wrong) == DEDUPCORE_EFULL);
    CHECK(dedupcore_pool_set_limit(pool, 3) == 0 && dedupcore_pool_page_in(pool, 0, victims, pages_out, 1, &wrong) == 0);
    CHECK(dedupcore_pool_forget(pool, 0, victims, 1, &wrong) == DEDUPCORE_EINVAL && wrong == 0);
    CHECK(dedupcore_pool_page_out(pool, 0, victims, pages_out, 1, &wrong) == 0);
    CHECK(dedupcore_pool_forget(pool, 0, victims, 1, &wrong) == 0 && dedupcore_pool_check(pool, &flaw) == 0);
    dedupcore_pool_destroy(pool);

    translate();

    /* The CPU. */
    CHECK((dedupcore_cpu_used() & ~dedupcore_cpu_detected()) == 0);
    CHECK(setenv("DEDUPCORE_DISABLE_CPU", "all", 1) == 0 && dedupcore_cpu_used() == 0);
    CHECK(strcmp(dedupcore_cpu_name(DEDUPCORE_CPU_AVX2), "avx2") == 0 && !dedupcore_cpu_name(1u << 31));
    CHECK(dedupcore_find_duplicates(spans, 3, SIZE, &key, canonical, &result) == 0 && result.n_distinct == 2);

    /* A file that shrinks. */
    char path[] = "/tmp/dedupcore-XXXXXX";
    dedupcore_map *map;
    int fd = mkstemp(path);
    CHECK(fd >= 0 && unlink(path) == 0 && ftruncate(fd, 16 * SIZE) == 0 && pwrite(fd, "x", 1, 0) == 1);
    CHECK(dedupcore_map_create(&map, fd, 0) == DEDUPCORE_EINVAL && !map);
    CHECK(dedupcore_map_create(&map, -1, SIZE) == DEDUPCORE_ESYS && !map);
    CHECK(dedupcore_map_create(&map, fd, 16 * SIZE) == 0);
    const volatile char *mapped = dedupcore_map_base(map);
    CHECK(mapped[0] == 'x' && !dedupcore_map_shrank(map));
    CHECK(ftruncate(fd, 0) == 0 && mapped[5 * SIZE] == 0 && dedupcore_map_shrank(map));
    dedupcore_map_destroy(map);
    dedupcore_map_destroy(NULL);
    close(fd);
    puts(DEDUPCORE_VERSION);
    return 0;
}
