"""From segments in any order, which may meet or name the same memory twice, to runs that do neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pagedup.memory.dumps.image_file import ImageFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 1 << 20  # bytes compared at once


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Segments of a dump: the number of each one's header, its address in bytes, and where its bytes are in the file.

    `number` is int64, the others uint64 ndarrays. All bytes lie inside the file, and no segment goes beyond 2**64.
    """

    number: NDArray[np.int64]
    address: NDArray[np.uint64]
    offset: NDArray[np.uint64]
    size: NDArray[np.uint64]

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Segments:
        """Some of them, in that order."""
        return Segments(self.number[which], self.address[which], self.offset[which], self.size[which])


class Run(NamedTuple):
    """Memory that is contiguous in its addresses and in the file; all in bytes."""

    address: int
    offset: int
    size: int


def covered(address: NDArray[np.uint64], size: NDArray[np.uint64]) -> int:
    """How many bytes of the address space the ranges cover together."""
    some = size > 0
    order = np.argsort(address[some], kind="stable")
    first = address[some][order]
    last = first + (size[some][order] - np.uint64(1))  # inclusive, since 2**64 is no uint64
    starts, ends = _groups(first, last, np.zeros(len(first), bool))
    return len(starts) + sum(int(size) for size in (ends - first[starts]).tolist())


def runs_of(segments: Segments, file: ImageFile, name: Callable[[int], str]) -> list[Run]:
    """The runs with ascending addresses that hold all bytes of the segments, each byte once.

    Segments that meet in both the addresses and the file are one run. Bytes that several segments name are there once.
    Raises OSError, with the headers named by `name`, when one address has two contents, or bytes of the file two
    addresses: then the sum of all segments would be no longer bounded by the file.
    """
    segments = segments[segments.size > 0]
    runs = _joined(segments, file, name)
    if all(one.address + one.size <= other.address for one, other in pairwise(runs)):
        return runs
    return _without_aliases(runs, segments, file, name)


def _joined(segments: Segments, file: ImageFile, name: Callable[[int], str]) -> list[Run]:
    segments = segments[np.argsort(segments.offset, kind="stable")]
    offset = segments.offset
    last = offset + (segments.size - np.uint64(1))
    shift = segments.address - offset  # modulo 2**64, which is enough to compare
    moves = np.concatenate((np.zeros(min(len(shift), 1), bool), shift[1:] != shift[:-1]))
    reach = np.maximum.accumulate(last)
    if (double := moves[1:] & (offset[1:] <= reach[:-1])).any():
        second = int(double.argmax()) + 1
        first = int(last[:second].argmax())
        raise OSError(
            f"{file.path}: {name(int(segments.number[first]))} and {name(int(segments.number[second]))} put the same"
            f" bytes of the file, at offset {offset[second]:#x}, at different addresses"
        )
    starts, ends = _groups(offset, last, moves)
    sizes = (ends - offset[starts]).tolist()
    runs = map(Run, segments.address[starts].tolist(), offset[starts].tolist(), (size + 1 for size in sizes))
    return sorted(runs, key=lambda run: (run.address, -run.size))


def _groups(
    first: NDArray[np.uint64], last: NDArray[np.uint64], apart: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Group ranges, ascending by `first`, that overlap or meet; no group goes on where `apart`.

    Returns the index of each group's first range, and each group's last place.
    """
    reach = np.maximum.accumulate(last)
    # A range that reaches 2**64 - 1 has none behind it, so that the sum does not wrap where it matters.
    fresh = np.concatenate(
        (np.ones(min(len(first), 1), bool), (first[1:] > reach[:-1]) & ((first[1:] != reach[:-1] + 1) | apart[1:]))
    )
    starts = np.flatnonzero(fresh)
    return starts, reach[np.append(starts[1:], len(first))[: len(starts)] - 1]


def _without_aliases(runs: list[Run], segments: Segments, file: ImageFile, name: Callable[[int], str]) -> list[Run]:
    """Cut from each run what those before it hold, too. Each byte is compared at most once, so the time is linear."""
    kept: list[Run] = []
    for run in runs:
        if kept and (shared := min(kept[-1].address + kept[-1].size - run.address, run.size)) > 0:
            place = kept[-1].offset + run.address - kept[-1].address
            same = _equal_bytes(file, place, run.offset, shared)
            if same < shared:
                address = run.address + same
                headers = [_holder(segments, address, at + same, name) for at in (place, run.offset)]
                raise OSError(
                    f"{file.path}: {headers[0]} and {headers[1]} overlap with different bytes: address {address:#x} is"
                    f" at offsets {place + same:#x} and {run.offset + same:#x}"
                )
            run = Run(run.address + shared, run.offset + shared, run.size - shared)
        if run.size:
            kept.append(run)
    return kept


def _holder(segments: Segments, address: int, offset: int, name: Callable[[int], str]) -> str:
    """The first header that puts the byte at `offset` of the file at `address`."""
    at = np.uint64(offset)
    inside = (segments.offset <= at) & (at - segments.offset < segments.size)
    return name(int(segments.number[int(inside.argmax())]))


def _equal_bytes(file: ImageFile, one: int, other: int, size: int) -> int:
    """How many bytes at these two offsets are equal before the first that is not."""
    for at in range(0, size, _CHUNK):
        end = min(at + _CHUNK, size)
        first = np.frombuffer(file.content[one + at : one + end], np.uint8)
        second = np.frombuffer(file.content[other + at : other + end], np.uint8)
        if (differ := first != second).any():
            return at + int(differ.argmax())
    return size
