#include "scan_bytes.h"

const byte_scans *byte_scans_for(unsigned cpu)
{
#if DEDUPCORE_X86
    if (cpu & DEDUPCORE_CPU_AVX2)
        return &byte_scans_avx2;
#else
    (void)cpu;
#endif
    return &byte_scans_baseline;
}
