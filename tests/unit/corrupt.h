/* For programs that break a pool: make() makes it, and WAYS(WAY) lists what breaks it. They end with corrupt_main.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

static void must(int rc)
{
    if (rc) {
        fprintf(stderr, "%s\n", dedupcore_strerror(rc));
        exit(1);
    }
}
