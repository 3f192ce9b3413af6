"""A guest of a frame pool."""

from __future__ import annotations

import operator
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

import dedupcore
from pagedup.sharing.frame_pool.batch import as_bytes, flags, frames, whole_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ABSENT = dedupcore.ABSENT
"""In a page table: the page has no frame."""

LARGE_PAGE = dedupcore.LARGE_PAGE
"""Pages of a large page: 512."""


OUT = dedupcore.OUT
"""In PoolGuest.marks: the page is paged out."""

ACCESSED_BY_HOST = dedupcore.ACCESSED_BY_HOST
"""In PoolGuest.marks: the page was touched since the host last cleared the mark."""

ACCESSED_BY_GUEST = dedupcore.ACCESSED_BY_GUEST
"""In PoolGuest.marks: the same, as far as the guest's own kernel has cleared it."""

_BY = {"host": ACCESSED_BY_HOST, "guest": ACCESSED_BY_GUEST}


class Touched(NamedTuple):
    """What a batch of accesses came to.

    Attributes:
        done: how many of them were done; if not all, the next one could not be.
        first_touches: pages that got a frame, having been absent; 512 where a large page was made.
        cow_breaks: pages that got a frame of their own at a write to a shared one.
    """

    done: int
    first_touches: int
    cow_breaks: int


