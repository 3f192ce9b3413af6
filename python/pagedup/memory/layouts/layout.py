"""Layouts: a guest's memory by content names, and what each page is used for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pagedup.memory.layouts.names import ABSENT, PAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.source import Progress, Source

MOST_REGIONS = 1 << 8


class RegionKind(StrEnum):
    """What a guest uses memory for."""

    KERNEL_TEXT = "kernel text"
    KERNEL_DATA = "kernel data"
    IMAGE_TEXT = "image text"
    IMAGE_RDATA = "image rdata"
    IMAGE_DATA = "image data"
    HEAP = "heap"
    STACK = "stack"
    FILE_CACHE = "file cache"
    PAGE_TABLES = "page tables"
    FREE = "free"
    """Free in the guest, though it was given memory."""
    ABSENT = "absent"
    """Never given memory."""
    UNKNOWN = "unknown"
    """Read from real memory, whose use the dump does not tell."""


@dataclass(frozen=True, slots=True)
class LayoutRegion:
    """Pages of one use: what kind, and of which image or process (its name, or "")."""

    kind: RegionKind
    of: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.of}" if self.of else str(self.kind)


class PageContent(Protocol):
    """Knows the bytes of names that stand for pages of real files."""

    def fill(self, names: NDArray[np.uint64], out: NDArray[np.uint8]) -> None:
        """Write the bytes of these names into their pages of `out`, (n, 4096) uint8; others stay as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What one guest's memory holds, page by page of 4096 bytes.

    Attributes:
        name: of the guest.
        names: uint64 ndarray (n_pages,): the content name of each page (pagedup.memory.layouts.names has the bits); 0
            is the zero page, all bits set a page that is absent.
        regions: uint8 ndarray (n_pages,): what the page is used for, an index into `region_table`.
        region_table: the regions.
        runs: uint64 ndarray (k, 2): where the pages lie: first guest page number and number of pages of each run,
            ascending. A generated guest has one run, from page 0 on.
        space: names of two layouts mean the same if these are equal; otherwise they must not be compared.
        content: where the bytes of pages of real files come from, or None; it is not saved.
    """

    name: str
    names: NDArray[np.uint64]
    regions: NDArray[np.uint8]
    region_table: Sequence[LayoutRegion]
    runs: NDArray[np.uint64]
    space: str
    content: PageContent | None = None

    def __post_init__(self) -> None:
        """ValueError, which names the field, where they do not fit together."""
        for field, array, dtype, ndim in (
            ("names", self.names, np.uint64, 1),
            ("regions", self.regions, np.uint8, 1),
            ("runs", self.runs, np.uint64, 2),
        ):
            if array.dtype != dtype or array.ndim != ndim:
                raise ValueError(
                    f"{field} is {array.dtype} with the shape {array.shape}; it must be {np.dtype(dtype)} of {ndim}"
                    f" dimension{'s' * (ndim > 1)}"
                )
        n_pages = len(self.names)
        if len(self.regions) != n_pages:
            raise ValueError(f"regions has {len(self.regions):,} pages, and names has {n_pages:,}")
        if not len(self.region_table) <= MOST_REGIONS:
            raise ValueError(
                f"region_table has {len(self.region_table):,} regions; at most {MOST_REGIONS:,} are possible"
            )
        if n_pages and int(self.regions.max()) >= len(self.region_table):
            raise ValueError(
                f"regions has the number {int(self.regions.max())}, and region_table {len(self.region_table)} entries"
            )
        _check_runs(self.runs, n_pages)

    @property
    def n_pages(self) -> int:
        """Pages that the guest has, absent ones included."""
        return len(self.names)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Bool ndarray (n_pages,): which pages have memory. Made anew at each use."""
        mask: NDArray[np.bool_] = self.names != np.uint64(ABSENT)
        return mask

    def __repr__(self) -> str:
        return f"<Layout {self.name!r}: {self.n_pages:,} pages, {len(self.region_table):,} regions>"

    def save(self, path: str) -> None:
        """Write it to `path`, which should end in .npz: compressed, without pickles. What stood there is replaced."""
        from pagedup.memory.layouts.saved import (
            save,
        )  # only here: reading and writing need modules that generating does not

        save(self, path)

    @staticmethod
    def load(path: str) -> Layout:
        """Read what `save` wrote. OSError for a file that is something else, broken, or of another version."""
        from pagedup.memory.layouts.saved import load

        return load(path)

    @staticmethod
    def from_memory(sources: Sequence[Source], progress: Progress | None = None) -> list[Layout]:
        """The layouts of open sources (whatever `pagedup scan` reads), whose names can be compared with one another.

        Pages of 4096 bytes; bytes that fill no page count as absent. ValueError if a source has pages at odd addresses.
        """
        from pagedup.memory.layouts.capture import capture

        return capture(sources, progress)


def _check_runs(runs: NDArray[np.uint64], n_pages: int) -> None:
    if runs.shape[1] != 2:
        raise ValueError(f"runs has the shape {runs.shape}; it must be (k, 2)")
    first, length = runs[:, 0].tolist(), runs[:, 1].tolist()
    if sum(length) != n_pages:
        raise ValueError(f"runs has {sum(length):,} pages, and names has {n_pages:,}")
    end = 0
    for begin, pages in zip(first, length, strict=True):
        if begin < end or begin + pages > (1 << 64) // PAGE:
            raise ValueError(f"runs: the one from page {begin:#x} on overlaps another, is out of order or beyond 2**52")
        end = begin + pages
