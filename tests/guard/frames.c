/*
 * frames DATA_SET FRAMES: makes the data set, groups its frames, prints the exact work counters, one name and number a line.
 * Instructions are counted in dedupcore_find_duplicates alone; making the data is not part of it.
 */
#define _GNU_SOURCE
#include <dedupcore.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SIZE = 4096, BLOCK = 256 };

static void put(unsigned char *frame, size_t offset, uint64_t value)
{
    memcpy(frame + offset, &value, sizeof value);
}

/* Fills frame i of n; returns its size, or 0 for a data set that is not known. */
static size_t fill(const char *set, unsigned char *memory, uint64_t i, uint64_t n)
{
    unsigned char *frame = memory + i * SIZE;
    if (strcmp(set, "names") == 0) { /* 40 % of them distinct */
        put(memory, 8 * i, 1 + i % (n * 4 / 10));
        return 8;
    }
    if (strcmp(set, "zero") == 0 || strcmp(set, "speck") == 0) {
        memset(frame, 0, SIZE); /* zero, or but for one place that no sample sees */
        if (*set == 's')
            put(frame, BLOCK * (1 + i % 14), i + 1);
        return SIZE;
    }
    memset(frame, 0x5a, SIZE);
    if (strcmp(set, "unique") == 0)
        put(frame, 0, i + 1);
    else if (strcmp(set, "pairs") == 0) /* the second half is the first again */
        put(frame, 0, i % (n / 2) + 1);
    else if (strcmp(set, "alike") == 0) /* equal in the samples, unique elsewhere */
        put(frame, 5 * BLOCK, i + 1);
    else if (strcmp(set, "deep") == 0) { /* and where they differ from the first one, too, are equal to each other */
        put(frame, 5 * BLOCK, i > 0);
        put(frame, 9 * BLOCK, i + 1);
    } else
        return 0;
    return SIZE;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const uint64_t n = strtoull(argv[2], NULL, 10);
    unsigned char *memory = mmap(NULL, n * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *canonical = malloc(n * sizeof *canonical);
    if (memory == MAP_FAILED || !canonical)
        return 1;
    size_t size = 0;
    for (uint64_t i = 0; i < n; i++)
        size = fill(argv[1], memory, i, n);
    if (!size)
        return 2;

    const dedupcore_span span = {memory, n};
    dedupcore_key key;
    dedupcore_result r;
    dedupcore_key_seeded(&key, 1);
    int rc = dedupcore_find_duplicates(&span, 1, size, &key, canonical, &r);
    if (rc) {
        fprintf(stderr, "%s\n", dedupcore_strerror(rc));
        return 1;
    }
#define PRINT(name, value) printf("%s %llu\n", name, (unsigned long long)(value))
    PRINT("n_zero", r.n_zero);
    PRINT("n_distinct", r.n_distinct);
    PRINT("frames_signed", r.work.frames_signed);
    PRINT("bytes_signed", r.work.bytes_signed);
    PRINT("frames_hashed", r.work.frames_hashed);
    PRINT("bytes_hashed", r.work.bytes_hashed);
    PRINT("frames_compared", r.work.frames_compared);
    PRINT("bytes_compared", r.work.bytes_compared);
    PRINT("frames_not_read", r.work.frames_not_read);
    return 0;
}
