"""A compressed cache for simulations in content names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pagedup.memory.batch import NAME
from pagedup.swap.compressed_pages import Compressed, CompressedPages

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WEYL = 0x9E3779B97F4A7C15


class CompressedNames(CompressedPages):
    """Keeps content names as CompressedCache keeps pages; a page of it stands for half a frame.

    Args:
        most_frames: how many frames it may take, two pages a frame.
        share: of the contents, how many compress to half a frame: 0 to 1.

    Which contents compress is decided by a hash of the name (SplitMix64's finalizer), so that a name compresses
    everywhere or nowhere; the zero page always does. Takes 21 bytes for each page that it ever kept at a time.

    Raises ValueError for numbers out of range.
    """

    def __init__(self, most_frames: int, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; it must be from 0 to 1")
        super().__init__(most_frames, NAME)
        self.share = share
        self._names = np.zeros(self.entries, np.uint64)

    def _give_back(self) -> None:
        self._names = np.empty(0, np.uint64)

    def compresses(self, names: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of these contents compress to half a frame: bool ndarray (n,)."""
        if self.share == 1:
            return np.ones(len(names), np.bool_)
        fits: NDArray[np.bool_] = (_mixed(names) < np.uint64(int(self.share * 2**64))) | (names == 0)
        return fits

    def _compress(self, frames: NDArray[Any]) -> Compressed:
        names = frames.reshape(-1).view(np.uint64)
        fits = self.compresses(names)
        return Compressed(fits, names[fits])

    def _keep(self, entries: NDArray[np.uint32], contents: Any) -> None:
        self._names[entries] = contents[: len(entries)]

    def _uncompress(self, entries: NDArray[np.uint32], out: NDArray[Any]) -> None:
        out.reshape(-1).view(np.uint64)[:] = self._names[entries]

    def _drop(self, entries: NDArray[np.uint32]) -> None:
        pass


def _mixed(names: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each number hashed to one where every bit depends on every bit given."""
    x = names + np.uint64(_WEYL)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(31)
    return x
