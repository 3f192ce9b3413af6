"""Memory that is in use while it is scanned: looked over, read as it streams by, and looked at again later."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.memory.extent import Extent, NamedExtent, Region
from pagedup.memory.live.page_runs import PageRuns
from pagedup.memory.live.pagemap import Page, Pagemap
from pagedup.memory.live.procfs import ProcessFiles
from pagedup.memory.live.remote import RemoteMemory
from pagedup.memory.live.room import allocate
from pagedup.memory.live.smaps import Mapping, read_mappings
from pagedup.memory.live.streaming import stream
from pagedup.memory.source import Apart, Progress, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.extent import Contents
    from pagedup.memory.live.pagemap import Runs
    from pagedup.memory.live.remote import Bytes
    from pagedup.memory.live.streaming import Visit

_APART = {
    Page.SHARED: Apart.ALREADY_SHARED,
    Page.ZERO: Apart.ZERO_MAPPED,
    Page.FILE: Apart.SHARED_MAPPING,
    Page.SWAPPED: Apart.SWAPPED,
}


@dataclass(frozen=True, slots=True)
class Place:
    """A mapping of the process, or a part of it, and where it lies in the guest: `shift` bytes from its address."""

    mapping: Mapping
    start: int
    end: int
    shift: int
    name: str


class LiveSource(Source):
    """Pages of a process's memory: those that it alone holds and that are in memory now.

    Nothing is written, and nothing is faulted in but pages that go away between looking and reading. First `survey`,
    which tells `size`; then either `copy`, or `hash`, any number of `read`, and `settle`. The process runs on
    meanwhile, unless it is paused: what is read is of no one instant.

    `regions` names stretches of the guest's addresses, and `pages` says which pages are scanned. `hashes` has one of
    each, in their order, 0 for a zero page, as it was read last. By time.monotonic() `first_read` is when all had been
    read once, and `taken_at` when `copy` or `settle` was done.
    """

    def __init__(self, name: str, text: str, pid: int) -> None:
        super().__init__(name, text, 0)
        self.pid = pid
        self.regions: list[Region] = []
        self.hashes = np.empty(0, np.uint64)
        self.first_read = self.taken_at = 0.0
        self._files = ProcessFiles(pid)
        self._pagemap = Pagemap(self._files.pagemap)
        self._remote = RemoteMemory(pid, self._files.memory)
        self._page = os.sysconf("SC_PAGE_SIZE")
        self.pages = PageRuns.of(self._page, np.empty((0, 2), np.uint64), np.empty(0, np.uint64))
        self._looked = np.empty(0, np.bool_)
        self._moved = np.empty(0, np.bool_)

    @abstractmethod
    def places(self, mappings: list[Mapping]) -> list[Place]:
        """Which memory of the process is the guest's, in ascending order."""

    def survey(self, *, mergeable: bool = False) -> None:
        """See what is there: sets `size`, `apart` and `regions`.

        With `mergeable` only what is marked MADV_MERGEABLE counts. Raises OSError when the process ended.
        """
        self._check_alive()
        text = self._files.read_smaps()
        if not text:  # the memory that it was opened for is gone, though the pagemap may be of the next program's
            raise self._files.ended()
        counted: Counter[Apart] = Counter()
        kept, shifts = [], []
        for place in self.places(read_mappings(text)):
            try:
                runs = self._pagemap.runs(place.start, place.end)
            except ProcessLookupError:
                raise self._files.ended() from None
            _count_apart(place, runs, counted)
            own = runs[runs[:, 2] == Page.OWN][:, :2]
            n_bytes = _bytes_in(own)
            unwanted = _why_unwanted(place.mapping, mergeable)
            if unwanted is not None:
                counted[unwanted] += n_bytes
            elif n_bytes:
                self.regions.append(Region(place.start + place.shift, place.end + place.shift, place.name))
                kept.append(own)
                shifts.append(np.full(len(own), place.shift % (1 << 64), np.uint64))
        self._check_alive()
        self.apart = {reason: counted[reason] for reason in Apart if counted[reason]}
        if kept:
            self.pages = PageRuns.of(self._page, np.concatenate(kept), np.concatenate(shifts))
        self.size = self.pages.n_pages * self._page

    def copy(self, *, spool: str | None = None, progress: Progress | None = None) -> None:
        """Read every page once, and keep them all. OSError: no room, or the process ended."""
        memory = allocate(self.size, spool)
        there = ~self._hash_all(memory, progress)
        offsets = (np.flatnonzero(there) * self._page)[self.pages.firsts].tolist()
        lengths = (self.pages.counts * self._page).tolist()
        for address, offset, length in zip(self.pages.begins.tolist(), offsets, lengths, strict=True):
            self.extents.append(Extent(address, memory.data[offset : offset + length]))
        self._looked = self._moved = np.zeros(self.pages.n_pages, np.bool_)
        self.taken_at = time.monotonic()

    def hash(self, progress: Progress | None = None) -> None:
        """Read every page once, and keep its hash alone. OSError: the process ended."""
        self._hash_all(None, progress)

    def read(
        self, phase: str, wanted: NDArray[np.bool_], visit: Visit, into: Bytes | None, progress: Progress | None
    ) -> NDArray[np.bool_]:
        """Read and visit the wanted pages, one item a page; which of those are not there. See `stream`.

        OSError: the process ended.
        """
        report = None if progress is None else lambda done, total: progress(f"{phase} {self.name}", done, total)
        gone = stream(self._remote, self._page, self.pages.pieces(wanted), visit, into=into, progress=report)
        self._check_alive()
        return gone

    def settle(
        self,
        names: NDArray[np.uint64],
        contents: Contents,
        *,
        gone: NDArray[np.bool_],
        looked: NDArray[np.bool_],
        moved: NDArray[np.bool_],
    ) -> None:
        """Say what every page holds; items are of pages.

        gone: not there any more, and left out from now on. looked: was read once more since it was hashed, some time
        later; moved: was another by then.
        """
        self._leave_out(gone)
        names, self._looked, self._moved = names[~gone], looked[~gone], moved[~gone]
        firsts, counts = self.pages.firsts.tolist(), self.pages.counts.tolist()
        for address, first, count in zip(self.pages.begins.tolist(), firsts, counts, strict=True):
            self.extents.append(NamedExtent(address, self._page, names[first : first + count], contents))
        self.taken_at = time.monotonic()

    def look_again(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Bool ndarray (n,): which of the pages at these addresses are no longer what they were when read last.

        addresses: uint64 (n,), ascending, in the guest, one a page. A page that is gone has changed. OSError when the
        process ended.
        """
        wanted = np.zeros(self.pages.n_pages, np.bool_)
        wanted[self.pages.numbers(addresses)] = True
        hashes = np.empty(len(addresses), np.uint64)
        gone = self.read("looking again at", wanted, self._hashing(hashes), None, None)
        changed: NDArray[np.bool_] = gone | (hashes != self.hashes[wanted])
        self.hashes[wanted] = np.where(gone, self.hashes[wanted], hashes)
        return changed

    def looked_at(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Bool ndarray (n,): which of the pages at these addresses in the guest were looked at twice already."""
        return self._looked[self.pages.numbers(addresses)]

    def moved(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Bool ndarray (n,): which of them were another at the second look than at the first."""
        if not self._moved.any():
            return np.zeros(len(addresses), np.bool_)
        return self._moved[self.pages.numbers(addresses)]

    def in_process(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Uint64 ndarray (n,): where pages, by their addresses in the guest, lie in the process."""
        return self.pages.addresses(self.pages.numbers(addresses))

    def check(self) -> None:
        """Nothing to ask: reading was complete, or it failed."""

    def close(self) -> None:
        """Give the copy back; it ends when nobody holds a buffer of it any more."""
        self._files.close()
        self.extents = []

    def _check_alive(self) -> None:
        if not (self._pagemap.alive() and self._files.runs_same_program()):
            raise self._files.ended()

    def _hash_all(self, into: Bytes | None, progress: Progress | None) -> NDArray[np.bool_]:
        """Read and hash every page; those that are not there are left out, and told."""
        everything = np.ones(self.pages.n_pages, np.bool_)
        self.hashes = np.empty(self.pages.n_pages, np.uint64)
        gone = self.read("reading", everything, self._hashing(self.hashes), into, progress)
        self._leave_out(gone)
        self.first_read = time.monotonic()
        return gone

    def _hashing(self, hashes: NDArray[np.uint64]) -> Visit:
        def visit(pages: Bytes, mine: slice) -> None:
            dedupcore.hash_frames(pages, self._page, hashes[mine])

        return visit

    def _leave_out(self, gone: NDArray[np.bool_]) -> None:
        if gone.any():
            self.pages = self.pages.without(gone)
            self.hashes = self.hashes[~gone]
            self.size = self.pages.n_pages * self._page


def _why_unwanted(mapping: Mapping, mergeable: bool) -> Apart | None:
    if "ht" in mapping.flags:
        return Apart.HUGETLB
    if mergeable and "mg" not in mapping.flags:
        return Apart.NOT_MERGEABLE
    return None


def _count_apart(place: Place, runs: Runs, counted: Counter[Apart]) -> None:
    """Count the bytes of the place that are not scanned, by reason."""
    huge = "ht" in place.mapping.flags
    for kind, reason in _APART.items():
        n_bytes = _bytes_in(runs[runs[:, 2] == kind])
        counted[Apart.HUGETLB if huge and kind != Page.SWAPPED else reason] += n_bytes
    if place.mapping.private and place.mapping.anonymous and place.mapping.accessible and not huge:
        counted[Apart.ABSENT] += place.end - place.start - _bytes_in(runs)


def _bytes_in(runs: Runs) -> int:
    return int((runs[:, 1] - runs[:, 0]).sum())
