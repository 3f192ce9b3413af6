"""What stands behind the addresses of a process, page by page, as /proc/N/pagemap tells (Linux's pagemap.rst)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

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

# ioctl PAGEMAP_SCAN of Linux 6.7, with struct pm_scan_arg: it skips what was never touched, where plain reading yields
# 8 bytes for each page of a reservation of terabytes; and it knows the zero page.
_PAGEMAP_SCAN = 0xC0606610
_SCAN_ARGUMENT = struct.Struct("=12Q")
_SCAN_FILE = 1 << 2
_SCAN_PRESENT = 1 << 3
_SCAN_SWAPPED = 1 << 4
_SCAN_PFNZERO = 1 << 5
_SCANNED = _SCAN_FILE | _SCAN_PRESENT | _SCAN_SWAPPED | _SCAN_PFNZERO
_REGIONS_A_CALL = 4096
_ENTRIES_A_READ = 1 << 19


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

    def runs(self, start: int, end: int) -> Runs:
        """The runs of pages between the two addresses, ascending, of uint64. Touches none of the pages."""
        if self._can_scan:
            try:
                return self._scan(start, end)
            except OSError as error:
                if error.errno not in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                self._can_scan = False  # an older kernel
        return self._read(start, end)

    def _scan(self, start: int, end: int) -> Runs:
        """By the ioctl; of what is anonymous the entries are read, for the bits that it lacks."""
        found = []
        for first, last, categories in _regions(self._fd, start, end):
            if categories & _SCAN_PRESENT and categories & _SCAN_FILE:
                found.append(_run(first, last, Page.FILE))
            elif categories & _SCAN_PRESENT and categories & _SCAN_PFNZERO:
                found.append(_run(first, last, Page.ZERO))
            else:
                # A page that has changed its kind since the ioctl is what it is now.
                found.append(self._read(first, last))
        return _concatenated(found)

    def _read(self, start: int, end: int) -> Runs:
        found = []
        step = _ENTRIES_A_READ * self._page
        for address in range(start, end, step):
            pages = (min(address + step, end) - address) // self._page
            data = os.pread(self._fd, pages * 8, address // self._page * 8)
            found.append(self._runs_of(np.frombuffer(data[: len(data) // 8 * 8], np.uint64), address))
        return _concatenated(found)

    def _runs_of(self, entries: NDArray[np.uint64], address: int) -> Runs:
        kinds = np.zeros(len(entries), np.uint8)
        kinds[(entries & (_SWAPPED | _GUARD)) == _SWAPPED] = Page.SWAPPED  # a guard page looks like one in swap
        present = (entries & _PRESENT) != 0
        kinds[present] = Page.SHARED
        kinds[present & ((entries & _EXCLUSIVE) != 0)] = Page.OWN
        kinds[present & ((entries & _FILE_OR_SHARED) != 0)] = Page.FILE
        # A run begins where the kind changes, and ends where the next one begins.
        edges = np.flatnonzero(np.diff(kinds, prepend=np.uint8(255)))
        ends = np.append(edges[1:], len(kinds))
        some = kinds[edges] != 0
        runs = np.stack((edges[some], ends[some], kinds[edges[some]]), axis=1).astype(np.uint64)
        runs[:, :2] = runs[:, :2] * np.uint64(self._page) + np.uint64(address)
        return runs


def _regions(fd: int, start: int, end: int) -> list[list[int]]:
    """First address, end, and categories of each stretch that is in memory or in swap."""
    regions = np.empty((_REGIONS_A_CALL, 3), np.uint64)
    vector = regions.__array_interface__["data"][0]
    found: list[list[int]] = []
    while start < end:
        either = _SCAN_PRESENT | _SCAN_SWAPPED
        argument = bytearray(
            _SCAN_ARGUMENT.pack(
                _SCAN_ARGUMENT.size, 0, start, end, 0, vector, _REGIONS_A_CALL, 0, 0, 0, either, _SCANNED
            )
        )
        count = fcntl.ioctl(fd, _PAGEMAP_SCAN, argument)
        found += regions[:count].tolist()
        if count < _REGIONS_A_CALL:
            break
        # Where the walk ended; but the kernel walks in steps of 512 regions, and tells the end of the last full one.
        start = max(_SCAN_ARGUMENT.unpack(argument)[4], found[-1][1])
    return found


def _run(start: int, end: int, kind: Page) -> Runs:
    return np.array([(start, end, kind)], np.uint64)


def _concatenated(found: list[Runs]) -> Runs:
    return np.concatenate(found) if found else np.empty((0, 3), np.uint64)
