from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from typing_extensions import Buffer

class _Array(Protocol):  # NumPy's arrays say that they are buffers only from Python 3.12 on
    @property
    def __array_interface__(self) -> dict[str, Any]: ...

BufferLike: TypeAlias = Buffer | _Array

version: str
abi_version: int
api: object

def cpu_detected() -> list[str]: ...
def cpu_used() -> list[str]: ...

class Work(NamedTuple):
    frames_signed: int
    bytes_signed: int
    frames_hashed: int
    bytes_hashed: int
    frames_compared: int
    bytes_compared: int
    frames_not_read: int

class Result(NamedTuple):
    n_frames: int
    n_zero: int
    n_distinct: int
    zero_canonical: int | None
    work: Work

def set_key(seed: int | None) -> None: ...
def find_duplicates(
    spans: Iterable[tuple[BufferLike | None, int, int]],
    canonical: BufferLike,
    *,
    frame_size: int,
    threads: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> Result: ...
def count(
    canonical: BufferLike, guests: Sequence[tuple[int, int, int | None]], copies: BufferLike, owners: BufferLike
) -> list[tuple[int, int, int]]: ...
def hash_frames(frames: BufferLike, frame_size: int, hashes: BufferLike, seed: int | None = None) -> None: ...
def match_frames(
    frames: BufferLike, frame_size: int, originals: BufferLike, places: BufferLike, same: BufferLike
) -> None: ...

MAX_ORDER: int
SPARSE: int
NOISE: int
ONE_BYTE: int
PREFIX: int
MIXED: int

def random_numbers(key: int, out: BufferLike, first: int = 0) -> None: ...
def place(
    key: int,
    n_pages: int,
    fragmentation: float,
    counts: BufferLike,
    max_orders: BufferLike,
    fixed: BufferLike,
    places: BufferLike,
) -> None: ...
def name_pages(
    places: BufferLike,
    names: BufferLike,
    variables: BufferLike,
    regions: BufferLike,
    values: BufferLike,
    chances: BufferLike,
    own: int,
    key: int,
    out_names: BufferLike,
    out_regions: BufferLike,
    first: int = 0,
) -> None: ...
def draw_accesses(
    key: int,
    first: int,
    working_set: BufferLike,
    quantiles: BufferLike,
    write_chance: int,
    gpns: BufferLike,
    writes: BufferLike,
) -> None: ...
def materialize(names: BufferLike, out: BufferLike, frame_size: int, texture: int) -> None: ...

ABSENT: int
OUT: int
QUANTILES: int
ACCESSED_BY_HOST: int
ACCESSED_BY_GUEST: int
MAX_DOMAINS: int
LARGE_PAGE: int
MAX_LARGE_FRAME: int

class PoolCounts(NamedTuple):
    capacity: int
    in_use: int
    pages_present: int
    zero_frames: int
    zero_pages: int
    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    first_touches: int
    cow_breaks: int
    pages_merged: int
    pages_released: int
    large_pages: int
    large_breaks: int
    large_rebuilds: int

class ScanCounts(NamedTuple):
    full_scans: int
    pages_scanned: int
    pages_skipped: int
    pages_hashed: int
    stable_searches: int
    unstable_searches: int
    hints_matched: int
    hints_stale: int
    collisions: int
    frames_hashed: int
    frames_compared: int
    pages_stable: int
    frames_stable: int
    pages_settled: int
    pages_items: int
    pages_changed: int

class Pool:
    capacity: int
    frame_size: int
    def __init__(self, capacity: int, frame_size: int) -> None: ...
    def add_guest(self, pages: int, domain: int, large: bool = False) -> int: ...
    def write(self, guest: int, gpns: BufferLike, data: BufferLike) -> None: ...
    def read(self, guest: int, gpns: BufferLike, out: BufferLike) -> None: ...
    def release(self, guest: int, gpns: BufferLike) -> None: ...
    def merge(self, guest: int, gpns: BufferLike, into: BufferLike, merged: BufferLike) -> None: ...
    def touch(
        self, guest: int, gpns: BufferLike, writes: BufferLike | None, data: BufferLike
    ) -> tuple[int, int, int]: ...
    limit: int
    def page_out(self, guest: int, gpns: BufferLike, out: BufferLike) -> None: ...
    def page_in(self, guest: int, gpns: BufferLike, data: BufferLike) -> None: ...
    def forget(self, guest: int, gpns: BufferLike) -> None: ...
    def present(self, guest: int) -> int: ...
    def out(self, guest: int) -> int: ...
    def take_accessed(self, guest: int, by: int, gpns: BufferLike, accessed: BufferLike) -> None: ...
    def alone(self, guest: int, gpns: BufferLike, alone: BufferLike) -> None: ...
    def oldest(self, guest: int, by: int, eligible: BufferLike | None, gpns: BufferLike) -> int: ...
    def pick(self, guest: int, eligible: BufferLike | None, gpns: BufferLike) -> int: ...
    def set_seed(self, seed: int) -> None: ...
    def share(self) -> Work: ...
    def set_policy(
        self,
        kind: str,
        *,
        max_page_sharing: int = 2,
        use_zero_pages: bool = False,
        smart_scan: bool = False,
        seed: int = 0,
    ) -> None: ...
    def scan(self, wakes: int, n_pages: int, to_end: bool = False) -> None: ...
    def scan_guest(self, guest: int, n_pages: int, to_end: bool = False) -> None: ...
    def scan_count(self) -> ScanCounts: ...
    def break_large(self, guest: int, ranges: BufferLike) -> None: ...
    def rebuild_large(self, guest: int, ranges: BufferLike, max_shared: int, rebuilt: BufferLike) -> None: ...
    def share_large(self) -> Work: ...
    def large_hints(self) -> bytes: ...
    def count(self) -> PoolCounts: ...
    def check(self) -> None: ...
    def memory(self) -> Buffer: ...
    def table(self, guest: int) -> Buffer: ...
    def large(self, guest: int) -> Buffer: ...
    def marks(self, guest: int) -> Buffer: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...

class MappedFile:
    def __init__(self, fd: int, size: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...
    @property
    def shrank(self) -> bool: ...
    def close(self) -> None: ...

REPLACED: int
DIFFERS: int
REFUSED: int
LOST: int

def in_place_store(fd: int, addresses: BufferLike, offsets: BufferLike, sizes: BufferLike) -> None: ...
def in_place_map(
    fd: int,
    stored: BufferLike,
    addresses: BufferLike,
    offsets: BufferLike,
    sizes: BufferLike,
    protections: BufferLike,
    outcomes: BufferLike,
) -> None: ...
def in_place_zero(
    addresses: BufferLike, sizes: BufferLike, mapped: BufferLike, protections: BufferLike, outcomes: BufferLike
) -> None: ...
def in_place_free_zeros(addresses: BufferLike, sizes: BufferLike, page_size: int, freed: BufferLike) -> None: ...
def in_place_split(pages: BufferLike, page_size: int) -> None: ...
def in_place_keep_small(addresses: BufferLike, sizes: BufferLike) -> None: ...
def in_place_forks() -> int: ...
def in_place_punch(fd: int, offsets: BufferLike, sizes: BufferLike, forks: int) -> bool: ...

class TlbCounts(NamedTuple):
    l1_hits: tuple[int, int, int]
    l2_hits: tuple[int, int, int]
    walks: tuple[int, int, int]
    references: tuple[int, int]
    walk_hits: tuple[int, int, int]
    host_walk_hits: tuple[int, int, int]
    nested_hits: int
    references_found: tuple[int, int, int, int]
    data_found: tuple[int, int, int, int]

class Tlb:
    def __init__(
        self,
        caches: Sequence[tuple[int, int]],
        l1: Sequence[int],
        l2: Sequence[int],
        l2_as: Sequence[int],
        walk: Sequence[int],
        nested: int,
        host_walk: Sequence[int],
        data: Sequence[tuple[int, int]],
    ) -> None: ...
    def map(self, sizes: BufferLike, host_sizes: BufferLike | None, table_size: int) -> None: ...
    def access(self, addresses: BufferLike) -> None: ...
    def count(self) -> TlbCounts: ...
