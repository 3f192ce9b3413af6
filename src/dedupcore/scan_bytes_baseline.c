/* SSE2 on x86-64, NEON on aarch64: what every CPU of the architecture has. */
#define VECTOR_BYTES 16
#define TARGET
#define ANY(v) (((v)[0] | (v)[1]) != 0)
#define SCANS byte_scans_baseline
#include "scan_bytes_kernels.h"
