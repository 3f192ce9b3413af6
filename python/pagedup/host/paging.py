"""What a pager tells: of a batch, of all that it did, and of pages that are lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class PagedOut(NamedTuple):
    """What became of the pages of a call to Pager.page_out, which are compressed + swapped + kept together.

    Attributes:
        compressed: went into the cache.
        swapped: went to swap.
        kept: are in memory as before, since neither took them.
        evicted: other pages, that went from the cache to swap to make room.
        error: why swap took no more, if it was asked to.
    """

    compressed: int
    swapped: int
    kept: int
    evicted: int
    error: OSError | None


class PagedIn(NamedTuple):
    """From where the pages of a call to Pager.page_in came: their number is the sum.

    Attributes:
        uncompressed: from the cache.
        swapped: from swap.
    """

    uncompressed: int
    swapped: int


class PagingCounts(NamedTuple):
    """Pages of a guest, or of all guests.

    Attributes:
        pages_compressed, pages_swapped, pages_lost: that are so now.
        compressed: went from memory into the cache. uncompressed: came back from it.
        swapped_out: went from memory to swap. swapped_in: came back from it.
        evicted: went from the cache to swap.
        kept: were to go, and stayed in memory, since neither took them.
        dropped: were released or written anew while they were out, and so never read.
        lost: were lost.
    """

    pages_compressed: int
    pages_swapped: int
    pages_lost: int
    compressed: int
    uncompressed: int
    swapped_out: int
    swapped_in: int
    evicted: int
    kept: int
    dropped: int
    lost: int


class Lost(NamedTuple):
    """A page that was lost.

    Attributes:
        guest: index in FramePool.guests.
        gpn: the page.
        why: one line.
    """

    guest: int
    gpn: int
    why: str


class PageLost(LookupError):
    """A page is asked for whose content is lost. `guest`: index in FramePool.guests; `gpns`: which, once each."""

    def __init__(self, guest: int, gpns: Sequence[int]) -> None:
        self.guest = guest
        self.gpns = tuple(gpns)
        super().__init__(f"{named(guest, self.gpns)} lost: what swap kept of it is not what was stored")


def named(guest: int, gpns: Sequence[int]) -> str:
    """The subject of a sentence."""
    more = f" and {len(gpns) - 1:,} more are" if len(gpns) > 1 else " is"
    return f"page {gpns[0]:,} of guest {guest}{more}"
