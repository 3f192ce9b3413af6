"""What stands behind the addresses of a process, page by page, as /proc/N/pagemap tells (Linux's pagemap.rst)."""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory.live.pagemap_scan import FILE, HUGE, PFNZERO, PRESENT, SWAPPED, scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Runs = NDArray[np.uint64]
    """One row a run of pages of one kind: its first address, the address after its last byte, and the Page kind."""

# Bits of an entry.
_PRESENT = np.uint64(1 << 63)
_SWAPPED = np.uint64(1 << 62)
_FILE_OR_SHARED = np.uint64(1 << 61)
_GUARD = np.uint64(1 << 58)  # no memory behind it: MADV_GUARD_INSTALL of Linux 6.13, told since 6.15
_EXCLUSIVE = np.uint64(1 << 56)

_SCANNED = FILE | PRESENT | SWAPPED | PFNZERO
_UNKNOWN = (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP)  # what an older kernel says
_ENTRIES_A_READ = 1 << 19
_TO_READ = 100  # in the place of a Page: its entry tells
_GAP = 512  # pages; reading their entries takes less than another round in Python


class Page(IntEnum):
    """What a page is backed by. A page without any of it is in no run."""

    OWN = 1
    """Anonymous memory that no other page table maps."""
    SHARED = 2
    """Anonymous memory that more than one page table maps. Before Linux 6.7 the zero page, too."""
    ZERO = 3
    """The kernel's zero page."""
    FILE = 4
    """A page of a file or of shared memory."""
    SWAPPED = 5
    """In swap."""


class Pagemap:
    """An open /proc/N/pagemap. It stays with the memory it was opened for, even if the process number is used again."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._can_scan = True

    def alive(self) -> bool:
        """Whether the memory still exists: the process has neither ended nor begun another program."""
        return len(os.pread(self._fd, 8, 0)) == 8

    def runs(self, start: int, end: int, *, tell_shared: bool = True) -> Runs:
        """The runs of pages between the two addresses, ascending, of uint64. Touches none of the pages.

        Without `tell_shared` some that are SHARED may be told as OWN, which takes less time.
        """
        if self._can_scan:
            try:
                return self._scan(start, end, tell_shared)
            except OSError as error:
                if error.errno not in _UNKNOWN:
                    raise
                self._can_scan = False  # an older kernel
        return self._read(start, end)

    def huge_pages(self, start: int, end: int) -> Runs | None:
        """The runs of pages that are mapped as huge ones; None where the kernel does not tell, before Linux 6.7."""
        try:
            return scan(self._fd, start, end, either=HUGE, told=HUGE)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            return None

    def _scan(self, start: int, end: int, tell_shared: bool) -> Runs:
        """By the ioctl; where what it tells is not all, the entries are read, for the bits that it lacks."""
        regions = scan(self._fd, start, end, either=PRESENT | SWAPPED, told=_SCANNED)
        found = []
        for group in _near(regions, _GAP * self._page):
            first = int(group[0, 0])
            present = (group[:, 2] & PRESENT) != 0
            kinds = np.full(len(group), _TO_READ, np.uint8)
            if not tell_shared:
                kinds[present] = Page.OWN
            kinds[present & ((group[:, 2] & PFNZERO) != 0)] = Page.ZERO
            kinds[present & ((group[:, 2] & FILE) != 0)] = Page.FILE
            if (kinds != _TO_READ).all():
                found.append(np.column_stack((group[:, :2], kinds.astype(np.uint64))))
                continue
            # A page that has changed its kind since the ioctl is what it is now.
            entries = self._entries(first, int(group[-1, 1]))
            pages = ((group[:, :2] - np.uint64(first)) // np.uint64(self._page)).astype(np.int64)
            told = np.zeros(len(entries) + 1, np.int16)
            told[pages[:, 0]] += kinds
            told[pages[:, 1]] -= kinds
            told = np.cumsum(told[:-1], dtype=np.int16)
            known = np.where(told == _TO_READ, self._kinds_of(entries), told).astype(np.uint8)
            found.append(self._runs_of(known, first))
        return _concatenated(found)

    def _read(self, start: int, end: int) -> Runs:
        found = []
        step = _ENTRIES_A_READ * self._page
        for address in range(start, end, step):
            entries = self._entries(address, min(address + step, end))
            found.append(self._runs_of(self._kinds_of(entries), address))
        return _concatenated(found)

    def _entries(self, start: int, end: int) -> NDArray[np.uint64]:
        """The entries of the pages, as many as there are; 0 for those that the kernel tells nothing of."""
        entries = np.zeros((end - start) // self._page, np.uint64)
        room, at = entries.view(np.uint8).data, start // self._page * 8
        done = 0
        while got := os.preadv(self._fd, [room[done : done + _ENTRIES_A_READ * 8]], at + done):
            done += got
        return entries

    def _kinds_of(self, entries: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """The Page kind of each, 0 for none."""
        kinds = np.zeros(len(entries), np.uint8)
        kinds[(entries & (_SWAPPED | _GUARD)) == _SWAPPED] = Page.SWAPPED  # a guard page looks like one in swap
        present = (entries & _PRESENT) != 0
        kinds[present] = Page.SHARED
        kinds[present & ((entries & _EXCLUSIVE) != 0)] = Page.OWN
        kinds[present & ((entries & _FILE_OR_SHARED) != 0)] = Page.FILE
        return kinds

    def _runs_of(self, kinds: NDArray[np.uint8], address: int) -> Runs:
        # A run begins where the kind changes, and ends where the next one begins.
        edges = np.flatnonzero(np.diff(kinds, prepend=np.uint8(255)))
        ends = np.append(edges[1:], len(kinds))
        some = kinds[edges] != 0
        runs = np.stack((edges[some], ends[some], kinds[edges[some]]), axis=1).astype(np.uint64)
        runs[:, :2] = runs[:, :2] * np.uint64(self._page) + np.uint64(address)
        return runs


def _near(regions: Runs, gap: int) -> list[Runs]:
    """Cut the regions where more than `gap` bytes lie between two, so that each part is worth reading at once."""
    if not len(regions):
        return []
    return np.split(regions, np.flatnonzero(regions[1:, 0] - regions[:-1, 1] > np.uint64(gap)) + 1)


def _concatenated(found: list[Runs]) -> Runs:
    return np.concatenate(found) if found else np.empty((0, 3), np.uint64)
