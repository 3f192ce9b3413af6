"""A compressed cache of pages of bytes."""

from __future__ import annotations

import mmap
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from pagedup.swap.compressed_pages import Compressed, CompressedPages
from pagedup.swap.deflate import compress, uncompress
from pagedup.swap.errors import SwapCorrupt

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_FRAME, _MAX_FRAME = 64, 1 << 30


class CompressedCache(CompressedPages):
    """Keeps pages that compress to half a frame (2048 of 4096 bytes, as ESX), two to a frame, in memory of its own.

    Args:
        most_frames: how many frames it may take, two pages a frame.
        frame_size: bytes of a page, a power of two from 64 to 2**30.

    Compresses with zlib at level 1, in batches, on as many threads as may run; what comes out is the same on any
    number. Of its memory `frames` frames are resident, whichever pages were freed; beside them 25 bytes for each page
    that it ever kept at a time.

    Raises ValueError for numbers out of range, and MemoryError when there are not so many addresses.
    """

    def __init__(self, most_frames: int, frame_size: int = 4096) -> None:
        size = operator.index(frame_size)
        if not _MIN_FRAME <= size <= _MAX_FRAME or size & (size - 1):
            raise ValueError(f"frame_size is {size:,}; it must be a power of two from {_MIN_FRAME} to {_MAX_FRAME:,}")
        super().__init__(most_frames, size)
        try:
            self._room = mmap.mmap(-1, self.most_frames * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"no addresses for {self.most_frames:,} frames of {size:,} bytes") from error
        # The pages lie in rows without holes, so that half a frame each is all they take.
        self._rows = np.frombuffer(self._room, np.uint8).reshape(self.entries, size // 2)
        self._sizes = np.zeros(self.entries, np.uint32)  # by row
        self._row_of = np.zeros(self.entries, np.uint32)
        self._entry_in = np.zeros(self.entries, np.uint32)

    def _give_back(self) -> None:
        self._rows = np.empty((0, self.frame_size // 2), np.uint8)
        self._room.close()

    def _compress(self, frames: NDArray[Any]) -> Compressed:
        half = self.frame_size // 2
        made = compress(frames)
        fits = np.fromiter((len(each) <= half for each in made), np.bool_, len(made))
        return Compressed(fits, [each for each in made if len(each) <= half])

    def _keep(self, entries: NDArray[np.uint32], contents: Any) -> None:
        n = len(entries)
        rows = np.arange(self.used, self.used + n, dtype=np.uint32)
        for row, each in zip(rows.tolist(), contents, strict=False):
            self._rows[row, : len(each)] = np.frombuffer(each, np.uint8)
        self._sizes[rows] = [len(each) for each in contents[:n]]
        self._row_of[entries] = rows
        self._entry_in[rows] = entries

    def _uncompress(self, entries: NDArray[np.uint32], out: NDArray[Any]) -> None:
        rows = self._row_of[entries]
        broken = uncompress(self._rows, rows, self._sizes[rows], out.view(np.uint8))
        if broken:
            raise SwapCorrupt(sorted(set(entries[broken].tolist())), "entry")

    def _drop(self, entries: NDArray[np.uint32]) -> None:
        """The last rows move to where these were."""
        rows, left = self._row_of[entries], self.used - len(entries)
        goes = np.zeros(self.used - left, np.bool_)
        goes[rows[rows >= left] - left] = True
        moving = np.flatnonzero(~goes) + left
        holes = rows[rows < left]
        self._rows[holes] = self._rows[moving]
        self._sizes[holes] = self._sizes[moving]
        self._entry_in[holes] = self._entry_in[moving]
        self._row_of[self._entry_in[holes]] = holes
        self._release(left)

    def _release(self, left: int) -> None:
        """Give the memory back that so many rows do not need."""
        begin, end = (-(-n * self.frame_size // 2 // mmap.PAGESIZE) * mmap.PAGESIZE for n in (left, self.used))
        if begin < end:
            self._room.madvise(mmap.MADV_DONTNEED, begin, end - begin)
