"""Pages in memory at half their size: what a compressed cache is, whatever it holds."""

from __future__ import annotations

import operator
import threading
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pagedup.memory.batch import frames as checked_frames
from pagedup.memory.batch import whole_numbers
from pagedup.memory.closing import Closing
from pagedup.swap.slot_map import SlotMap

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

NO_ENTRY = (1 << 32) - 1
"""Instead of an entry: the page is not in the cache."""

_MOST_FRAMES = (1 << 30) - 1


class Compressed(NamedTuple):
    """Pages that were compressed, but are nowhere yet. From CompressedPages.compress.

    Attributes:
        fits: bool ndarray (n,), which of them take half a frame or less.
        contents: what the cache keeps of those that fit, in their order.
    """

    fits: NDArray[np.bool_]
    contents: Any


class CompressedPages(Closing):
    """A cache of compressed pages, two to a frame. CompressedCache is one of bytes, CompressedNames of content names.

    Each page that it keeps has an entry, a number that stays the same until it is freed. Calls wait for each other.
    """

    def __init__(self, most_frames: int, frame_size: int) -> None:
        n = operator.index(most_frames)
        if not 1 <= n <= _MOST_FRAMES:
            raise ValueError(f"most_frames is {n:,}; 1 to 2**30 - 1 are possible")
        self.most_frames = n
        self.frame_size = frame_size
        self.entries = 2 * n
        self._map = SlotMap(self.entries)
        self._queue = _Queue(self.entries)
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.frames:,} of {self.most_frames:,} frames used>"

    @property
    def used(self) -> int:
        """Pages that it keeps."""
        return self._map.used

    @property
    def frames(self) -> int:
        """Frames that it takes now: half of `used`, rounded up."""
        return self.frames_of(self.used)

    def frames_of(self, pages: int) -> int:
        """Frames that it takes when it keeps so many pages."""
        return (pages + 1) // 2

    def compress(self, frames: NDArray[Any]) -> Compressed:
        """Compress pages, and keep none of them. frames: uint8 ndarray (n, frame_size), or names, uint64 (n,)."""
        if not isinstance(frames, np.ndarray) or frames.ndim not in (1, 2):
            raise TypeError(f"frames is a {type(frames).__name__}; it must be a NumPy array, uint8 (n, frame_size)")
        held = checked_frames("frames", frames, len(frames), self.frame_size, "page")
        return self._compress(np.ascontiguousarray(held))

    def put(self, compressed: Compressed) -> NDArray[np.uint32]:
        """Keep the first of those that fit, as many as there is room for: their entries, NO_ENTRY for all others."""
        with self._lock:
            self._require_open()
            entries = self._map.lowest(int(np.count_nonzero(compressed.fits)))
            self._keep(entries, compressed.contents)
            self._map.take(entries)
            self._queue.append(entries)
            found = np.full(len(compressed.fits), NO_ENTRY, np.uint32)
            found[np.flatnonzero(compressed.fits)[: len(entries)]] = entries
            return found

    def get(self, entries: ArrayLike, out: NDArray[Any]) -> None:
        """Uncompress pages, which stay: out[i] becomes that of entries[i]. Here entries may repeat.

        out: a writable C-contiguous array as `frames` of `compress`. Raises SwapCorrupt, and ValueError,
        with nothing changed, for an entry that is free.
        """
        numbers = whole_numbers("entries", entries, self.entries, "entries")
        held = checked_frames("out", out, len(numbers), self.frame_size, "entry")
        if not (held.flags.c_contiguous and held.flags.writeable):
            raise ValueError("out must be writable and C-contiguous")
        with self._lock:
            self._require_open()
            self._map.require_used("entries", numbers, once=False)
            self._uncompress(numbers, held)

    def free(self, entries: ArrayLike) -> None:
        """Keep pages no longer. Raises ValueError for an entry that is free, or comes twice."""
        numbers = whole_numbers("entries", entries, self.entries, "entries")
        with self._lock:
            self._require_open()
            self._map.require_used("entries", numbers, once=True)
            self._drop(numbers)
            self._queue.remove(numbers)
            self._map.give_back(numbers)

    def close(self) -> None:
        """Give the memory back; no page is kept. Closing twice does nothing."""
        with self._lock:
            self._closed = True
            self._give_back()

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the cache is closed")

    def oldest(self, n: int) -> NDArray[np.uint32]:
        """The entries of the n pages that were put in first, or of all: uint32 (<= n,). They stay."""
        with self._lock:
            return self._queue.first(n)

    @abstractmethod
    def _compress(self, frames: NDArray[Any]) -> Compressed:
        """Compress pages."""

    @abstractmethod
    def _keep(self, entries: NDArray[np.uint32], contents: Any) -> None:
        """Keep the first of these; the entries are free yet."""

    @abstractmethod
    def _uncompress(self, entries: NDArray[np.uint32], out: NDArray[Any]) -> None:
        """Uncompress pages."""

    @abstractmethod
    def _drop(self, entries: NDArray[np.uint32]) -> None:
        """Keep pages no longer; the entries are still in use."""

    @abstractmethod
    def _give_back(self) -> None:
        """Give the memory back."""


class _Queue:
    """Entries in the order in which they came; each at most once."""

    def __init__(self, entries: int) -> None:
        self._order = np.zeros(2 * entries, np.uint32)  # entry + 1; 0: removed
        self._place = np.zeros(entries, np.uint32)  # of an entry in it
        self._begin = self._end = 0

    def append(self, entries: NDArray[np.uint32]) -> None:
        if self._end + len(entries) > len(self._order):
            waiting = self._order[self._begin : self._end]
            waiting = waiting[waiting != 0]
            self._begin = self._end = 0
            self._append(waiting - np.uint32(1))
        self._append(entries)

    def remove(self, entries: NDArray[np.uint32]) -> None:
        self._order[self._place[entries]] = 0

    def first(self, n: int) -> NDArray[np.uint32]:
        found = [np.empty(0, np.uint32)]
        at, step = self._begin, max(1024, 2 * n)
        while n > 0 and at < self._end:
            part = self._order[at : min(at + step, self._end)]
            part = part[part != 0][:n]
            if at == self._begin and not len(part):
                self._begin = min(at + step, self._end)
            found.append(part - np.uint32(1))
            n -= len(part)
            at += step
        return np.concatenate(found)

    def _append(self, entries: NDArray[np.uint32]) -> None:
        end = self._end + len(entries)
        self._order[self._end : end] = entries + np.uint32(1)
        self._place[entries] = np.arange(self._end, end, dtype=np.uint32)
        self._end = end
