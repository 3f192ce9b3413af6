#include "cpu.h"
#if DEDUPCORE_X86
#include <immintrin.h>
#define VECTOR_BYTES 32
#define TARGET __attribute__((target("avx2")))
#define ANY(v) (!_mm256_testz_si256((__m256i)(v), (__m256i)(v)))
#define SCANS byte_scans_avx2
#include "scan_bytes_kernels.h"
#endif
