"""Memory for sharing in place that can be measured: no other mapping joins it."""

import ctypes
import mmap
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import pagedup

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)


def guarded(size: int) -> NDArray[np.uint8]:
    """Zero bytes from the beginning of a page on; on either side is a page that nobody may touch."""
    whole = -(-size // PAGE) * PAGE
    area = pagedup.allocate(whole + 2 * PAGE)
    for at in (0, whole + PAGE):
        assert LIBC.mprotect(ctypes.c_void_p(area.ctypes.data + at), ctypes.c_size_t(PAGE), 0) == 0
    return area[PAGE : PAGE + size]


def held(array: NDArray[np.uint8]) -> int:
    """Pages of memory behind a guarded array, in proportion to who else has them."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) < array.ctypes.data + array.nbytes and int(match[2], 16) > array.ctypes.data
        elif inside and line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return total // PAGE
