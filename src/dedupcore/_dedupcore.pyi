from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from typing_extensions import Buffer

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
    spans: Iterable[tuple[Buffer | None, int, int]],
    canonical: Buffer,
    *,
    frame_size: int,
    threads: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> Result: ...
def count(
    canonical: Buffer, guests: Sequence[tuple[int, int, int | None]], copies: Buffer, owners: Buffer
) -> list[tuple[int, int, int]]: ...

class MappedFile:
    def __init__(self, fd: int, size: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...
    @property
    def shrank(self) -> bool: ...
    def close(self) -> None: ...
