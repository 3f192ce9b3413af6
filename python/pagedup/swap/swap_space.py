"""Slots that take pages and give them back: what swap is, whatever holds the pages."""

from __future__ import annotations

import errno
import itertools
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

_MOST_SLOTS = (1 << 31) - 2
_TRANSFER_FRAMES, _TRANSFER_BYTES = 256, 1 << 20


class Put(NamedTuple):
    """What became of a batch.

    Attributes:
        slots: uint32 ndarray (k,), where its first k frames are.
        error: why the others are nowhere, as the system said it: ENOSPC, also when no slot is free, EDQUOT, EFBIG, EIO.
            None if all are stored.
    """

    slots: NDArray[np.uint32]
    error: OSError | None


class SwapCounts(NamedTuple):
    """What a swap holds, and what it did since it was made.

    Attributes:
        slots, used: slots that there are, and that hold a page now.
        pages_out, pages_in: pages stored, and pages read.
        writes, reads: transfers, of neighbouring slots: at most 256 of them, and at most 1 MiB if that is more than one
            page. Transfers that failed count, and so do those of single pages that look for the reason.
        bytes_out, bytes_in: what was transferred; in a swap of names nothing.
    """

    slots: int
    used: int
    pages_out: int
    pages_in: int
    writes: int
    reads: int
    bytes_out: int
    bytes_in: int


class SwapSpace(Closing):
    """Slots of one frame each. SwapFile keeps pages on disk, SwapNames counts; calls wait for each other."""

    def __init__(self, slots: int, frame_size: int) -> None:
        n = operator.index(slots)
        if not 1 <= n <= _MOST_SLOTS:
            raise ValueError(f"slots is {n:,}; 1 to 2**31 - 2 are possible")
        self.slots = n
        self.frame_size = frame_size
        self._map = SlotMap(n)
        self._lock = threading.Lock()
        self._most = max(1, min(_TRANSFER_FRAMES, _TRANSFER_BYTES // frame_size))
        self._pages = [0, 0]
        self._transfers = [0, 0]
        self._bytes = [0, 0]
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._map.used:,} of {self.slots:,} slots used>"

    @property
    def used(self) -> int:
        """Slots that hold a page."""
        return self._map.used

    def put(self, frames: NDArray[Any]) -> Put:
        """Store frames in the lowest free slots, the first frame in the lowest; each is stored as a whole, or not.

        frames: uint8 ndarray (n, frame_size); of content names uint64 (n,), too. Raises nothing that is the disk's
        fault: what it did not take is told.
        """
        if not isinstance(frames, np.ndarray) or frames.ndim not in (1, 2):
            raise TypeError(f"frames is a {type(frames).__name__}; it must be a NumPy array, uint8 (n, frame_size)")
        held = np.ascontiguousarray(checked_frames("frames", frames, len(frames), self.frame_size, "slot"))
        with self._lock:
            self._require_open()
            slots, error = self._map.lowest(len(held)), None
            if len(slots):
                stored, error = self._store(slots, held[: len(slots)])
                slots = slots[:stored]
                self._map.take(slots)
                self._pages[0] += stored
            if error is None and len(slots) < len(held):
                error = OSError(errno.ENOSPC, f"all {self.slots:,} slots of the swap are in use")
            return Put(slots, error)

    def get(self, slots: ArrayLike, out: NDArray[Any]) -> None:
        """Read slots, which keep what they hold: out[i] becomes the frame in slots[i]. Here slots may repeat.

        out: a writable C-contiguous array as `frames` of `put`. Raises SwapCorrupt and SwapUnreadable, with all that
        could be read in place; ValueError, with nothing changed, for a slot that is free.
        """
        numbers = whole_numbers("slots", slots, self.slots, "slots")
        held = checked_frames("out", out, len(numbers), self.frame_size, "slot")
        if not (held.flags.c_contiguous and held.flags.writeable):
            raise ValueError("out must be writable and C-contiguous")
        with self._lock:
            self._require_open()
            self._map.require_used("slots", numbers, once=False)
            if len(numbers):
                self._load(numbers, held)
                self._pages[1] += len(numbers)

    def free(self, slots: ArrayLike) -> None:
        """Give up what the slots hold. Raises ValueError for a slot that is free, or comes twice."""
        numbers = whole_numbers("slots", slots, self.slots, "slots")
        with self._lock:
            self._map.require_used("slots", numbers, once=True)
            self._map.give_back(numbers)

    def close(self) -> None:
        """Give back what it takes; no page is kept. Closing twice does nothing."""
        with self._lock:
            self._closed = True
            self._give_back()

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the swap is closed")

    def counts(self) -> SwapCounts:
        """What it holds, and what it did."""
        with self._lock:
            return SwapCounts(self.slots, self._map.used, *self._pages, *self._transfers, *self._bytes)

    def _runs(self, slots: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Where a transfer begins, of ascending slots, and their number at the end: intp (transfers + 1,)."""
        apart = np.flatnonzero(np.diff(slots) != 1) + 1
        edges = np.concatenate(([0], apart, [len(slots)]))
        if np.diff(edges).max() <= self._most:
            return edges
        runs = itertools.pairwise(edges.tolist())
        return np.concatenate([*(np.arange(begin, end, self._most) for begin, end in runs), [len(slots)]])

    @abstractmethod
    def _store(self, slots: NDArray[np.uint32], frames: NDArray[Any]) -> tuple[int, OSError | None]:
        """Store frames in slots, ascending; how many of the first are stored, and why not the others."""

    @abstractmethod
    def _load(self, slots: NDArray[np.uint32], out: NDArray[Any]) -> None:
        """Read slots."""

    @abstractmethod
    def _give_back(self) -> None:
        """Give back memory and files."""
