/* Which instruction sets this CPU has, and the switch that turns them off (the public calls are in dedupcore.h). */
#ifndef DEDUPCORE_CPU_H
#define DEDUPCORE_CPU_H

#include "dedupcore.h"

#if defined(__x86_64__)
#define DEDUPCORE_X86 1
#else
#define DEDUPCORE_X86 0
#endif

#endif
