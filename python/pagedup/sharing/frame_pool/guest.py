"""A guest of a frame pool."""

from __future__ import annotations

import operator
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

import dedupcore
from pagedup.sharing.frame_pool.batch import as_bytes, frames, whole_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ABSENT = dedupcore.ABSENT
"""In a page table: the page has no frame."""

LARGE_PAGE = dedupcore.LARGE_PAGE
"""Pages of a large page: 512."""


class PoolGuest:
    """A guest whose pages are mapped to frames of its pool. Made by FramePool.add_guest.

    Range r of a guest is its pages 512 * r to 512 * r + 511; what is left at the end is in no range. A range can be a
    large page, one entry that maps 512 neighbours, aligned, as 2 MiB of memory are. Its pages are read and written like
    others, but not shared, until it is broken: `merge` and FramePool.share leave them alone, and move no page to their
    frames. FramePool.share_large shares equal large pages as a whole. A write to one that is shared, be it in part,
    breaks it, and then is a write to that page alone; releasing a page of a large one breaks it, too.

    Calls take batches: `gpns` is an array of guest page numbers, one-dimensional, of integers of any kind (uint32 is
    not copied), each below `pages` and at most once in a batch. They release the GIL. A call that raises has changed
    nothing.

    Attributes:
        pages: how many pages the guest has.
        domain: only pages of guests whose domains are equal are ever stored together.

    All calls raise:
        ValueError: a gpn out of range, or for the second time; an array of another shape; the pool is closed.
        TypeError: an array of another dtype.
    """

    def __init__(self, pool: dedupcore.Pool, number: int, pages: int, domain: Hashable) -> None:
        """For FramePool.add_guest only."""
        self.pages = pages
        self.domain = domain
        self._pool = pool
        self._number = number

    def __repr__(self) -> str:
        return f"<PoolGuest: {self.pages:,} pages, domain {self.domain!r}>"

    @property
    def page_table(self) -> NDArray[np.uint32]:
        """Uint32 ndarray (pages,), a read-only view: the frame of each page, or ABSENT. It changes as the pool does."""
        return np.asarray(memoryview(self._pool.table(self._number))).view(np.uint32)

    @property
    def large(self) -> NDArray[np.bool_]:
        """Bool ndarray (pages // 512,), a read-only view: which ranges are large pages. It changes as the pool does.

        Empty in pools of frames above 2 MiB, which make no large pages.
        """
        return np.asarray(memoryview(self._pool.large(self._number))).view(np.bool_)

    def write(self, gpns: ArrayLike, data: NDArray[Any]) -> None:
        """Write whole pages: page gpns[i] becomes data[i].

        data: uint8 ndarray (n, frame_size); in pools of content names, frames of 8 bytes, uint64 (n,), too. Not a view
        of the pool's own memory.

        A page that has no frame gets one, and so does one that shares its frame (a COW break). Raises MemoryError when
        that takes more frames than are free. In a guest with large pages the first touch of a range makes all of it
        present, zero but for what is written, unless there is no block of free frames, or it would make the batch fail.
        """
        numbers = whole_numbers("gpns", gpns, self.pages, "pages")
        held = frames("data", data, len(numbers), self._pool.frame_size)
        self._pool.write(self._number, numbers, as_bytes(np.ascontiguousarray(held)))

    def read(self, gpns: ArrayLike, out: NDArray[Any]) -> None:
        """Read whole pages: out[i] becomes what page gpns[i] holds, zero if it is absent. Here gpns may repeat.

        out: a writable C-contiguous array as `data` of `write`. Reading changes nothing, and may run side by side with
        other reads, in this guest or another.
        """
        numbers = whole_numbers("gpns", gpns, self.pages, "pages")
        held = frames("out", out, len(numbers), self._pool.frame_size)
        if not (held.flags.c_contiguous and held.flags.writeable):
            raise ValueError("out must be writable and C-contiguous")
        self._pool.read(self._number, numbers, as_bytes(held))

    def release(self, gpns: ArrayLike) -> None:
        """Make pages absent, those that are so already, too. Frames that no page needs any more become free."""
        self._pool.release(self._number, whole_numbers("gpns", gpns, self.pages, "pages"))

    def merge(self, gpns: ArrayLike, into: ArrayLike) -> NDArray[np.bool_]:
        """Move page gpns[i] to frame into[i], one after the other, each if a comparison finds both equal.

        into: frame numbers, integers (n,), each in use in the guest's domain. Returns a bool ndarray (n,): which pages
        are mapped there now. Raises ValueError for pages that are absent, and for frames that are free or of another
        domain; a frame that the batch itself has freed takes no page any more.
        """
        numbers = whole_numbers("gpns", gpns, self.pages, "pages")
        targets = whole_numbers("into", into, self._pool.capacity, "frames")
        if len(targets) != len(numbers):
            raise ValueError(f"into has {len(targets)} items, but gpns {len(numbers)}")
        merged = np.zeros(len(numbers), np.bool_)
        self._pool.merge(self._number, numbers, targets, merged.view(np.uint8))
        return merged

    def break_large(self, ranges: ArrayLike) -> None:
        """Make large pages 512 small ones each, where they are, so that they can be shared.

        ranges: integers (n,), each once. Raises ValueError for ranges that are no large pages.
        """
        self._pool.break_large(self._number, self._ranges(ranges))

    def rebuild_large(self, ranges: ArrayLike, *, max_shared_pages: int = 0) -> NDArray[np.bool_]:
        """Make ranges of small pages large ones, one after the other, and return which were: a bool ndarray (n,).

        A range that was broken from a shared large page and has not changed since is a part of that again. Of others,
        those stay small of which no page is present, or more than `max_shared_pages` share their frames (from 0 to 512;
        ESX calls it LPage.MaxSharedPages). The rest is copied to a free block of 512 frames, if there is one, and gives
        up what it shared, absent pages becoming zero pages; what lies in such a block of its own still, stays there.

        ranges: integers (n,), each once. Raises ValueError for ranges that are large pages already.
        """
        numbers, most = self._ranges(ranges), operator.index(max_shared_pages)
        if not 0 <= most <= LARGE_PAGE:
            raise ValueError(f"max_shared_pages is {most}; it must be from 0 to {LARGE_PAGE}")
        rebuilt = np.zeros(len(numbers), np.bool_)
        self._pool.rebuild_large(self._number, numbers, most, rebuilt.view(np.uint8))
        return rebuilt

    def _ranges(self, ranges: ArrayLike) -> NDArray[np.uint32]:
        return whole_numbers("ranges", ranges, len(self.large), f"ranges of {LARGE_PAGE} pages")
