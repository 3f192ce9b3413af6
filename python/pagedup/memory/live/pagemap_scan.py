"""The ioctl PAGEMAP_SCAN of Linux 6.7, on an open /proc/N/pagemap (Linux's pagemap.rst): stretches of like pages.

It skips what was never touched, where plain reading yields 8 bytes for each page of a reservation of terabytes.
"""

from __future__ import annotations

import fcntl
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Categories of pages, enum of linux/fs.h.
WRITTEN = 1 << 1
"""Not write-protected by userfaultfd. From some version on also what was never touched."""
FILE = 1 << 2
PRESENT = 1 << 3
SWAPPED = 1 << 4
PFNZERO = 1 << 5
"""The kernel's zero page."""
HUGE = 1 << 6
"""Mapped as a part of a huge page."""

_PAGEMAP_SCAN = 0xC0606610
_ARGUMENT = struct.Struct("=12Q")  # struct pm_scan_arg
_PROTECT = 1 << 0 | 1 << 1  # PM_SCAN_WP_MATCHING, PM_SCAN_CHECK_WPASYNC
_REGIONS_A_CALL = 4096


def scan(
    fd: int, start: int, end: int, *, either: int, every: int = 0, told: int, protect: bool = False
) -> NDArray[np.uint64]:
    """Uint64 ndarray (n, 3), ascending: first address, end and categories of each stretch of like pages.

    Of the pages between the two addresses those that are of one of the categories `either` at least, and of all of
    `every`; pages are alike that are equal in the categories `told`. Touches none of them. With `protect` those
    that are found and WRITTEN are protected again, each in the instant in which it is seen.

    Raises OSError: an older kernel (ENOTTY, EINVAL or EOPNOTSUPP), or the process ended (ESRCH).
    """
    regions = np.empty((_REGIONS_A_CALL, 3), np.uint64)
    vector = regions.__array_interface__["data"][0]
    flags = _PROTECT if protect else 0
    found = []
    while start < end:
        argument = bytearray(
            _ARGUMENT.pack(_ARGUMENT.size, flags, start, end, 0, vector, len(regions), 0, 0, every, either, told)
        )
        count = fcntl.ioctl(fd, _PAGEMAP_SCAN, argument)
        found.append(regions[:count].copy())
        if count < len(regions):
            break
        # Where the walk ended. The kernel may tell an earlier place, at which it once emptied a buffer of its own.
        start = max(_ARGUMENT.unpack(argument)[4], int(regions[count - 1, 1]))
    return np.concatenate(found) if found else np.empty((0, 3), np.uint64)
