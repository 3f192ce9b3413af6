"""Random numbers one after the other, the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import dedupcore

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RandomStream:
    """The stream of a key (dedupcore.random_numbers), from its begin."""

    def __init__(self, key: int) -> None:
        self.key = key
        self._next = 0

    def take(self, n: int) -> NDArray[np.uint64]:
        """The next n numbers of 64 bits."""
        numbers = np.empty(n, np.uint64)
        dedupcore.random_numbers(self.key, numbers, self._next)
        self._next += n
        return numbers

    def below(self, bound: int, n: int) -> NDArray[np.int64]:
        """The next n, as numbers from 0 to below `bound`, which is at most 2^32."""
        return ((self.take(n) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)
