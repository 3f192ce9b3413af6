"""Paging: pages of guests leave memory, and come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pagedup.host.paging import Lost, PagedIn, PagedOut, PageLost, PagingCounts, named
from pagedup.host.whereabouts import FIRST_ENTRY, FIRST_SLOT, IN_MEMORY, LOST, GuestPages, entries_of, slots_of
from pagedup.memory.batch import frames as checked_frames
from pagedup.memory.batch import require_distinct, whole_numbers
from pagedup.sharing.frame_pool import ABSENT, OUT
from pagedup.swap import NO_ENTRY, SwapCorrupt, SwapUnreadable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pagedup.sharing import FramePool, PoolGuest
    from pagedup.swap import CompressedPages, SwapSpace

_AT_ONCE = 4 << 20  # bytes of pages that a step holds beside what the caller gave


class Pager:
    """Moves pages of a pool's guests to a compressed cache and to swap, and back; knows where each of them is.

    Pages are compressed first, those that fit, and else swapped; when the cache is full, what was put in first goes to
    swap. What neither takes stays in memory. A page leaves memory when its content is stored, and not before; it is
    given up elsewhere when it is in memory again, and not before. So what goes wrong on the way loses nothing.

    The cache takes its memory from the pool: the pager sets `pool.limit` to what the cache leaves of the capacity, so
    that frames in use and frames of the cache are never more than that. A page that shares its frame frees nothing when
    it goes, so it is not compressed.

    What comes back from swap is checked. A page that is not what was stored is **lost**: it is in `lost`, it is never
    read as anything else, and it stays out for the pool, which refuses it, too. Releasing or writing it is the end of
    that. A slot whose page was lost is not used again.

    Args:
        pool: a FramePool. Its guests' pages go out and come in through this pager only.
        swap: SwapFile, or SwapNames for a pool of content names; None: there is none.
        cache: CompressedCache, or CompressedNames; None: there is none.

    Attributes:
        pool, swap, cache: as given.

    Takes 4 bytes for each page of a guest that was ever out (rounded up to 1,024 neighbours), 8 for each page in the
    cache, and 8 MiB, or two pages if that is more, while a call runs. Its calls wait for each other. While `page_out`
    runs, nobody must write to the guest past it, nor let the pool scan.

    Raises ValueError when frames are not of the same size.
    """

    def __init__(self, pool: FramePool, swap: SwapSpace | None = None, cache: CompressedPages | None = None) -> None:
        for what, other in (("swap", swap), ("cache", cache)):
            if other is not None and other.frame_size != pool.frame_size:
                size = pool.frame_size
                raise ValueError(f"{what} is for frames of {other.frame_size:,} bytes; those of the pool have {size:,}")
        self.pool = pool
        self.swap = swap
        self.cache = cache
        self._lock = threading.RLock()
        self._known: dict[PoolGuest, GuestPages] = {}
        self._by_number: dict[int, GuestPages] = {}
        entries = cache.entries if cache is not None else 0
        self._guest_in = np.zeros(entries, np.uint32)  # by entry
        self._gpn_in = np.zeros(entries, np.uint32)
        self._lost: list[Lost] = []
        self._step = max(1, _AT_ONCE // pool.frame_size)
        self._set_limit()

    def __repr__(self) -> str:
        return f"<Pager: {self.counts()}>"

    @property
    def frames(self) -> int:
        """Frames that the cache takes now."""
        return self.cache.frames if self.cache is not None else 0

    @property
    def lost(self) -> tuple[Lost, ...]:
        """All pages that were ever lost, in the order in which that was found out."""
        return tuple(self._lost)

    def counts(self, guest: PoolGuest | None = None) -> PagingCounts:
        """What was paged of this guest, or of all."""
        with self._lock:
            some = self._known.values() if guest is None else [self._pages_of(guest)]
            whole = sum((pages.counts for pages in some), np.zeros(len(PagingCounts._fields), np.int64))
            return PagingCounts(*whole.tolist())

    def page_out(self, guest: PoolGuest, gpns: ArrayLike) -> PagedOut:
        """Page out: compress what fits, swap the rest, in batches of 4 MiB; what neither takes stays as it is.

        gpns: integers (n,), each once. Raises ValueError, with nothing changed, for a page that is absent, or out.
        """
        with self._lock:
            pages = self._pages_of(guest)
            numbers = whole_numbers("gpns", gpns, guest.pages, "pages")
            require_distinct("gpns", numbers)
            absent = guest.page_table[numbers] == ABSENT
            if absent.any():
                at = int(np.argmax(absent))
                state = "out already" if guest.marks[numbers[at]] & OUT else "absent"
                raise ValueError(f"gpns[{at}] is {numbers[at]}, which is {state}")
            done = [self._page_out(pages, part) for part in self._parts(numbers)]
            return PagedOut(
                compressed=sum(each.compressed for each in done),
                swapped=sum(each.swapped for each in done),
                kept=sum(each.kept for each in done),
                evicted=sum(each.evicted for each in done),
                error=next((each.error for each in done if each.error is not None), None),
            )

    def page_in(self, guest: PoolGuest, gpns: ArrayLike) -> PagedIn:
        """Page in, in batches of 4 MiB: each page has a frame again, and nothing is kept of it elsewhere.

        gpns: integers (n,), each once. Raises ValueError for a page that is not out, and PageLost for one that was lost
        before, with nothing changed. Raises PageLost for what turns out to be lost now; OSError for what cannot be read
        now, and stays out, to be tried again; MemoryError when fewer frames can be given out than a batch takes. Then
        those of the batches before are in, and but for MemoryError the others of this batch.
        """
        with self._lock:
            pages = self._pages_of(guest)
            numbers = whole_numbers("gpns", gpns, guest.pages, "pages")
            require_distinct("gpns", numbers)
            here = (guest.marks[numbers] & OUT) == 0
            if here.any():
                at = int(np.argmax(here))
                raise ValueError(f"gpns[{at}] is {numbers[at]}, which is not paged out")
            self._require_kept(pages, numbers)
            uncompressed = swapped = 0
            for part in self._parts(numbers):
                done = self._page_in(pages, part)
                uncompressed += done.uncompressed
                swapped += done.swapped
            return PagedIn(uncompressed, swapped)

    def read(self, guest: PoolGuest, gpns: ArrayLike, out: NDArray[Any]) -> None:
        """Read pages as PoolGuest.read, those that are out from where they are; nothing moves. Here gpns may repeat.

        Raises PageLost; OSError for what cannot be read now.
        """
        with self._lock:
            pages = self._pages_of(guest)
            numbers = whole_numbers("gpns", gpns, guest.pages, "pages")
            away = (guest.marks[numbers] & OUT) != 0
            if not away.any():
                guest.read(numbers, out)
                return
            held = checked_frames("out", out, len(numbers), self.pool.frame_size)
            if not (held.flags.c_contiguous and held.flags.writeable):
                raise ValueError("out must be writable and C-contiguous")
            self._require_kept(pages, numbers[away])
            for begin in range(0, len(numbers), self._step):
                part = slice(begin, begin + self._step)
                self._read(pages, numbers[part], away[part], held[part])

    def write(self, guest: PoolGuest, gpns: ArrayLike, data: NDArray[Any]) -> None:
        """Write whole pages as PoolGuest.write; what those held that are out is not needed any more, and given up.

        Raises MemoryError, with nothing changed, when that takes more frames than can be given out.
        """
        with self._lock:
            pages = self._pages_of(guest)
            numbers = whole_numbers("gpns", gpns, guest.pages, "pages")
            away = (guest.marks[numbers] & OUT) != 0
            if not away.any():
                guest.write(numbers, data)
                return
            require_distinct("gpns", numbers)
            held = checked_frames("data", data, len(numbers), self.pool.frame_size)
            gone = numbers[away]
            try:
                self._expect(pages.places[gone])
                guest.page_in(gone, held[away])
                try:
                    guest.write(numbers[~away], held[~away])
                except BaseException:
                    guest.page_out(gone, self._room(len(gone)))  # as they were: their contents are where they were
                    raise
                self._drop(pages, gone)
            finally:
                self._set_limit()

    def release(self, guest: PoolGuest, gpns: ArrayLike) -> None:
        """Make pages absent, wherever they are, also lost ones. gpns: integers (n,), each once."""
        with self._lock:
            pages = self._pages_of(guest)
            numbers = whole_numbers("gpns", gpns, guest.pages, "pages")
            require_distinct("gpns", numbers)
            away = (guest.marks[numbers] & OUT) != 0
            guest.forget(numbers[away])
            self._drop(pages, numbers[away])
            self._set_limit()
            guest.release(numbers[~away])

    # --- one batch ---

    def _page_out(self, pages: GuestPages, gpns: NDArray[np.uint32]) -> PagedOut:
        data = self._room(len(gpns))
        pages.guest.read(gpns, data)
        places = np.full(len(gpns), IN_MEMORY, np.uint32)
        evicted, error = self._compress(pages, gpns, data, places)
        rest = np.flatnonzero(places == IN_MEMORY)
        if self.swap is not None and len(rest):
            slots, error = self.swap.put(data[rest])
            places[rest[: len(slots)]] = slots + np.uint32(FIRST_SLOT)
        going = places != IN_MEMORY
        gone = gpns[going]
        pages.places[gone] = places[going]
        try:
            pages.guest.page_out(gone, data[: len(gone)])
        except BaseException:
            self._free(places[going])
            pages.places[gone] = IN_MEMORY
            raise
        self._set_limit()
        compressed, swapped = int(entries_of(places).sum()), int(slots_of(places).sum())
        kept = len(gpns) - len(gone)
        pages.count(compressed=compressed, pages_compressed=compressed, kept=kept)
        pages.count(swapped_out=swapped, pages_swapped=swapped)
        return PagedOut(compressed, swapped, kept, evicted, error)

    def _compress(
        self, pages: GuestPages, gpns: NDArray[np.uint32], data: NDArray[np.uint8], places: NDArray[np.uint32]
    ) -> tuple[int, OSError | None]:
        """Put what fits into the cache; how many were evicted for it, and why not more."""
        if self.cache is None:
            return 0, None
        some = np.flatnonzero(pages.guest.alone(gpns))
        compressed = self.cache.compress(data if len(some) == len(gpns) else data[some])
        made = self._make_room(int(np.count_nonzero(compressed.fits)))
        entries = self.cache.put(compressed)
        kept = entries != NO_ENTRY
        self._guest_in[entries[kept]] = pages.number
        self._gpn_in[entries[kept]] = gpns[some[kept]]
        places[some[kept]] = entries[kept] + np.uint32(FIRST_ENTRY)
        return made

    def _make_room(self, n: int) -> tuple[int, OSError | None]:
        """Move what is longest in the cache to swap, until n pages fit; how many moved, and why not more."""
        assert self.cache is not None
        missing = n - (self.cache.entries - self.cache.used)
        if missing <= 0 or self.swap is None:
            return 0, None
        entries = self.cache.oldest(min(missing, self.swap.slots - self.swap.used))
        data = self._room(len(entries))
        try:
            self.cache.get(entries, data)
        except SwapCorrupt as error:
            lost = np.isin(entries, np.array(error.slots, np.uint32))
            for pages, mine in self._owners(entries[lost]):
                self._lose(pages, self._gpn_in[entries[lost][mine]], str(error))
            entries, data = entries[~lost], data[~lost]
        slots, why = self.swap.put(data)
        entries = entries[: len(slots)]
        for pages, mine in self._owners(entries):
            pages.places[self._gpn_in[entries[mine]]] = slots[mine] + np.uint32(FIRST_SLOT)
            pages.count(evicted=len(mine), pages_compressed=-len(mine), pages_swapped=len(mine))
        self.cache.free(entries)
        return len(entries), why

    def _owners(self, entries: NDArray[np.uint32]) -> Iterator[tuple[GuestPages, NDArray[np.intp]]]:
        """The guests whose pages these entries are, with the positions of those of each."""
        owners = self._guest_in[entries]
        for number in np.unique(owners).tolist():
            yield self._by_number[number], np.flatnonzero(owners == number)

    def _page_in(self, pages: GuestPages, gpns: NDArray[np.uint32]) -> PagedIn:
        data = self._room(len(gpns))
        good, error = self._fetch(pages, gpns, data)
        back = gpns[good]
        places = pages.places[back]
        try:
            self._expect(places)
            pages.guest.page_in(back, data if len(back) == len(gpns) else data[good])
            pages.places[back] = IN_MEMORY
            self._free(places)
        finally:
            self._set_limit()
        done = PagedIn(int(entries_of(places).sum()), int(slots_of(places).sum()))
        pages.count(uncompressed=done.uncompressed, pages_compressed=-done.uncompressed)
        pages.count(swapped_in=done.swapped, pages_swapped=-done.swapped)
        if error is not None:
            raise error
        return done

    def _read(
        self, pages: GuestPages, gpns: NDArray[np.uint32], away: NDArray[np.bool_], out: NDArray[Any]
    ) -> None:
        held = out.view(np.uint8).reshape(len(gpns), -1)
        for which in (np.flatnonzero(~away), np.flatnonzero(away)):
            if len(which):
                data = self._room(len(which))
                if away[which[0]]:
                    _, error = self._fetch(pages, gpns[which], data)
                    if error is not None:
                        raise error
                else:
                    pages.guest.read(gpns[which], data)
                held[which] = data

    def _fetch(
        self, pages: GuestPages, gpns: NDArray[np.uint32], out: NDArray[np.uint8]
    ) -> tuple[NDArray[np.bool_], PageLost | OSError | None]:
        """Read pages that are out: which of them could be read, and what to raise of the others."""
        good = np.ones(len(gpns), np.bool_)
        error: PageLost | OSError | None = None
        places = pages.places[gpns]
        for which, store, first in (
            (np.flatnonzero(entries_of(places)), self.cache, FIRST_ENTRY),
            (np.flatnonzero(slots_of(places)), self.swap, FIRST_SLOT),
        ):
            if store is None or not len(which):
                continue
            numbers = places[which] - np.uint32(first)
            data = out if len(which) == len(gpns) else self._room(len(which))
            try:
                store.get(numbers, data)
            except (SwapCorrupt, SwapUnreadable) as failed:
                bad = which[np.isin(numbers, np.array(failed.slots, np.uint32))]
                good[bad] = False
                those = np.unique(gpns[bad])
                if isinstance(failed, SwapCorrupt):
                    self._lose(pages, those, str(failed))
                    error = PageLost(pages.number, those.tolist())
                else:
                    what = f"{named(pages.number, those.tolist())} out and cannot be read now: {failed.strerror}"
                    error = OSError(failed.errno, what)
                    error.__cause__ = failed
            if data is not out:
                out[which] = data
        return good, error

    # --- places ---

    def _pages_of(self, guest: PoolGuest) -> GuestPages:
        if guest not in self._known:
            for number, each in enumerate(self.pool.guests):
                if each is guest:
                    self._known[guest] = self._by_number[number] = GuestPages(guest, number)
                    break
            else:
                raise ValueError("guest is none of this pager's pool")
        return self._known[guest]

    def _require_kept(self, pages: GuestPages, gpns: NDArray[np.uint32]) -> None:
        lost = pages.places[gpns] == LOST
        if lost.any():
            raise PageLost(pages.number, np.unique(gpns[lost]).tolist())
        unknown = pages.places[gpns] == IN_MEMORY
        if unknown.any():
            raise ValueError(f"page {gpns[unknown][0]} of guest {pages.number} was paged out past this pager")

    def _lose(self, pages: GuestPages, gpns: NDArray[np.uint32], why: str) -> None:
        places = pages.places[gpns]
        pages.places[gpns] = LOST
        cached = entries_of(places)
        if self.cache is not None:
            self.cache.free(places[cached] - np.uint32(FIRST_ENTRY))
        self._set_limit()
        n = int(cached.sum())
        pages.count(lost=len(gpns), pages_lost=len(gpns), pages_compressed=-n, pages_swapped=n - len(gpns))
        self._lost += [Lost(pages.number, gpn, why) for gpn in gpns.tolist()]

    def _drop(self, pages: GuestPages, gpns: NDArray[np.uint32]) -> None:
        """Give up what is kept of pages elsewhere."""
        places = pages.places[gpns]
        pages.places[gpns] = IN_MEMORY
        self._free(places)
        compressed, swapped = int(entries_of(places).sum()), int(slots_of(places).sum())
        pages.count(pages_compressed=-compressed, pages_swapped=-swapped, dropped=compressed + swapped)
        pages.count(pages_lost=compressed + swapped - len(gpns))

    def _free(self, places: NDArray[np.uint32]) -> None:
        if self.cache is not None:
            self.cache.free(places[entries_of(places)] - np.uint32(FIRST_ENTRY))
        if self.swap is not None:
            self.swap.free(places[slots_of(places)] - np.uint32(FIRST_SLOT))

    def _expect(self, places: NDArray[np.uint32]) -> None:
        """Let the pool give out the frames that the cache will not need when these places are free."""
        if self.cache is not None:
            left = self.cache.used - int(entries_of(places).sum())
            self.pool.limit = self.pool.capacity - self.cache.frames_of(left)

    def _set_limit(self) -> None:
        self.pool.limit = self.pool.capacity - self.frames

    def _parts(self, gpns: NDArray[np.uint32]) -> Iterator[NDArray[np.uint32]]:
        for begin in range(0, len(gpns), self._step):
            yield gpns[begin : begin + self._step]

    def _room(self, n: int) -> NDArray[np.uint8]:
        return np.empty((n, self.pool.frame_size), np.uint8)
