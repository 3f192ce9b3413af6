"""What a guest's accesses cost in translation, by where the host has large pages under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory.layouts import PAGE
from pagedup.sharing.frame_pool import LARGE_PAGE
from pagedup.tlb import Tlb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.tlb import Geometry

_LARGE = PAGE * LARGE_PAGE
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Translation:
    """One core that runs one guest.

    geometry: of the CPU. pages: of the guest. large_in_guest: whether the guest's own tables have pages of 2 MiB; else
    of 4 KiB, for which large pages of the host make walks shorter, but no TLB entry larger.
    """

    def __init__(self, geometry: Geometry, pages: int, *, large_in_guest: bool) -> None:
        self.geometry = geometry
        self._ranges = -(-pages // LARGE_PAGE)
        self._own = _LARGE if large_in_guest else PAGE
        self._tlb = Tlb(geometry, self._ranges * _LARGE, self._own)

    def cycles(self, gpns: NDArray[np.uint32], large: NDArray[np.bool_]) -> float:
        """Cycles of translation that an access takes, the mean of the second half: the first one warms up.

        gpns: pages accessed, in order; of each the same one line. large: bool ndarray (n_ranges,), which 2 MiB of the
        guest are in a large page of the host; a range more, of which the guest has a part only, never is. The guest's
        page tables are in large pages of the host if most of its memory is (assumed).
        """
        host = np.full(self._ranges, PAGE, np.int64)
        host[: len(large)][large] = _LARGE
        tables = _LARGE if 2 * np.count_nonzero(large) > self._ranges else PAGE
        self._tlb.remap(self._own, host_page_size=host, table_page_size=tables)
        numbers = gpns.astype(np.uint64)
        addresses = numbers * np.uint64(PAGE) + ((numbers * _MIX) >> np.uint64(58)) * np.uint64(64)
        half = len(addresses) // 2
        self._tlb.access(addresses[:half])
        found = self._tlb.access(addresses[half:])
        return found.cycles / found.accesses if found.accesses else 0.0
