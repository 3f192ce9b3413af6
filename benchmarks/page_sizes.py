"""Memory in pages of one size, to measure what the size does: asked of the kernel, and then looked at."""

from __future__ import annotations

import contextlib
import mmap
import re
from pathlib import Path

import numpy as np

SMALL, LARGE = 4 << 10, 2 << 20


class NotGiven(RuntimeError):
    """The kernel gave pages of another size."""


class Pages:
    """Zero bytes, every page of them there, from a multiple of 2 MiB on; all in pages of 4 KiB, or all in 2 MiB.

    Freed with the last array on it. Raises NotGiven.
    """

    def __init__(self, size: int, page_size: int) -> None:
        """A multiple of the page size, in bytes."""
        assert page_size in (SMALL, LARGE) and size % page_size == 0
        self.page_size = page_size
        self.area = mmap.mmap(-1, size + 2 * LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        everything = np.frombuffer(self.area, np.uint8)
        # Some on either side stays as it is: what is asked for is a mapping of its own, and smaps tells just that.
        skip = LARGE - everything.ctypes.data % LARGE
        with contextlib.suppress(OSError):  # of a kernel without large pages; what it gave is looked at below
            self.area.madvise(mmap.MADV_HUGEPAGE if page_size == LARGE else mmap.MADV_NOHUGEPAGE, skip, size)
        self.memory = everything[skip : skip + size]
        self.memory[::SMALL] = 0
        self.check()

    def check(self) -> None:
        """Whether it is still in such pages: raises NotGiven if not."""
        size = self.memory.nbytes
        told = _smaps(self.memory.ctypes.data, size)
        wanted = size if self.page_size == LARGE else 0
        if told["AnonHugePages"] != wanted or told["KernelPageSize"] != SMALL or told["Rss"] != size:
            kib = {key: value >> 10 for key, value in told.items()}
            raise NotGiven(
                f"asked for {size >> 10} KiB in pages of {self.page_size >> 10} KiB, but {kib['Rss']} KiB are"
                f" there, {kib['AnonHugePages']} of them in large pages, others of {kib['KernelPageSize']} KiB"
            )


def _smaps(start: int, size: int) -> dict[str, int]:
    """What the kernel tells of the mapping of exactly these addresses, in bytes."""
    text = Path("/proc/self/smaps").read_text()
    found = re.search(rf"^{start:08x}-{start + size:08x} .*\n((?:\w+:.*\n)+)", text, re.MULTILINE)
    if not found:
        raise NotGiven(f"/proc/self/smaps has no mapping from {start:x} to {start + size:x}")
    return {key: int(kib) << 10 for key, kib in re.findall(r"^(\w+): +(\d+) kB$", found[1], re.MULTILINE)}
