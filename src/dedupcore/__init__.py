"""dedupcore: the engine of pagedup. Finds equal frames in buffers; also a C library, see `python -m dedupcore`."""

from dedupcore._dedupcore import (
    ABSENT,
    ACCESSED_BY_GUEST,
    ACCESSED_BY_HOST,
    LARGE_PAGE,
    MAX_DOMAINS,
    MAX_LARGE_FRAME,
    MAX_ORDER,
    MIXED,
    NOISE,
    ONE_BYTE,
    OUT,
    PREFIX,
    QUANTILES,
    SPARSE,
    MappedFile,
    Pool,
    PoolCounts,
    Result,
    ScanCounts,
    Tlb,
    TlbCounts,
    Work,
    abi_version,
    count,
    cpu_detected,
    cpu_used,
    draw_accesses,
    find_duplicates,
    hash_frames,
    match_frames,
    materialize,
    name_pages,
    place,
    random_numbers,
    set_key,
    version,
)
from dedupcore.threads import available_threads

__all__ = [
    "ABSENT",
    "ACCESSED_BY_GUEST",
    "ACCESSED_BY_HOST",
    "LARGE_PAGE",
    "MAX_DOMAINS",
    "MAX_LARGE_FRAME",
    "MAX_ORDER",
    "MIXED",
    "NOISE",
    "ONE_BYTE",
    "OUT",
    "PREFIX",
    "QUANTILES",
    "SPARSE",
    "MappedFile",
    "Pool",
    "PoolCounts",
    "Result",
    "ScanCounts",
    "Tlb",
    "TlbCounts",
    "Work",
    "abi_version",
    "available_threads",
    "count",
    "cpu_detected",
    "cpu_used",
    "draw_accesses",
    "find_duplicates",
    "get_include",
    "get_library",
    "hash_frames",
    "match_frames",
    "materialize",
    "name_pages",
    "place",
    "random_numbers",
    "set_key",
    "version",
]


def get_include() -> str:
    """The folder of dedupcore.h and dedupcore_api.h, for a C compiler."""
    return __path__[0] + "/include"


def get_library() -> str:
    """The folder of libdedupcore.a, for a linker."""
    return __path__[0]