class PoolGuest:
    """A guest whose pages are mapped to frames of its pool. Made by FramePool.add_guest.

    Range r of a guest is its pages 512 * r to 512 * r + 511; what is left at the end is in no range. A range can be a
    large page, one entry that maps 512 neighbours, aligned, as 2 MiB of memory are. Its pages are read and written like
    others, but not shared, until it is broken: `merge` and FramePool.share leave them alone, and move no page to their
    frames. FramePool.share_large shares equal large pages as a whole. A write to one that is shared, be it in part,
    breaks it, and then is a write to that page alone; releasing a page of a large one breaks it, too.

    A page can be **out**: it has no frame, but what it holds is kept by whoever paged it out, who pages it in when it
    is touched, or forgets it. Until then it cannot be written, read, released or merged (ValueError).

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

    @property
    def marks(self) -> NDArray[np.uint8]:
        """Uint8 ndarray (pages,), a read-only view: OUT, ACCESSED_BY_HOST, ACCESSED_BY_GUEST of each page, as bits.

        Both marks of an access are set by `touch` alone, and cleared separately, by `take_accessed` and `oldest`: the
        host's own, and those that the guest's kernel has. They stay as they are while a page is released, or out.
        """
        return np.asarray(memoryview(self._pool.marks(self._number)))

    @property
    def present(self) -> int:
        """How many pages have a frame now, shared or not."""
        return self._pool.present(self._number)

    @property
    def out(self) -> int:
        """How many pages are out now."""
        return self._pool.out(self._number)

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
        self._pool.read(self._number, numbers, self._writable(out, len(numbers)))

    def _writable(self, out: NDArray[Any], n: int) -> NDArray[np.uint8]:
        held = frames("out", out, n, self._pool.frame_size)
        if not (held.flags.c_contiguous and held.flags.writeable):
            raise ValueError("out must be writable and C-contiguous")
        return as_bytes(held)

    def release(self, gpns: ArrayLike) -> None:
        """Make pages absent, those that are so already, too. Frames that no page needs any more become free."""
        self._pool.release(self._number, whole_numbers("gpns", gpns, self.pages, "pages"))

    def touch(
        self, gpns: ArrayLike, writes: NDArray[np.bool_] | None = None, data: NDArray[Any] | None = None
    ) -> Touched:
        """Apply accesses, one after the other; here gpns may repeat.

        writes: bool ndarray (n,), which are writes; None: none is. data: as of `write`, a frame for each of the writes:
        the k-th write puts data[k] into its page, as `write` of that page does.

        A read of an absent page leaves it absent: memory is given at the first write. Each access sets both ACCESSED
        marks of its page. Stops before an access that cannot be done, because its page is out or takes a frame and none
        can be given out; `done` of the result is then less than n, and it is that of gpns[done].
        """
        numbers = whole_numbers("gpns", gpns, self.pages, "pages")
        which = None if writes is None else flags("writes", writes, len(numbers), "gpn")
        n_writes = 0 if which is None else int(np.count_nonzero(which))
        if data is None and not n_writes:
            held = np.empty((0, self._pool.frame_size), np.uint8)
        else:
            held = frames("data", data, n_writes, self._pool.frame_size, "write")
        return Touched(*self._pool.touch(self._number, numbers, which, as_bytes(np.ascontiguousarray(held))))

    def page_out(self, gpns: ArrayLike, out: NDArray[Any]) -> None:
        """Page out: out[i] becomes what page gpns[i] holds, which gives up its frame; large pages are broken.

        out: as of `read`. To the sharing policy the pages are released. Raises ValueError for one that is absent, or
        out already.
        """
        numbers = whole_numbers("gpns", gpns, self.pages, "pages")
        self._pool.page_out(self._number, numbers, self._writable(out, len(numbers)))

    def page_in(self, gpns: ArrayLike, data: NDArray[Any]) -> None:
        """Page in: page gpns[i], which is out, becomes data[i], in a frame of its own; sets no mark.

        data: as of `write`. To the sharing policy the pages were just written. Raises ValueError for one that is not
        out, and MemoryError when fewer frames can be given out.
        """
        numbers = whole_numbers("gpns", gpns, self.pages, "pages")
        held = frames("data", data, len(numbers), self._pool.frame_size)
        self._pool.page_in(self._number, numbers, as_bytes(np.ascontiguousarray(held)))

    def forget(self, gpns: ArrayLike) -> None:
        """Make pages absent that are out: what they held is given up, or lost. ValueError for one that is not out."""
        self._pool.forget(self._number, whole_numbers("gpns", gpns, self.pages, "pages"))

    def take_accessed(self, gpns: ArrayLike, by: Literal["host", "guest"]) -> NDArray[np.bool_]:
        """Whether each page was touched since its mark was last cleared, and clear it: a bool ndarray (n,).

        by: whose mark. Here gpns may repeat: the second time it is False.
        """
        numbers = whole_numbers("gpns", gpns, self.pages, "pages")
        accessed = np.zeros(len(numbers), np.bool_)
        self._pool.take_accessed(self._number, _mark(by), numbers, accessed.view(np.uint8))
        return accessed

    def oldest(
        self, n: int, by: Literal["host", "guest"], eligible: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint32]:
        """Pages that were not touched for long, by second chance: uint32 ndarray, n of them or as many as there are.

        A hand, one for each `by`, goes round the guest's pages from where it was, twice at the most. A page that has
        the mark of an access loses it and is passed over, one without it is taken. Absent and out pages are passed
        over, and for the host those that share their frames: paging them out frees nothing.

        eligible: bool ndarray (pages,); where it is False pages are passed over, and their marks stay. Nothing happens
        to the pages that are taken.
        """
        found = self._room(n)
        return self._part(found, self._pool.oldest(self._number, _mark(by), self._eligible(eligible), found))

    def pick(self, n: int, eligible: NDArray[np.bool_] | None = None) -> NDArray[np.uint32]:
        """Pages at random that are alone in their frames: uint32 ndarray, n of them or as many as there are.

        The next ones of an order in which each page of the guest comes once, and when it ends of another one: so none
        comes again before all had their turn. The pool's seed decides the orders. eligible: as of `oldest`.
        """
        found = self._room(n)
        return self._part(found, self._pool.pick(self._number, self._eligible(eligible), found))

    def _room(self, n: int) -> NDArray[np.uint32]:
        wanted = operator.index(n)
        if wanted < 0:
            raise ValueError(f"n is {wanted}; it must be 0 or more")
        return np.empty(min(wanted, self.pages), np.uint32)

    def _eligible(self, eligible: NDArray[np.bool_] | None) -> NDArray[np.uint8] | None:
        return None if eligible is None else flags("eligible", eligible, self.pages, "page")

    @staticmethod
    def _part(found: NDArray[np.uint32], n: int) -> NDArray[np.uint32]:
        return found if n == len(found) else found[:n].copy()

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


def _mark(by: str) -> int:
    if by not in _BY:
        raise ValueError(f"by is {by!r}; it must be 'host' or 'guest'")
    return _BY[by]
