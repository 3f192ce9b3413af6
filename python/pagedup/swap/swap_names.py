"""A swap for simulations in content names: slots and transfers are counted, and nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pagedup.memory.batch import NAME
from pagedup.swap.swap_space import SwapSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SwapNames(SwapSpace):
    """So many slots for content names, in memory: 8 bytes a slot that was ever used, and one a slot.

    It counts the transfers that a SwapFile of pages of 4096 bytes needs for the same calls.

    Args:
        slots: how many, 1 to 2**31 - 2.

    Raises ValueError for a number out of range, and MemoryError.
    """

    def __init__(self, slots: int) -> None:
        super().__init__(slots, NAME)
        self._names = np.zeros(self.slots, np.uint64)

    def _give_back(self) -> None:
        self._names = np.empty(0, np.uint64)

    def _store(self, slots: NDArray[np.uint32], frames: NDArray[Any]) -> tuple[int, OSError | None]:
        self._names[slots] = frames.reshape(-1).view(np.uint64)
        self._transfers[0] += len(self._runs(slots)) - 1
        return len(slots), None

    def _load(self, slots: NDArray[np.uint32], out: NDArray[Any]) -> None:
        out.reshape(-1).view(np.uint64)[:] = self._names[slots]
        self._transfers[1] += len(self._runs(np.sort(slots))) - 1
