"""The files that a guest's file cache holds parts of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

import dedupcore
from pagedup.guests.loaded import as_shares
from pagedup.memory.layouts.names import BASE_BITS, file_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRETCH = 32
"""Pages of files that are read at once: 128 KiB, Linux's default readahead (Documentation/admin-guide/sysfs-block)."""

_COPIES = 1 << 41  # keys of the streams that say which files are copies
_CLOSE = 64  # stretches: 8 MiB of files, a folder or two


class CacheFiles(Protocol):
    """A body of files, page behind page."""

    def __len__(self) -> int:
        """How many pages there are."""

    def names(self, pages: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The names of these pages."""


class MadeUpFiles:
    """Files of which only their number is known, and which share of them are copies of others, in whole stretches."""

    def __init__(self, number: int, n_pages: int, repeated: float) -> None:
        self._first = np.uint64(file_name(number, 0))
        self._n_pages = n_pages
        self._originals = _originals(n_pages, repeated, number) if repeated else None

    def __len__(self) -> int:
        return self._n_pages

    def names(self, pages: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The names of these pages, which may reach over several image numbers."""
        if self._originals is not None:
            pages = self._originals[pages // STRETCH] * STRETCH + pages % STRETCH
        names = pages.astype(np.uint64)
        names <<= np.uint64(BASE_BITS)
        names += self._first
        return names


class RealCacheFiles:
    """Real files, whose pages have names by their bytes."""

    def __init__(self, names: NDArray[np.uint64]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def names(self, pages: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The names of these pages."""
        return self._names[pages]


def _originals(n_pages: int, repeated: float, number: int) -> NDArray[np.int64]:
    """For each stretch of the files the one that it is a copy of, or itself."""
    draws = np.empty(-(-n_pages // STRETCH), np.uint64)
    dedupcore.random_numbers(_COPIES + number, draws)
    stretches = np.arange(len(draws))
    copies = np.flatnonzero(as_shares(draws) < repeated)
    # How far back: from the low bits, since the high ones have decided already.
    back = 1 + (draws[copies] % np.uint64(_CLOSE)).astype(np.int64)
    stretches[copies] = np.maximum(copies - back, 0)
    while not np.array_equal(stretches, stretches[stretches]):  # copies of copies
        stretches = stretches[stretches]
    return stretches
