"""The files, in memory, that hold one copy of each content; and what of them is in use.

The kernel frees a file when its last mapping is gone and it is closed here. It is closed when the memory of the arrays
that it was made for is gone, so that neither a result nor this module keeps it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dedupcore import _dedupcore as engine
from pagedup.memory.live.pagemap import Page, Pagemap
from pagedup.memory.live.smaps import Mapping, read_mappings
from pagedup.sharing.in_place.numbering import Numbering

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAME = "pagedup"
_PATH = f"/memfd:{_NAME} (deleted)"  # what the kernel calls it in /proc/self/maps
_NOEXEC_SEAL = 8  # MFD_NOEXEC_SEAL of Linux 6.3; some systems allow no other
_NEAR = 1 << 21  # bytes between mappings that are looked at in one go

_open: dict[int, Backing] = {}  # by inode

lock = threading.RLock()
"""Held by whoever makes, uses or reclaims a backing. Another one in a child, so take it from here each time."""


class File:
    """An open file in memory; closed with the last reference, so that nobody uses its number after it is another's."""

    def __init__(self) -> None:
        try:
            self.fd = os.memfd_create(_NAME, os.MFD_CLOEXEC | _NOEXEC_SEAL)
        except OSError:  # an older kernel
            self.fd = os.memfd_create(_NAME, os.MFD_CLOEXEC)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "fd"):
            close(self.fd)


class Backing:
    """One file. Its pages are written once, before the first is mapped, and never again."""

    def __init__(self, size: int) -> None:
        # Read before a page of it can be mapped: a later fork may copy its mappings.
        self._forks = engine.in_place_forks()
        self.size = size
        self.file: File | None = File()
        os.ftruncate(self.file.fd, size)
        self.inode = os.fstat(self.file.fd).st_ino
        self._owners: dict[int, weakref.ref[object]] = {}  # by id, as an array has no hash
        self._punched = np.zeros(size // mmap.PAGESIZE, bool)

    def live_as_long_as(self, owners: Iterable[object]) -> None:
        """Close the file when all of these are gone, and those of earlier calls."""
        _open[self.inode] = self
        for owner in owners:
            self._owners[id(owner)] = weakref.ref(owner, partial(self._gone, id(owner)))

    def reclaim(self) -> int:
        """Free the pages that no mapping of this process shows; bytes freed."""
        with lock:
            file = self.file
            if file is None:
                return 0
            dead = ~(_shown([m for m in read_own_mappings() if backing_of(m) is self], self.size) | self._punched)
            first, end = _edges(dead)
            offsets, sizes = first * mmap.PAGESIZE, (end - first) * mmap.PAGESIZE
            if not engine.in_place_punch(file.fd, offsets.astype(np.uint64), sizes.astype(np.uint64), self._forks):
                return 0
            self._punched |= dead
            return int(sizes.sum())

    def _gone(self, number: int, owner: weakref.ref[object]) -> None:
        if self._owners.get(number) is owner:
            del self._owners[number]
        if not self._owners:
            _open.pop(self.inode, None)
            self.file = None


def backing_of(mapping: Mapping) -> Backing | None:
    """The open backing that the mapping shows, if it is one."""
    return _open.get(mapping.inode) if mapping.path == _PATH and mapping.private else None


def read_own_mappings() -> list[Mapping]:
    """The mappings of this process, without their flags, in ascending order."""
    with open("/proc/self/maps", "rb") as file:
        return read_mappings(file.read())


def near(pages: Numbering) -> Iterator[tuple[int, int]]:
    """The ranges, start <= address < end, those near each other as one."""
    if pages.n:
        breaks = np.flatnonzero(pages.starts[1:] - pages.ends[:-1] > _NEAR) + 1
        starts, ends = pages.starts[np.append(0, breaks)], pages.ends[np.append(breaks - 1, -1)]
        yield from zip(starts.tolist(), ends.tolist(), strict=True)


def written(pagemap: Pagemap, pages: Numbering) -> NDArray[np.bool_]:
    """Which of these pages have private memory, be it in swap."""
    steps = np.zeros(pages.n + 1, np.int32)
    for low, high in near(pages):
        found = pagemap.runs(low, high, tell_shared=False)
        own = found[np.isin(found[:, 2], (Page.OWN, Page.SHARED, Page.SWAPPED)), :2].astype(np.int64)
        np.add.at(steps, pages.pages_up_to(own[:, 0]), 1)  # what lies between the ranges comes to nothing
        np.add.at(steps, pages.pages_up_to(own[:, 1]), -1)
    marks: NDArray[np.bool_] = np.cumsum(steps[:-1], dtype=np.int32) > 0
    return marks


@contextlib.contextmanager
def own_pagemap() -> Iterator[Pagemap]:
    """What stands behind this process's own addresses."""
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Pagemap(fd)
    finally:
        os.close(fd)


def _shown(mappings: list[Mapping], size: int) -> NDArray[np.bool_]:
    """The pages of a file that these mappings show; a page that was written shows its copy instead."""
    pages = Numbering([m.start for m in mappings], [m.end for m in mappings])
    offsets = np.array([m.offset for m in mappings], np.int64) // mmap.PAGESIZE
    with own_pagemap() as pagemap:
        copied = written(pagemap, pages)
    shown = np.zeros(size // mmap.PAGESIZE, bool)
    shown[(pages.spread(offsets - pages.firsts) + np.arange(pages.n))[~copied]] = True
    return shown


def _edges(marked: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and end of each run of marked items."""
    steps = np.diff(marked.astype(np.int8), prepend=np.int8(0), append=np.int8(0))
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def _after_fork() -> None:
    """A thread that held the lock is not in the child."""
    global lock
    lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
