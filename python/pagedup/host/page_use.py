"""What a guest's operating system uses each page for, as far as it decides what may go when memory is short."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory.layouts import NameKind, RegionKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.layouts import Layout


class Use(IntEnum):
    """Of one page. Those up to CACHED are in use and in the guest's memory, those from UNLOADED on are not there."""

    FIXED = 0
    """Of the kernel, or a page table: never paged out."""
    ANONYMOUS = 1
    """Written by a program: has to be written to the guest's swap before it goes."""
    MAPPED = 2
    """Of an image, and as it is in the image's file: can be dropped, and read again."""
    CACHED = 3
    """Of the file cache: can be dropped, and read again."""
    FREE = 4
    BALLOON = 5
    """Was free when the balloon took it."""
    UNLOADED = 6
    """Not there yet: what is in use once the guest has been started."""
    SWAPPED = 7
    """In the guest's swap."""
    DROPPED = 8
    """In a file, from which it was read before."""


IN_MEMORY = Use.CACHED
"""The last of those that are in use and in memory."""

_OF_KIND = {
    RegionKind.KERNEL_TEXT: Use.FIXED,
    RegionKind.KERNEL_DATA: Use.FIXED,
    RegionKind.IMAGE_TEXT: Use.MAPPED,
    RegionKind.IMAGE_RDATA: Use.MAPPED,
    RegionKind.IMAGE_DATA: Use.ANONYMOUS,
    RegionKind.HEAP: Use.ANONYMOUS,
    RegionKind.STACK: Use.ANONYMOUS,
    RegionKind.FILE_CACHE: Use.CACHED,
    RegionKind.PAGE_TABLES: Use.FIXED,
    RegionKind.FREE: Use.FREE,
    RegionKind.ABSENT: Use.FREE,
    RegionKind.UNKNOWN: Use.ANONYMOUS,
}

# Names of pages that are as they are in a file, by their four highest bits. (Windows relocates a page as it is read
# from its file, and so can do it again: Windows Internals, 6th ed., part 2, ch. 10.)
_OF_FILES = np.zeros(16, np.bool_)
_OF_FILES[[NameKind.FILE, NameKind.REBASED, NameKind.REAL, NameKind.MOVED]] = True


def by_region(layout: Layout, chosen: dict[RegionKind, int]) -> NDArray[np.uint8]:
    """What is chosen for the kind of each of a layout's regions: uint8 ndarray, to be indexed by its `regions`."""
    return np.array([chosen[region.kind] for region in layout.region_table], np.uint8)


class LayoutUse:
    """What a layout says that its pages are used for, once they are."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._table = by_region(layout, {kind: int(use) for kind, use in _OF_KIND.items()})

    def of_all(self) -> NDArray[np.uint8]:
        """Uint8 ndarray (n_pages,), by regions alone."""
        return self._table.take(self._layout.regions)

    def of(self, gpns: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Uint8 ndarray (n,): pages of images that are not as in their files are ANONYMOUS."""
        uses = self._table.take(self._layout.regions.take(gpns))
        mapped = np.flatnonzero(uses == Use.MAPPED)
        if len(mapped):
            kinds = (self._layout.names.take(gpns[mapped]) >> np.uint64(60)).astype(np.intp)
            uses[mapped[~_OF_FILES.take(kinds)]] = Use.ANONYMOUS
        return uses
