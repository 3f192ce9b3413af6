"""What a guest's operating system does with its memory: what is free, what the balloon takes, what is paged out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pagedup.host.costs import Operation
from pagedup.host.page_use import IN_MEMORY, N_USES, LayoutUse, Use
from pagedup.host.random_stream import RandomStream
from pagedup.memory.layouts import ABSENT, ZERO
from pagedup.sharing.frame_pool import OUT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.host.costs import Ledger
    from pagedup.host.pager import Pager
    from pagedup.memory.layouts import Layout
    from pagedup.sharing.frame_pool import PoolGuest

_READ_AHEAD = 16  # neighbouring pages of files that the cache takes together (64 KiB; assumed)
_LEAST = 64  # pages that could go, and that the balloon leaves nevertheless: what is touched needs places (assumed)

_AHEAD = 512  # pages that go ahead of need, so that the next ones find places (assumed, as systems keep some free)

_NO_GPNS = np.empty(0, np.uint32)


class Filled(NamedTuple):
    """Pages that the guest's system has filled, uint32 (n,), and with what: frames, as PoolGuest.write takes them.

    They have to be written into the pool before anything else happens to them, or given back by `unfill`.
    """

    gpns: NDArray[np.uint32]
    data: NDArray[Any]


class Faulted(NamedTuple):
    """How many of the accesses can be done once `filled` is written: all of them, but where memory is very short."""

    done: int
    filled: Filled


def names_themselves(names: NDArray[np.uint64]) -> NDArray[Any]:
    """What frames hold in a pool of content names."""
    return names


class GuestMemory:
    """The memory of a guest as its own operating system manages it. Made for a guest that is not started yet.

    A page keeps its number all its life, wherever its content is. So a page whose content is in the guest's swap, or
    only in a file, is a number without a place: the guest has paged it out. In a real guest its place would then be
    another page's; here places are counted. At any time

        pages = in use + free + balloon,    balloon = taken when they were free + paged + not loaded - places

    with `places` that are free for pages that are paged or not loaded yet; `free` counts them, too. So memory adds up,
    and the balloon's size changes by `inflate` and `deflate` alone.

    A guest's pages are put in the pool by whoever runs it: what its system fills is returned (Filled). They are taken
    from there through the pager, since the hypervisor may have paged them out: what the guest writes to its own swap is
    read, and comes back from the hypervisor's first, which the guest waits for (double paging; Goldberg and Hassinger,
    "The double paging anomaly", 1974).

    Pages that come back from the balloon are absent until something uses them: a zero page thread that writes them
    would take from the host at once what it has just been given.

    Args:
        layout: what the guest holds in the end. Pages free there, or absent, are free.
        guest: its pages in a pool, none of which is present.
        pager: the pool's.
        ledger: what the guest waits for.
        content: the frames that stand for content names (n,): in a pool of names these themselves, else uint8
            (n, frame_size).
        cache: the share of the layout's file cache that is there once the guest is started; the rest is free until
            `grow_cache` takes it, in an order that `key` decides.

    Takes 1 byte a page, 4 one that is free at first; once the guest pages out 2 more a page, and a frame.

    Attributes:
        pages: of the guest.
        double_paged: pages that the guest wrote to its swap when they were in the hypervisor's, or compressed.
    """

    def __init__(
        self,
        layout: Layout,
        guest: PoolGuest,
        pager: Pager,
        ledger: Ledger,
        *,
        content: Callable[[NDArray[np.uint64]], NDArray[Any]] = names_themselves,
        cache: float = 1.0,
        key: int = 0,
    ) -> None:
        if layout.n_pages != guest.pages:
            raise ValueError(f"the layout has {layout.n_pages:,} pages, and the guest {guest.pages:,}")
        self.pages = guest.pages
        self.double_paged = 0
        self.layout = layout
        self._guest = guest
        self._pager = pager
        self._ledger = ledger
        self._content = content
        self._nothing = Filled(_NO_GPNS, content(np.empty(0, np.uint64)))
        self._of_layout = LayoutUse(layout)
        self._use = self._of_layout.of_all()
        self._use[layout.names == np.uint64(ABSENT)] = Use.FREE
        later = self._cached_later(cache, key)
        never_used = np.flatnonzero(self._use == Use.FREE).astype(np.uint32)
        self._zeroes = 2 * np.count_nonzero(layout.names[never_used] == ZERO) >= len(never_used)
        self._use[self._use <= IN_MEMORY] = Use.UNLOADED
        self._use[later] = Use.FREE
        # Those that are free, and behind them those that are in the balloon, from _ballooned on; the cache grows from
        # _grown on. Those that came to be used otherwise stay there, and their use tells.
        self._spare = np.concatenate((later, never_used))
        self._grown, self._later, self._ballooned = 0, len(later), len(self._spare)
        self._counts = np.bincount(self._use, minlength=N_USES)
        self._away = self._places = int(self._counts[Use.UNLOADED])
        self._committed = 0
        # Made when they are first needed: contents of pages in the guest's swap, and which pages may go.
        self._swap: NDArray[np.uint8] | None = None
        self._may_go: dict[int, NDArray[np.bool_]] = {}

    def _cached_later(self, share: float, key: int) -> NDArray[np.uint32]:
        """The pages of the file cache that are not there at first, in the order in which they come."""
        cached = np.flatnonzero(self._use == Use.CACHED).astype(np.uint32)
        at_first = round(share * len(cached))
        if at_first >= len(cached):
            return _NO_GPNS
        order = np.argsort(RandomStream(key).take(-(-len(cached) // _READ_AHEAD)), kind="stable")
        slots = np.add.outer(order * _READ_AHEAD, np.arange(_READ_AHEAD)).reshape(-1)
        return cached[slots[slots < len(cached)][at_first:]]

    # --- what there is --------------------------------------------------------------------------------------------

    @property
    def uses(self) -> NDArray[np.uint8]:
        """Uint8 ndarray (pages,), a read-only view: the Use of each page. It changes as the memory does."""
        view = self._use.view()
        view.flags.writeable = False
        return view

    @property
    def in_use(self) -> int:
        """Pages that are in use and in the guest's memory."""
        return int(self._counts[: IN_MEMORY + 1].sum())

    @property
    def free(self) -> int:
        """Pages that the guest could use without paging out."""
        return int(self._counts[Use.FREE]) + self._places

    @property
    def balloon(self) -> int:
        """Pages in the balloon."""
        counts = self._counts
        return int(counts[Use.BALLOON]) + self._away - self._places

    @property
    def given(self) -> int:
        """Pages of the balloon that were free, or not loaded yet, when it took them: the guest paged nothing out."""
        return min(self.balloon, int(self._counts[Use.BALLOON] + self._counts[Use.UNLOADED]))

    @property
    def swapped(self) -> int:
        """Pages whose content is in the guest's own swap."""
        return int(self._counts[Use.SWAPPED])

    @property
    def dropped(self) -> int:
        """Pages whose content is in a file only, from which it was read before."""
        return int(self._counts[Use.DROPPED])

    @property
    def paged(self) -> int:
        """Both of these."""
        return self.swapped + self.dropped

    @property
    def committed(self) -> int:
        """Pages that are in use for something else than the file cache, paged ones included."""
        return self._committed

    @property
    def cached(self) -> int:
        """Pages of the file cache that are in memory."""
        return int(self._counts[Use.CACHED])

    @property
    def to_grow(self) -> int:
        """Pages, at most, that the file cache can still grow by."""
        return self._later - self._grown

    @property
    def unloaded(self) -> int:
        """Pages that a guest that is being started has still to fill."""
        return int(self._counts[Use.UNLOADED])

    # --- the balloon ----------------------------------------------------------------------------------------------

    def inflate(self, n: int) -> int:
        """Let the balloon take n more pages, or as many as it can get; returns how many.

        Free ones first. Then pages of the file cache and then others go, in each case those that the guest did not use
        for long (second chance, by its own marks): pages of files are dropped, others written to its swap.
        """
        got = min(n, self._places)
        self._places -= got
        free = self._take_free(n - got)
        self._place_in_balloon(free)
        got += len(free)
        for kind in (Use.CACHED, Use.ANONYMOUS):
            got += self._page_out(min(n - got, self._could_go - _LEAST), kind, _NO_GPNS)
        self._ledger.charge(Operation.BALLOON_PAGE, got)
        return got

    def deflate(self, n: int) -> int:
        """Let the balloon give n pages back, or all that it has; returns how many. What is paged out stays there."""
        n = min(n, self.balloon)
        free = self._take_back(n)
        self._move(free, Use.FREE)
        self._places += n - len(free)
        self._ledger.charge(Operation.BALLOON_PAGE, n)
        return n

    def _take_free(self, n: int) -> NDArray[np.uint32]:
        """Up to n free pages, the last ones, which stand behind the border now."""
        begin = end = self._ballooned
        missing = min(n, int(self._counts[Use.FREE]))
        while missing > 0:
            at = max(self._grown, begin - missing)
            missing -= int(np.count_nonzero(self._use.take(self._spare[at:begin]) == Use.FREE))
            begin = at
        self._ballooned = begin
        return self._those(Use.FREE, begin, end)

    def _take_back(self, n: int) -> NDArray[np.uint32]:
        """Up to n pages that were free when the balloon took them, the last ones first; before the border now."""
        begin = end = self._ballooned
        missing = min(n, int(self._counts[Use.BALLOON]))
        while missing > 0:
            to = min(len(self._spare), end + missing)
            missing -= int(np.count_nonzero(self._use.take(self._spare[end:to]) == Use.BALLOON))
            end = to
        self._ballooned = end
        return self._those(Use.BALLOON, begin, end)

    def _those(self, use: int, begin: int, end: int) -> NDArray[np.uint32]:
        part: NDArray[np.uint32] = self._spare[begin:end]
        those: NDArray[np.uint32] = part[self._use.take(part) == use]
        return those

    def _place_in_balloon(self, free: NDArray[np.uint32]) -> None:
        if len(free):
            self._pager.release(self._guest, free)
            self._move(free, Use.BALLOON)

    # --- what the guest touches -----------------------------------------------------------------------------------

    def fault(self, gpns: NDArray[np.uint32], writes: NDArray[np.bool_] | None = None) -> Faulted:
        """Bring back what of these pages the guest has paged out, or not loaded yet; gpns may repeat.

        Each needs a place: one that the balloon has given back, or a free page, which the balloon takes instead, or
        that of a page that the guest did not use for long, which is paged out. Pages of the batch do not go for each
        other: where it is too large for that, the first part of it is brought back, and the rest is to be asked for
        when that is done. Where there is no place at all, not even one access can be done: the guest's own system is
        out of memory.

        writes: bool ndarray (n,), for accesses that care for no use, as those of a trace do. Free pages then come to be
        used, be they in the balloon; pages of files that are written are as other memory from now on, since they are
        no longer what the file holds. None: there are no such accesses, but only those that `Work` makes.
        """
        if writes is not None:
            self._claim(gpns)
        done, filled = self._bring_back(gpns)
        if writes is not None:
            self._change_files(np.unique(gpns[:done][writes[:done]]))
        return Faulted(done, filled)

    def _bring_back(self, gpns: NDArray[np.uint32]) -> Faulted:
        if not self._away:
            return Faulted(len(gpns), self._nothing)
        away = self._use.take(gpns) >= Use.UNLOADED
        if not away.any():
            return Faulted(len(gpns), self._nothing)
        done = len(gpns)
        wanted = np.unique(gpns[away])
        while not self._make_places(len(wanted), gpns[:done]):
            done //= 2
            if not done:
                return Faulted(0, self._nothing)
            wanted = np.unique(gpns[:done][away[:done]])
        return Faulted(done, self._load(wanted))

    def _claim(self, gpns: NDArray[np.uint32]) -> None:
        uses = self._use.take(gpns)
        free = np.unique(gpns[uses == Use.FREE])
        self._move(free, Use.ANONYMOUS)
        self._committed += len(free)
        self._move(np.unique(gpns[uses == Use.BALLOON]), Use.UNLOADED)

    def _change_files(self, written: NDArray[np.uint32]) -> None:
        uses = self._use.take(written)
        self._committed += int(np.count_nonzero(uses == Use.CACHED))
        self._move(written[(uses == Use.CACHED) | (uses == Use.MAPPED)], Use.ANONYMOUS)

    def grow_cache(self, n: int) -> Filled:
        """Let the file cache take n more pages of the layout's, or as many as there are and free pages for them."""
        begin = end = self._grown
        border, missing = min(self._later, self._ballooned), n
        while missing > 0 and end < border:
            to = min(border, end + missing)
            missing -= int(np.count_nonzero(self._use.take(self._spare[end:to]) == Use.FREE))
            end = to
        self._grown = end
        gpns = self._those(Use.FREE, begin, end)
        self._move(gpns, Use.CACHED)
        return Filled(gpns, self._content(self.layout.names.take(gpns)))

    def left_free(self, gpns: NDArray[np.uint32]) -> Filled:
        """What the guest's system leaves in those of these pages that are free, as it is started.

        Zero, if it zeroes what is free; else what the layout says. Those that it leaves absent are not among them.
        """
        free = gpns[self._use.take(gpns) == Use.FREE]
        names = self.layout.names.take(free)
        names[self._of_layout.of(free) == Use.CACHED] = ZERO if self._zeroes else ABSENT
        there = names != np.uint64(ABSENT)
        return Filled(free[there], self._content(names[there]))

    def _make_places(self, n: int, keep: NDArray[np.uint32]) -> bool:
        """Whether there are places for n pages now, without those of `keep`."""
        free = self._take_free(max(0, n - self._places))
        self._place_in_balloon(free)
        self._places += len(free)
        if self._places < n:
            more = min(_AHEAD, self._could_go // 1024)
            self._places += self._page_out(n - self._places + more, Use.ANONYMOUS, keep)
        return self._places >= n

    def _load(self, gpns: NDArray[np.uint32]) -> Filled:
        """Fill pages that have places."""
        if not len(gpns):
            return self._nothing
        before = self._use.take(gpns)
        names = self.layout.names.take(gpns)
        uses = self._of_layout.of(gpns)
        claimed = uses == Use.FREE  # was in the balloon
        names[claimed] = ZERO
        uses[claimed] = Use.ANONYMOUS
        data = np.ascontiguousarray(self._content(names))
        swapped = np.flatnonzero(before == Use.SWAPPED)
        if len(swapped):
            assert self._swap is not None
            data.view(np.uint8).reshape(len(gpns), -1)[swapped] = self._swap[gpns[swapped]]
            uses[swapped] = Use.ANONYMOUS
        self._committed += int(np.count_nonzero((before == Use.UNLOADED) & (uses != Use.CACHED)))
        self._ledger.charge(Operation.GUEST_SWAP_IN, len(swapped))
        self._ledger.charge(Operation.GUEST_FILE_READ, int(np.count_nonzero(before == Use.DROPPED)))
        self._places -= len(gpns)
        self._move(gpns, uses)
        return Filled(gpns, data)

    def unfill(self, filled: Filled) -> None:
        """Take back pages that it has filled and that found no memory: what they hold is in its swap, or in files.

        Free pages stay as they are.
        """
        uses = self._use.take(filled.gpns)
        in_files = (uses == Use.CACHED) | (uses == Use.MAPPED)
        in_swap = ~in_files & (uses != Use.FREE)
        self._store(filled.gpns[in_swap], filled.data[in_swap])
        self._places += int(np.count_nonzero(in_files | in_swap))
        self._move(filled.gpns[in_files], Use.DROPPED)
        self._move(filled.gpns[in_swap], Use.SWAPPED)

    # --- paging out -----------------------------------------------------------------------------------------------

    @property
    def _could_go(self) -> int:
        return int(self._counts[Use.ANONYMOUS : IN_MEMORY + 1].sum())

    def _page_out(self, n: int, kind: int, keep: NDArray[np.uint32]) -> int:
        """Page out up to n pages that were not used for long: of the file cache, or (ANONYMOUS) any; not of `keep`."""
        if n <= 0 or (kind == Use.CACHED and not self.cached):
            return 0
        may_go = self._those_that_may_go(kind)
        if len(keep):
            before = may_go.take(keep)
            may_go[keep] = False
        gpns = self._guest.oldest(n, "guest", may_go)
        if len(keep):
            may_go[keep] = before
        if len(gpns):
            written = self._use.take(gpns) == Use.ANONYMOUS
            self._write_to_swap(gpns[written])
            self._drop(gpns[~written])
        return len(gpns)

    def _drop(self, gpns: NDArray[np.uint32]) -> None:
        if len(gpns):
            self._pager.release(self._guest, gpns)
            self._move(gpns, Use.DROPPED)

    def _those_that_may_go(self, kind: int) -> NDArray[np.bool_]:
        if kind not in self._may_go:
            self._may_go[kind] = _may_go(self._use, kind)
        return self._may_go[kind]

    def _write_to_swap(self, gpns: NDArray[np.uint32]) -> None:
        if not len(gpns):
            return
        data = np.empty((len(gpns), self._pager.pool.frame_size), np.uint8)
        self._pager.read(self._guest, gpns, data)
        self._store(gpns, data)
        out = int(np.count_nonzero(self._guest.marks.take(gpns) & OUT))
        before = self._pager.counts(self._guest) if out else None
        self._pager.release(self._guest, gpns)
        if before is not None:
            now = self._pager.counts(self._guest)
            self._ledger.charge(Operation.UNCOMPRESS, before.pages_compressed - now.pages_compressed)
            self._ledger.charge(Operation.SWAP_IN, before.pages_swapped - now.pages_swapped)
            self.double_paged += out
        self._ledger.charge(Operation.GUEST_SWAP_OUT, len(gpns))
        self._move(gpns, Use.SWAPPED)

    def _store(self, gpns: NDArray[np.uint32], data: NDArray[Any]) -> None:
        if not len(gpns):
            return
        if self._swap is None:
            self._swap = np.zeros((self.pages, self._pager.pool.frame_size), np.uint8)
        self._swap[gpns] = np.ascontiguousarray(data).view(np.uint8).reshape(len(gpns), -1)

    def _move(self, gpns: NDArray[np.uint32], use: int | NDArray[np.uint8]) -> None:
        """Use pages, each of them once, for something else."""
        if not len(gpns):
            return
        self._counts -= np.bincount(self._use.take(gpns), minlength=N_USES)
        self._use[gpns] = use
        now = self._use.take(gpns)
        self._counts += np.bincount(now, minlength=N_USES)
        self._away = int(self._counts[Use.UNLOADED :].sum())
        for kind, pages in self._may_go.items():
            pages[gpns] = _may_go(now, kind)


def _may_go(uses: NDArray[np.uint8], kind: int) -> NDArray[np.bool_]:
    may_go: NDArray[np.bool_] = (uses >= kind) & (uses <= IN_MEMORY)
    return may_go
