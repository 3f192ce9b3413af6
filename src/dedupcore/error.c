#include "dedupcore.h"

const char *dedupcore_strerror(int error)
{
    switch (error) {
    case 0:
        return "no error";
    case DEDUPCORE_EINVAL:
        return "an argument is out of its range";
    case DEDUPCORE_ENOMEM:
        return "out of memory";
    case DEDUPCORE_ETOOBIG:
        return "more than 2^32 - 1 frames";
    case DEDUPCORE_ESTATE:
        return "the call does not fit the job's state";
    case DEDUPCORE_ESYS:
        return "a system call failed";
    case DEDUPCORE_ECHANGED:
        return "the memory changes while it is read";
    case DEDUPCORE_EFULL:
        return "the pool is full";
    case DEDUPCORE_EBROKEN:
        return "the pool contradicts itself";
    default:
        return "unknown error";
    }
}
