"""Which slots are in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory.batch import require_distinct

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP = 1 << 16  # slots looked at together


class SlotMap:
    """Slots from 0 on, a byte each, of which the lowest free ones are found first.

    Attributes:
        slots: how many there are.
        used: how many of them are in use.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.used = 0
        self._in_use = np.zeros(slots, np.bool_)
        self._lowest = 0  # below it all are in use

    def lowest(self, n: int) -> NDArray[np.uint32]:
        """The lowest n free slots, ascending, or as many as there are: uint32 (<= n,). They stay free."""
        found = [np.empty(0, np.uint32)]
        missing, at = min(n, self.slots - self.used), self._lowest
        while missing:
            part = self._in_use[at : at + _STEP]
            if not part.all():
                free = np.flatnonzero(~part)[:missing]
                found.append((free + at).astype(np.uint32))
                missing -= len(free)
            at += _STEP
        return np.concatenate(found)

    def take(self, slots: NDArray[np.uint32]) -> None:
        """Use slots that `lowest` has given, or the first of them."""
        if len(slots):
            self._in_use[slots] = True
            self.used += len(slots)
            self._lowest = int(slots[-1]) + 1

    def give_back(self, slots: NDArray[np.uint32]) -> None:
        """Make slots free that are in use, each given once."""
        if len(slots):
            self._in_use[slots] = False
            self.used -= len(slots)
            self._lowest = min(self._lowest, int(slots.min()))

    def require_used(self, what: str, slots: NDArray[np.uint32], *, once: bool) -> None:
        """Raise ValueError for slots that are free, and if `once` for one that comes twice."""
        free = ~self._in_use[slots]
        if free.any():
            at = int(np.argmax(free))
            raise ValueError(f"{what}[{at}] is {slots[at]}, which is free")
        if once:
            require_distinct(what, slots)
