#include "random.h"

#include "dedupcore.h"

uint64_t dedupcore_random(uint64_t key, uint64_t i)
{
    return random_at(random_stream(key), i);
}
