#include "cpu.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    unsigned rung;
    const char *name;
} rungs[] = {{DEDUPCORE_CPU_AVX2, "avx2"}};
enum { N_RUNGS = sizeof rungs / sizeof rungs[0] };

unsigned dedupcore_cpu_detected(void)
{
    unsigned found = 0;
#if DEDUPCORE_X86
    /* The builtins check that the operating system saves the wide registers, too. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        found |= DEDUPCORE_CPU_AVX2;
#endif
    return found;
}

/* Whether the comma-separated list has the word, or "all". */
static int listed(const char *list, const char *word)
{
    while (*list) {
        size_t length = strcspn(list, ", ");
        if ((length == strlen(word) && memcmp(list, word, length) == 0) || (length == 3 && memcmp(list, "all", 3) == 0))
            return 1;
        list += length;
        list += strspn(list, ", ");
    }
    return 0;
}

unsigned dedupcore_cpu_used(void)
{
    unsigned used = dedupcore_cpu_detected();
    const char *disabled = getenv("DEDUPCORE_DISABLE_CPU");
    if (disabled) {
        for (int i = 0; i < N_RUNGS; i++) {
            if (listed(disabled, rungs[i].name))
                used &= rungs[i].rung - 1; /* this rung and those above it */
        }
    }
    return used;
}

const char *dedupcore_cpu_name(unsigned rung)
{
    for (int i = 0; i < N_RUNGS; i++) {
        if (rungs[i].rung == rung)
            return rungs[i].name;
    }
    return NULL;
}
