"""What the pages were that a hypervisor paged out, and what that cost their guests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.host.result import Victims

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pagedup.host.guest import HostGuest


class PagedOutReport:
    """Counts by region, and by whether the page was in its guest's working set when it was paged out.

    Takes a byte a page of each guest of which any was paged out.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, bool], _Row] = {}
        self._was_hot: dict[int, NDArray[np.bool_]] = {}  # by guest: its pages, when they were last paged out

    def went_out(self, guest: HostGuest, gpns: NDArray[np.uint32], hot: NDArray[np.bool_]) -> None:
        """The pages went out; hot: bool (n,), which were in the working set then."""
        was_hot = self._was_hot.get(guest.number)
        if was_hot is None:
            was_hot = self._was_hot[guest.number] = np.zeros(guest.pages, np.bool_)
        was_hot[gpns] = hot
        for row, pages in self._by_row(guest, gpns, hot):
            row.paged_out += pages

    def came_back(self, guest: HostGuest, gpns: NDArray[np.uint32], seconds: float) -> None:
        """The pages came back, for which the guest waited so long in all."""
        for row, pages in self._by_row(guest, gpns, self._was_hot[guest.number].take(gpns)):
            row.paged_in += pages
            row.seconds += seconds * pages / len(gpns)

    def victims(self) -> Sequence[Victims]:
        """One for each region and temperature of which any page was paged out, in their order."""
        return [
            Victims(region, hot, row.paged_out, row.paged_in, row.seconds)
            for (region, hot), row in sorted(self._rows.items())
        ]

    def _by_row(
        self, guest: HostGuest, gpns: NDArray[np.uint32], hot: NDArray[np.bool_]
    ) -> Sequence[tuple[_Row, int]]:
        layout = guest.memory.layout
        counts = np.bincount(layout.regions.take(gpns) * np.uint16(2) + hot)
        rows = []
        for of in np.flatnonzero(counts).tolist():
            key = str(layout.region_table[of >> 1]), bool(of & 1)
            rows.append((self._rows.setdefault(key, _Row()), int(counts[of])))
        return rows


class _Row:
    __slots__ = ("paged_in", "paged_out", "seconds")

    def __init__(self) -> None:
        self.paged_out = self.paged_in = 0
        self.seconds = 0.0
