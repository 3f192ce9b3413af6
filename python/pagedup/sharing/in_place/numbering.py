"""Pages of several ranges of addresses, numbered from 0 on."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

T = TypeVar("T", bound=np.generic)


class Numbering:
    """The numbers of the pages in ranges, start <= address < end, ascending, of whole pages.

    Attributes:
        starts, ends: of the ranges.
        firsts: the number of the first page of each range.
        counts: how many pages each has.
        n: how many there are.
    """

    def __init__(self, starts: Sequence[int] | Numbers, ends: Sequence[int] | Numbers) -> None:
        self.starts = np.array(starts, np.int64)
        self.ends = np.array(ends, np.int64)
        self.counts = (self.ends - self.starts) // mmap.PAGESIZE
        self.firsts = np.cumsum(self.counts) - self.counts
        self.n = int(self.counts.sum())

    def ranges_of(self, numbers: Numbers) -> Numbers:
        """Which range each page lies in."""
        return np.searchsorted(self.firsts, numbers, side="right") - 1

    def addresses(self, numbers: Numbers) -> Numbers:
        """Of pages."""
        i = self.ranges_of(numbers)
        found: Numbers = self.starts[i] + (numbers - self.firsts[i]) * mmap.PAGESIZE
        return found

    def pages_up_to(self, addresses: Numbers) -> Numbers:
        """How many pages lie below each address."""
        i = np.searchsorted(self.starts, addresses, side="right") - 1
        below = self.firsts[i] + (np.minimum(addresses, self.ends[i]) - self.starts[i]) // mmap.PAGESIZE
        return np.where(i >= 0, below, 0)

    def spread(self, values: NDArray[T]) -> NDArray[T]:
        """Of each page the value of its range."""
        return np.repeat(values, self.counts)
