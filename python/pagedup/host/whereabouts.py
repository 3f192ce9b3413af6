"""Where the pages are that are not in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.host.paging import PagingCounts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.sharing import PoolGuest

IN_MEMORY = 0
LOST = (1 << 32) - 1
FIRST_SLOT = 1
"""A page in a slot of the swap has its number plus this."""
FIRST_ENTRY = 1 << 31
"""A page in the cache has the number of its entry plus this."""


class GuestPages:
    """The pages of one guest.

    Attributes:
        guest, number: whose, and its index in FramePool.guests.
        places: uint32 ndarray (pages,), where each page is: IN_MEMORY, LOST, in a slot, or an entry. Pages that were
            never out take no memory, but for the page of 4096 bytes that others of its 1,024 neighbours are in.
        counts: int64 ndarray, as PagingCounts.
    """

    def __init__(self, guest: PoolGuest, number: int) -> None:
        self.guest = guest
        self.number = number
        self.places = np.zeros(guest.pages, np.uint32)
        self.counts = np.zeros(len(PagingCounts._fields), np.int64)

    def count(self, **steps: int) -> None:
        """Add to counters, by their names."""
        for name, step in steps.items():
            self.counts[_INDEX[name]] += step


_INDEX = {name: index for index, name in enumerate(PagingCounts._fields)}


def entries_of(places: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Which of these places are in the cache."""
    found: NDArray[np.bool_] = (places >= FIRST_ENTRY) & (places != LOST)
    return found


def slots_of(places: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Which of these places are in swap."""
    found: NDArray[np.bool_] = (places >= FIRST_SLOT) & (places < FIRST_ENTRY)
    return found
