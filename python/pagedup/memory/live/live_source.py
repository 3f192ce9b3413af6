"""Memory that is in use while it is scanned: looked over, then copied, and looked at again later."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

import dedupcore
from pagedup.memory.extent import Extent, Region
from pagedup.memory.live.pagemap import Page, Pagemap
from pagedup.memory.live.procfs import ProcessFiles
from pagedup.memory.live.remote import MOST_PIECES, RemoteMemory
from pagedup.memory.live.room import allocate
from pagedup.memory.live.smaps import Mapping, read_mappings
from pagedup.memory.source import Apart, Progress, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.live.pagemap import Runs

_T = TypeVar("_T")
_R = TypeVar("_R")
_COPY_AT_ONCE = 8 << 20  # bytes a task, so that progress moves and threads share the work
_LOOK_AT_ONCE = 1 << 20  # fits the cache, where it is compared at once
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

    Nothing is written, and nothing is faulted in but pages that go away between looking and copying. First `survey`,
    which tells `size`; then `copy`. The process runs on meanwhile, unless it is paused: the copy is of no one instant.

    `regions` names stretches of the guest's addresses, `copied_at` is when copying ended, by time.monotonic().
    """

    def __init__(self, name: str, text: str, pid: int) -> None:
        super().__init__(name, text, 0)
        self.pid = pid
        self.regions: list[Region] = []
        self.copied_at = 0.0
        self._files = ProcessFiles(pid)
        self._pagemap = Pagemap(self._files.pagemap)
        self._remote = RemoteMemory(pid, self._files.memory)
        self._memory = np.empty(0, np.uint8)
        self._runs: Runs = np.empty((0, 2), np.uint64)  # what is copied: address and end, in the process
        self._shifts = np.empty(0, np.uint64)  # of each run, from the process's address to the guest's, modulo 2^64
        self._offsets = np.empty(0, np.uint64)  # of each run in the copy

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
            self._runs, self._shifts = _joined(np.concatenate(kept), np.concatenate(shifts))
        lengths = self._runs[:, 1] - self._runs[:, 0]
        self._offsets = np.cumsum(lengths) - lengths
        self.size = int(lengths.sum())

    def copy(self, *, spool: str | None = None, progress: Progress | None = None) -> None:
        """Copy what the survey found; a page that went away meanwhile is left out. OSError: no room, or it ended."""
        if self.size:
            try:
                self._memory = np.frombuffer(allocate(self.size, spool), np.uint8)
            except OSError as error:
                if spool is not None:
                    raise
                raise OSError(
                    error.errno, f"{self.text}: no room to copy its {self.size:,} bytes: {error.strerror}"
                ) from None
        phase = f"copying {self.name}"
        missing = [np.empty(0, np.uint64)]
        lengths = self._runs[:, 1] - self._runs[:, 0]
        tasks = _tasks(self._runs[:, 0], lengths, self._offsets, _COPY_AT_ONCE)

        def run(task: _Task) -> NDArray[np.uint64]:
            return self._remote.read(task.pieces, self._memory[task.offset : task.offset + task.n_bytes])

        done = 0
        for task, gone in zip(tasks, _in_threads(run, tasks), strict=True):
            done += task.n_bytes
            missing.append(gone)
            if progress is not None:
                progress(phase, done, self.size)
        self._check_alive()
        self._keep(np.concatenate(missing))
        self.copied_at = time.monotonic()

    def look_again(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Bool ndarray (n,): which of the pages of the copy at these addresses are no longer what they were.

        addresses: uint64 (n,), ascending, in the guest, one a page. A page that is gone has changed. The copy takes
        over what is new, so that the next look tells what changes after this one. OSError when the process ended.
        """
        page = os.sysconf("SC_PAGE_SIZE")
        begins = self._runs[:, 0] + self._shifts
        index = np.searchsorted(begins, addresses, side="right") - 1
        at = addresses - self._shifts[index]
        offsets = self._offsets[index] + (at - self._runs[index, 0])
        changed = np.zeros(len(addresses), np.uint8)
        first = np.flatnonzero(np.diff(at, prepend=np.uint64(1)) != page)  # of each run of pages
        lengths = np.diff(first, append=len(at)).astype(np.uint64) * np.uint64(page)
        tasks = _tasks(at[first], lengths, first.astype(np.uint64) * np.uint64(page), _LOOK_AT_ONCE)

        def run(task: _Task) -> None:
            room = np.empty(task.n_bytes, np.uint8)
            gone = self._remote.read(task.pieces, room)
            mine = slice(task.offset // page, (task.offset + task.n_bytes) // page)
            there = ~np.isin(at[mine], gone) if len(gone) else np.True_
            changed[mine] = ~there
            if len(gone):
                room = room.reshape(-1, page)[there].reshape(-1)
                still = np.zeros(np.count_nonzero(there), np.uint8)
                dedupcore.refresh(self._memory, offsets[mine][there], room, page, still)
                changed[mine][there] = still
            else:
                dedupcore.refresh(self._memory, offsets[mine], room, page, changed[mine])

        for _ in _in_threads(run, tasks):
            pass
        self._check_alive()
        return changed.astype(np.bool_)

    def in_process(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Uint64 ndarray (n,): where pages of the copy, by their addresses in the guest, lie in the process."""
        begins = self._runs[:, 0] + self._shifts
        return addresses - self._shifts[np.searchsorted(begins, addresses, side="right") - 1]

    def contents(self) -> list[memoryview]:
        """The copy, as it is now: what was scanned, and what looking again has taken over since."""
        return [memoryview(extent.buffer) for extent in self.extents if isinstance(extent, Extent)]

    def check(self) -> None:
        """Nothing to ask: the copy was complete, or copying failed."""

    def close(self) -> None:
        """Give the copy back; it ends when nobody holds a buffer of it any more."""
        self._files.close()
        self.extents = []
        self._memory = np.empty(0, np.uint8)

    def _check_alive(self) -> None:
        if not (self._pagemap.alive() and self._files.runs_same_program()):
            raise self._files.ended()

    def _keep(self, missing: NDArray[np.uint64]) -> None:
        """Make extents of the copy, without the pages that are missing."""
        page = np.uint64(os.sysconf("SC_PAGE_SIZE"))
        # Each missing page ends a run and begins one behind it; in sorted order, ends belong to beginnings again.
        starts = np.sort(np.concatenate((self._runs[:, 0], missing + page)))
        ends = np.sort(np.concatenate((self._runs[:, 1], missing)))
        some = starts != ends
        starts, ends = starts[some], ends[some]
        index = np.searchsorted(self._runs[:, 0], starts, side="right") - 1
        offsets = (self._offsets[index] + (starts - self._runs[index, 0])).tolist()
        addresses = (starts + self._shifts[index]).tolist()
        for address, offset, length in zip(addresses, offsets, (ends - starts).tolist(), strict=True):
            self.extents.append(Extent(address, self._memory.data[offset : offset + length]))
        self.size = int((ends - starts).sum())


@dataclass(frozen=True, slots=True)
class _Task:
    """Pieces (address and bytes each) that are read at once, and where they stand, one behind the other."""

    pieces: NDArray[np.uint64]
    offset: int
    n_bytes: int


def _tasks(
    starts: NDArray[np.uint64], lengths: NDArray[np.uint64], offsets: NDArray[np.uint64], most_bytes: int
) -> list[_Task]:
    """Cut pieces of memory that stand one behind the other from their offsets on into tasks of at most `most_bytes`."""
    tasks = []
    ends = np.cumsum(lengths)
    at = 0
    while at < len(starts):
        if lengths[at] > most_bytes:
            begin, length, offset = int(starts[at]), int(lengths[at]), int(offsets[at])
            for part in range(0, length, most_bytes):
                size = min(most_bytes, length - part)
                tasks.append(_Task(np.array([[begin + part, size]], np.uint64), offset + part, size))
            at += 1
            continue
        before = int(ends[at] - lengths[at])
        last = int(np.searchsorted(ends, before + most_bytes, side="right"))
        stop = max(at + 1, min(last, at + MOST_PIECES))
        pieces = np.stack((starts[at:stop], lengths[at:stop]), axis=1)
        tasks.append(_Task(pieces, int(offsets[at]), int(ends[stop - 1]) - before))
        at = stop
    return tasks


def _in_threads(function: Callable[[_T], _R], tasks: list[_T]) -> Iterator[_R]:
    """The results in the order of the tasks; when the caller gives up, what has not begun is dropped."""
    if len(tasks) <= 1:
        yield from map(function, tasks)
        return
    from concurrent.futures import ThreadPoolExecutor  # only here: importing it takes longer than importing this room

    pool = ThreadPoolExecutor(dedupcore.available_threads())
    try:
        yield from pool.map(function, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


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


def _joined(runs: Runs, shifts: NDArray[np.uint64]) -> tuple[Runs, NDArray[np.uint64]]:
    """The same runs with those joined that touch, so that no border of mappings cuts a run in two."""
    starts, ends = runs[:, 0], runs[:, 1]
    gap = (starts[1:] != ends[:-1]) | (shifts[1:] != shifts[:-1])
    first = np.r_[True, gap]
    return np.stack((starts[first], ends[np.r_[gap, True]]), axis=1), shifts[first]


def _bytes_in(runs: Runs) -> int:
    return int((runs[:, 1] - runs[:, 0]).sum())
