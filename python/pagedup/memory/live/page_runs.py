"""Which pages of a process are a guest's: where they lie in the process, where in the guest, and their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pieces = NDArray[np.uint64]
    """One row a piece of a process's memory: its address and its bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class PageRuns:
    """Runs of pages in ascending order, numbered from 0 through all of them. Arrays have one item a run.

    starts: address in the process; shifts: what to add, modulo 2^64, for the address in the guest; counts: pages.
    firsts: the number of the first page.
    """

    page: int
    starts: NDArray[np.uint64]
    shifts: NDArray[np.uint64]
    counts: NDArray[np.int64]
    firsts: NDArray[np.int64]

    @classmethod
    def of(cls, page: int, runs: NDArray[np.uint64], shifts: NDArray[np.uint64]) -> PageRuns:
        """From first addresses and ends (n, 2). Those that touch are one, so that no border of mappings cuts a run."""
        starts, ends = runs[:, 0], runs[:, 1]
        gap = (starts[1:] != ends[:-1]) | (shifts[1:] != shifts[:-1])
        first, last = np.append(True, gap)[: len(runs)], np.append(gap, True)[: len(runs)]
        counts = ((ends[last] - starts[first]) // np.uint64(page)).astype(np.int64)
        return cls(page, starts[first], shifts[first], counts, np.cumsum(counts) - counts)

    @property
    def n_pages(self) -> int:
        """How many there are."""
        return int(self.counts.sum())

    @property
    def begins(self) -> NDArray[np.uint64]:
        """Where the runs begin in the guest."""
        return self.starts + self.shifts

    def numbers(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The numbers of the pages at these addresses of the guest."""
        begins = self.begins
        run = np.searchsorted(begins, addresses, side="right") - 1
        return self.firsts[run] + ((addresses - begins[run]) // np.uint64(self.page)).astype(np.int64)

    def addresses(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Where pages lie in the process."""
        run = np.searchsorted(self.firsts, numbers, side="right") - 1
        return self.starts[run] + (numbers - self.firsts[run]).astype(np.uint64) * np.uint64(self.page)

    def pieces(self, wanted: NDArray[np.bool_]) -> Pieces:
        """Where the wanted pages lie in the process, in as few pieces as possible; one item of `wanted` a page."""
        borders = np.zeros(len(wanted) + 1, np.bool_)
        borders[self.firsts] = True
        borders[-1] = True
        # A piece begins at a wanted page behind a border or behind an unwanted one, and ends likewise.
        begins = np.flatnonzero(wanted & (borders[:-1] | ~np.append(False, wanted[:-1])))
        ends = np.flatnonzero(wanted & (borders[1:] | ~np.append(wanted[1:], False))) + 1
        lengths = (ends - begins).astype(np.uint64) * np.uint64(self.page)
        return np.stack((self.addresses(begins), lengths), axis=1)

    def without(self, gone: NDArray[np.bool_]) -> PageRuns:
        """The same less the pages that are gone; one item of `gone` a page."""
        if not gone.any():
            return self
        pieces = self.pieces(~gone)
        shifts = self.shifts[np.searchsorted(self.starts, pieces[:, 0], side="right") - 1]
        counts = (pieces[:, 1] // np.uint64(self.page)).astype(np.int64)
        return PageRuns(self.page, pieces[:, 0], shifts, counts, np.cumsum(counts) - counts)
