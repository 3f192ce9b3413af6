"""Names for what a guest writes while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory.layouts import NameKind
from pagedup.memory.layouts.names import GUEST_BITS, NUMBER_BITS, kind_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FreshNames:
    """Content names that neither a layout nor another guest has, and none of them twice.

    They are names of the guest's own (NameKind.OWN). In those of layouts guests are numbered from 0 up; here from the
    highest number down, and of either there are at most half as many as numbers.

    Args:
        guest: its number, from 0 to below 2^19. ValueError for another one.
    """

    def __init__(self, guest: int) -> None:
        most = 1 << (GUEST_BITS - 1)
        if not 0 <= guest < most:
            raise ValueError(f"guest is {guest:,}; it must be from 0 to {most - 1:,}")
        self._next = kind_bits(NameKind.OWN) | ((1 << GUEST_BITS) - 1 - guest) << NUMBER_BITS
        self._end = self._next + (1 << NUMBER_BITS)

    def take(self, n: int) -> NDArray[np.uint64]:
        """The next n: uint64 ndarray (n,). OverflowError after 2^40 of them."""
        first, self._next = self._next, self._next + n
        if self._next > self._end:
            raise OverflowError(f"a guest writes at most {1 << NUMBER_BITS:,} pages")
        return np.arange(first, self._next, dtype=np.uint64)
