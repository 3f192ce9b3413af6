"""Content names for the pages of live processes: equal if and only if the bytes are, though hardly any are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.memory.live.live_source import LiveSource
from pagedup.memory.source import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dedupcore._dedupcore import BufferLike
    from pagedup.memory.live.remote import Bytes

    Pages = NDArray[np.bool_]
    """Which pages of all sources, numbered through them in their order."""

_MAX_ROUNDS = 8  # two pages that differ hardly ever share a hash; what moves all the time must end somewhere


class Naming:
    """Names the pages of sources that have been hashed.

    A page whose hash is its own has content of its own. Of the pages that share a hash the first one leads: its bytes
    are kept, and the others are read once more and compared with them, byte by byte. Those that differ, since they
    share a hash by chance or their lead has moved, take part in another round under another lead.

    A page that is read again and has another hash has moved. It gets a name that no other page has, since what it will
    hold in the end nobody knows.
    """

    def __init__(self, sources: Sequence[LiveSource]) -> None:
        self._sources = sources
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._bounds = np.cumsum([0, *(len(source.hashes) for source in sources)]).tolist()
        self._hashes = np.concatenate([source.hashes for source in sources])
        n = len(self._hashes)
        # A hash is a frame of 8 bytes, and a name is the number of the content's first page, plus one.
        self._lead = _lowest(self._hashes)
        self._names = self._lead.astype(np.uint64) + 1
        self._names[self._hashes == 0] = 0
        self._open = _repeated(self._lead) & (self._hashes != 0)  # not known to be equal to another, nor not to be
        self._gone, self._moved, self._looked = (np.zeros(n, np.bool_) for _ in range(3))
        self._contents = KeptContents(self._page)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the pages that will be kept, but for chance and what moves."""
        return int(np.count_nonzero(self._leads())) * self._page

    def run(self, allocate: Callable[[int], Bytes], *, frozen: bool = False, progress: Progress | None = None) -> None:
        """Read what must be compared, and name all pages. `frozen`: nothing has run since they were hashed.

        Raises OSError when a process ended.
        """
        for _ in range(_MAX_ROUNDS):
            if not self._open.any():
                break
            self._round(allocate, progress)
        alone = self._open | self._moved
        self._names[alone] = np.flatnonzero(alone) + 1
        for source, own in zip(self._sources, self._own(), strict=True):
            source.hashes = self._hashes[own]
            looked = self._looked[own] & (not frozen)
            source.settle(self._names[own], self._contents, gone=self._gone[own], looked=looked, moved=self._moved[own])

    def _leads(self) -> Pages:
        leads: Pages = self._open & (self._lead == np.arange(len(self._lead), dtype=np.uint32))
        return leads

    def _own(self) -> list[slice]:
        return [slice(begin, end) for begin, end in pairwise(self._bounds)]

    def _round(self, allocate: Callable[[int], Bytes], progress: Progress | None) -> None:
        leads = self._leads()
        kept = allocate(int(np.count_nonzero(leads)) * self._page)
        self._copy_leads(leads, kept, progress)
        sound = leads & ~self._moved & ~self._gone
        self._contents.add(self._names[leads], kept)
        places = np.cumsum(leads, dtype=np.uint32) - np.uint32(1)
        members = self._open & ~leads
        members[members] = sound[self._lead[members]]
        equal = self._match(members, places, kept, progress)
        self._open &= ~(leads | equal | self._moved | self._gone)
        left = np.flatnonzero(self._open)
        if len(left):  # under other leads
            among = _lowest(self._hashes[left])
            self._lead[left] = left[among]
            self._names[left] = left[among] + 1
            self._open[left] = _repeated(among)

    def _copy_leads(self, leads: Pages, kept: Bytes, progress: Progress | None) -> None:
        at = 0
        for source, own in zip(self._sources, self._own(), strict=True):
            mine = leads[own]
            hashes = np.empty(int(np.count_nonzero(mine)), np.uint64)
            into = kept[at : at + len(hashes) * self._page]
            at += len(into)

            def visit(pages: Bytes, here: slice, hashes: NDArray[np.uint64] = hashes) -> None:
                dedupcore.hash_frames(pages, self._page, hashes[here])

            gone = source.read("copying", mine, visit, into, progress)
            self._found(own, mine, hashes, gone)

    def _match(self, members: Pages, places: NDArray[np.uint32], kept: Bytes, progress: Progress | None) -> Pages:
        """Which of these pages are equal to their leads."""
        equal = np.zeros(len(members), np.bool_)
        for source, own in zip(self._sources, self._own(), strict=True):
            mine = members[own]
            of_lead = places[self._lead[own][mine]]
            same = np.zeros(len(of_lead), np.uint8)
            hashes = self._hashes[own][mine]

            def visit(
                pages: Bytes,
                here: slice,
                of_lead: NDArray[np.uint32] = of_lead,
                same: NDArray[np.uint8] = same,
                hashes: NDArray[np.uint64] = hashes,
            ) -> None:
                dedupcore.match_frames(pages, self._page, kept, of_lead[here], same[here])
                if not same[here].all():
                    dedupcore.hash_frames(pages, self._page, hashes[here])

            gone = source.read("comparing", mine, visit, None, progress)
            self._found(own, mine, hashes, gone)
            equal[own][mine] = same.astype(np.bool_) & ~gone
        return equal

    def _found(self, own: slice, mine: Pages, hashes: NDArray[np.uint64], gone: Pages) -> None:
        """These pages of a source have been read once more, and have these hashes now."""
        before = self._hashes[own][mine]
        self._gone[own][mine] = gone
        self._looked[own][mine] = True
        self._moved[own][mine] = ~gone & (hashes != before)
        self._hashes[own][mine] = np.where(gone, before, hashes)


class KeptContents:
    """The bytes of contents that stand more than once."""

    def __init__(self, page: int) -> None:
        self._page = page
        self._kept: list[tuple[NDArray[np.uint64], Bytes]] = []

    def add(self, names: NDArray[np.uint64], kept: Bytes) -> None:
        """The bytes of these names, one behind the other; names ascend."""
        self._kept.append((names, kept))

    def find(self, names: NDArray[np.uint64]) -> list[tuple[BufferLike, int, int]]:
        """See Contents."""
        which, place = np.full(len(names), -1), np.zeros(len(names), np.int64)
        for index, (known, _) in enumerate(self._kept):
            at = np.minimum(np.searchsorted(known, names), len(known) - 1)
            here = known[at] == names
            which[here], place[here] = index, at[here]
        if (which < 0).any():
            raise KeyError(f"no bytes are kept of the content {names[which < 0][0]}")
        cuts = np.flatnonzero((np.diff(which, prepend=-1) != 0) | (np.diff(place, prepend=-2) != 1))
        lengths = np.diff(cuts, append=len(names))
        return [
            (self._kept[index][1], begin * self._page, length)
            for index, begin, length in zip(which[cuts].tolist(), place[cuts].tolist(), lengths.tolist(), strict=True)
        ]


def _lowest(hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """For each the lowest index with the same hash."""
    lowest = np.empty(len(hashes), np.uint32)
    threads = dedupcore.available_threads()
    dedupcore.find_duplicates([(hashes, 0, len(hashes))], lowest, frame_size=8, threads=threads)
    return lowest


def _repeated(lowest: NDArray[np.uint32]) -> Pages:
    """Which of them are not alone with their lowest."""
    repeated: Pages = lowest != np.arange(len(lowest), dtype=np.uint32)
    repeated[lowest[repeated]] = True
    return repeated
