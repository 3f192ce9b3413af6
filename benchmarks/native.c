/*
 * What the measurements need and Python is too slow for; compiled when they run (native.py).
 *
 * read_*: the plainest fast read of memory, one per width of register: the physical limit is the fastest of them. Fetching
 * ahead by hand and reading several pages side by side were tried: both are slower than what the CPU's own prefetching does.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* n bytes, a multiple of 512, at an address that is a multiple of 64. The result keeps the compiler from skipping it. */
#define READ(name, width, target)                                                                                         \
    typedef uint64_t name##_word __attribute__((vector_size(width)));                                                     \
    target uint64_t name(const uint8_t *p, size_t n)                                                                      \
    {                                                                                                                     \
        name##_word a = {0}, b = {0}, c = {0}, d = {0}, e = {0}, f = {0}, g = {0}, h = {0};                               \
        uint64_t any = 0;                                                                                                 \
        for (const uint8_t *end = p + n; p < end; p += 8 * width) {                                                       \
            const name##_word *w = (const name##_word *)p;                                                                \
            a |= w[0], b |= w[1], c |= w[2], d |= w[3], e |= w[4], f |= w[5], g |= w[6], h |= w[7];                       \
        }                                                                                                                 \
        a |= b | c | d | e | f | g | h;                                                                                   \
        for (int i = 0; i < width / 8; i++)                                                                               \
            any |= a[i];                                                                                                  \
        return any;                                                                                                       \
    }

READ(read_baseline, 16, )
#ifdef __x86_64__
READ(read_avx2, 32, __attribute__((target("avx2"))))
READ(read_avx512, 64, __attribute__((target("avx512f"))))

int has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}
#endif

/* One word of each of these frames, in this order: the loads do not wait for each other. */
uint64_t touch(const uint8_t *base, const uint32_t *frames, size_t n, size_t frame_size)
{
    uint64_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= *(const uint64_t *)(base + frames[i] * frame_size);
    return any;
}

/* All bytes of these frames, in this order, by one of the loops above. */
uint64_t read_frames(uint64_t (*read)(const uint8_t *, size_t), const uint8_t *base, const uint32_t *frames, size_t n,
                     size_t frame_size)
{
    uint64_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= read(base + frames[i] * frame_size, frame_size);
    return any;
}

/* Frames of random bytes, equal if and only if their seeds are; a frame whose seed is 0 is zero. */
void fill(uint8_t *base, const uint64_t *seeds, size_t n, size_t frame_size)
{
    for (size_t i = 0; i < n; i++, base += frame_size) {
        uint64_t x = seeds[i] * 0x9e3779b97f4a7c15u;
        if (!x) {
            memset(base, 0, frame_size);
            continue;
        }
        for (size_t at = 0; at < frame_size; at += 8) { /* xorshift64 (Marsaglia 2003) */
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            memcpy(base + at, &x, 8);
        }
    }
}

/* Follow n pointers, a multiple of 8: each load waits for the one before it. Another call can go on where it ends. */
const void *chase(void *const *p, size_t n)
{
    for (; n; n -= 8) {
        p = *p, p = *p, p = *p, p = *p;
        p = *p, p = *p, p = *p, p = *p;
    }
    return p;
}

#define ADD                                                                                                               \
    sum += one;                                                                                                           \
    __asm__ volatile("" : "+r"(sum));

/*
 * Add n times, a multiple of 8, each waiting for the one before it: a cycle each. The compiler must not know what
 * is added, or it multiplies; it is in a register, since new CPUs add constants at no cost.
 */
uint64_t add(size_t n)
{
    uint64_t sum = 0, one = 1;
    __asm__ volatile("" : "+r"(one));
    for (; n; n -= 8) {
        ADD ADD ADD ADD
        ADD ADD ADD ADD
    }
    return sum;
}
