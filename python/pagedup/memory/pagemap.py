"""Which pages of a process lie in memory and belong to it alone, as /proc/N/pagemap tells (Linux's pagemap.rst)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Runs = NDArray[np.uint64]
    """One row a run of pages: its first address and the address after its last byte."""

_PRESENT = np.uint64(1 << 63)
_FILE_OR_SHARED = np.uint64(1 << 61)

# ioctl PAGEMAP_SCAN of Linux 6.7, with struct pm_scan_arg: it skips what was never touched, where plain reading yields
# 8 bytes for each page of a reservation of terabytes.
_PAGEMAP_SCAN = 0xC0606610
_SCAN_ARGUMENT = struct.Struct("=12Q")
_SCAN_FILE = 1 << 2
_SCAN_PRESENT = 1 << 3
_REGIONS_A_CALL = 4096
_ENTRIES_A_READ = 1 << 19


class Pagemap:
    """An open /proc/N/pagemap. It stays with the memory it was opened for, even if the process number is used again."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._can_scan = True

    def alive(self) -> bool:
        """Whether the memory still exists: the process has neither ended nor begun another program."""
        return len(os.pread(self._fd, 8, 0)) == 8

    def anonymous_runs(self, ranges: list[tuple[int, int]]) -> Runs:
        """The runs of pages in `ranges` (ascending addresses) that are present and anonymous. Touches none of them."""
        found = [self._runs(start, end) for start, end in ranges]
        return _joined(np.concatenate(found)) if found else np.empty((0, 2), np.uint64)

    def _runs(self, start: int, end: int) -> Runs:
        if self._can_scan:
            try:
                return _scan(self._fd, start, end)
            except OSError as error:
                if error.errno not in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                self._can_scan = False  # an older kernel
        return self._read(start, end)

    def _read(self, start: int, end: int) -> Runs:
        found = []
        step = _ENTRIES_A_READ * self._page
        for address in range(start, end, step):
            pages = (min(address + step, end) - address) // self._page
            data = os.pread(self._fd, pages * 8, address // self._page * 8)
            entries = np.frombuffer(data[: len(data) // 8 * 8], np.uint64)
            wanted = ((entries & _PRESENT) != 0) & ((entries & _FILE_OR_SHARED) == 0)
            # A run begins and ends where the flag changes.
            edges = np.flatnonzero(np.diff(wanted, prepend=False, append=False)).astype(np.uint64)
            found.append(edges.reshape(-1, 2) * np.uint64(self._page) + np.uint64(address))
        return np.concatenate(found)


def _scan(fd: int, start: int, end: int) -> Runs:
    """The same as reading, by the ioctl: present, and not backed by a file or shared memory."""
    regions = np.empty((_REGIONS_A_CALL, 3), np.uint64)  # start, end, categories
    vector = regions.__array_interface__["data"][0]
    found = []
    while start < end:
        mask = _SCAN_PRESENT | _SCAN_FILE
        argument = bytearray(
            _SCAN_ARGUMENT.pack(
                _SCAN_ARGUMENT.size, 0, start, end, 0, vector, _REGIONS_A_CALL, 0, _SCAN_FILE, mask, 0, _SCAN_PRESENT
            )
        )
        count = fcntl.ioctl(fd, _PAGEMAP_SCAN, argument)
        found.append(regions[:count, :2].copy())
        start = _SCAN_ARGUMENT.unpack(argument)[4]  # where the walk ended
    return np.concatenate(found)


def _joined(runs: Runs) -> Runs:
    """Join runs that touch, so that neither mappings nor chunks cut a run in two."""
    starts, ends = runs[:, 0], runs[:, 1]
    gap = starts[1:] != ends[:-1]
    if not len(runs):
        return runs
    return np.stack((starts[np.r_[True, gap]], ends[np.r_[gap, True]]), axis=1)
