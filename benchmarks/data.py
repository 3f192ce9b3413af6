"""Data sets that are made: mixed, unique and adversarial pages, and content names."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import native
from benchmarks.memory import allocate

Bytes = NDArray[np.uint8]

LINE = 64
_RUN = 8  # frames of one kind that follow each other in mixed memory


def unique(n_frames: int, frame_size: int = 4096, *, huge: bool = True) -> Bytes:
    """Frames that all differ, in random bytes."""
    memory = allocate(n_frames * frame_size, huge=huge)
    native.fill(memory, np.arange(1, n_frames + 1, dtype=np.uint64), frame_size)
    return memory


def mixed(n_frames: int, frame_size: int = 4096, *, huge: bool = True) -> Bytes:
    """About half zero frames, a fifth copies of an earlier frame, the rest unique; alike in every part."""
    rng = np.random.default_rng(1)
    kinds = np.repeat(rng.random(n_frames // _RUN + 1), _RUN)[:n_frames]
    seeds = np.arange(1, n_frames + 1, dtype=np.uint64)
    originals, copies = np.flatnonzero(kinds >= 0.7), np.flatnonzero((kinds >= 0.5) & (kinds < 0.7))
    earlier = np.searchsorted(originals, copies)
    seeds[copies] = seeds[originals[(earlier * rng.random(len(copies))).astype(np.int64)]]
    seeds[kinds < 0.5] = 0
    memory = allocate(n_frames * frame_size, huge=huge)
    native.fill(memory, seeds, frame_size)
    return memory


def names(n: int, distinct: float = 0.4) -> NDArray[np.uint64]:
    """`n` content names in random order, of which this share is distinct."""
    name = np.random.default_rng(2).permutation(n).astype(np.uint64) % np.uint64(int(n * distinct)) + np.uint64(1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the end of SplitMix64: a bijection
        name ^= name >> np.uint64(shift)
        name *= np.uint64(factor)
    name ^= name >> np.uint64(31)
    return name


def adversarial(kind: str, n_frames: int, frame_size: int = 4096, *, huge: bool = True) -> Bytes:
    """Memory made to be slow; the kinds are in ADVERSARIAL."""
    memory = allocate(n_frames * frame_size, huge=huge)
    ADVERSARIAL[kind](memory.reshape(n_frames, frame_size))
    return memory


def _fill(pages: Bytes, seeds: NDArray[np.uint64]) -> None:
    native.fill(pages.reshape(-1), seeds, pages.shape[1])


def _samples_equal(pages: Bytes) -> None:
    """All frames alike in their first and last line, which are what the engine samples, and in no other byte."""
    _fill(pages, np.arange(1, len(pages) + 1, dtype=np.uint64))
    pages[:, :LINE] = 1
    pages[:, -LINE:] = 1


def _differ_late(pages: Bytes) -> None:
    """The samples are alike; all differ from the first frame at the same place alike, and from each other later."""
    _samples_equal(pages)
    pages[:, LINE : 5 * LINE] = 2
    pages[0, LINE : 5 * LINE] = 3


def _zero_but_one(pages: Bytes) -> None:
    rng = np.random.default_rng(3)
    pages[np.arange(len(pages)), rng.integers(pages.shape[1], size=len(pages))] = rng.integers(1, 256, size=len(pages))


def _one_apart(pages: Bytes) -> None:
    _all_equal(pages)
    rng = np.random.default_rng(4)
    pages[np.arange(len(pages)), rng.integers(pages.shape[1], size=len(pages))] = rng.integers(256, size=len(pages))


def _equal_pairs(pages: Bytes) -> None:
    seeds = np.arange(len(pages), dtype=np.uint64) // np.uint64(2) + np.uint64(1)
    _fill(pages, np.random.default_rng(5).permutation(seeds))


def _all_equal(pages: Bytes) -> None:
    _fill(pages, np.ones(len(pages), np.uint64))


ADVERSARIAL: dict[str, Callable[[Bytes], None]] = {
    "equal in every sampled line": _samples_equal,
    "sampled lines equal, and the block that differs first": _differ_late,
    "zero but one byte at a random place": _zero_but_one,
    "one byte apart": _one_apart,
    "equal pairs": _equal_pairs,
    "all equal": _all_equal,
}


def write_core(raw: Path, core: Path) -> None:
    """Write a raw dump as QEMU's dump-guest-memory would: an ELF core whose one segment begins at an odd place."""
    size, offset = raw.stat().st_size, 0x5B4  # where QEMU's began in one dump: behind headers and notes of any length
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 0, offset, 0, 0, size, size, 0)
    with raw.open("rb") as source, core.open("wb") as target:
        target.write(header.ljust(offset, b"\0"))
        shutil.copyfileobj(source, target, 16 << 20)
