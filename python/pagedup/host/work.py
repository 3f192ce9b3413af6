"""What a guest touches while it works: a working set that drifts, some of it hot, and storms at times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

import dedupcore
from pagedup.guests.spec import pages_of
from pagedup.host.page_use import by_region, holds_something
from pagedup.host.random_stream import RandomStream
from pagedup.host.zipf import zipf_chances, zipf_quantiles
from pagedup.memory.layouts import RegionKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.host.scenario import Phase
    from pagedup.memory.layouts import Layout

# How likely it is that a page comes into the working set, of 256: assumed. Programs go back to their stacks, to what
# they write in their images, and to page tables more than to the rest; most of the file cache is read once.
_PREFERENCE = {
    RegionKind.KERNEL_TEXT: 192,
    RegionKind.KERNEL_DATA: 128,
    RegionKind.IMAGE_TEXT: 128,
    RegionKind.IMAGE_RDATA: 64,
    RegionKind.IMAGE_DATA: 192,
    RegionKind.HEAP: 128,
    RegionKind.STACK: 255,
    RegionKind.FILE_CACHE: 16,
    RegionKind.PAGE_TABLES: 192,
    RegionKind.FREE: 128,
    RegionKind.ABSENT: 128,
    RegionKind.UNKNOWN: 128,
}
_READ_ONLY = (RegionKind.KERNEL_TEXT, RegionKind.IMAGE_TEXT, RegionKind.IMAGE_RDATA, RegionKind.FILE_CACHE)
_ANY = 1 << 16  # random pages that are tried at once
_DRIFTS_AT_ONCE = 4096  # pages of the working set that are exchanged together, or a 16th of it
_READ_ONLY_BIT = np.uint32(1 << 31)  # of a page in the working set: it is only read

_NO_GPNS = np.empty(0, np.uint32)
_Number = TypeVar("_Number", np.uint32, np.int64)


class InUse(Protocol):
    """What Work needs to know of a guest's memory, as GuestMemory has it."""

    @property
    def pages(self) -> int:
        """Of the guest."""

    @property
    def layout(self) -> Layout:
        """What the guest holds."""

    @property
    def uses(self) -> NDArray[np.uint8]:
        """Uint8 ndarray (pages,): the Use of each page, as it is now."""


class Work:
    """The accesses of one guest, tick by tick.

    The working set is as large as the phase says when it begins, and is kept from phase to phase but for that. Its
    pages are ranked from hot to cold; touches fall on ranks by Zipf's law. Code, constants and the file cache are only
    read (assumed), so other pages are written as much more often as the phase's share of writes needs, as far as that
    is possible.

    Drift takes pages of the colder half out, as many as it says, and puts others in, at random; and it lets as many
    pairs of ranks change places.

    Args:
        memory: what the guest has, once it has been started; phases: what it does, in the order of their starts; key:
            of its random numbers. The same ones, with the same calls, give the same accesses.

    Takes 1 byte a page of the guest, of up to 2^31 pages, and 4 one of the working set.
    """

    def __init__(self, memory: InUse, phases: Sequence[Phase], key: int) -> None:
        self._memory = memory
        self._phases = phases
        self._phase = phases[0]
        self._begun = 0  # phases
        self._random = RandomStream(key)
        self._draws_key, self._burst_key = (int(number) for number in self._random.take(2))
        self._drawn = 0
        self._preference = by_region(memory.layout, _PREFERENCE)
        self._written = by_region(memory.layout, {kind: int(kind not in _READ_ONLY) for kind in RegionKind}) > 0
        self._set = _NO_GPNS  # from hot to cold, with _READ_ONLY_BIT
        self._hot = np.zeros(memory.pages, np.bool_)
        self._to_written = 0.0  # the share of touches that fall on pages that can be written
        self._touches = self._drifts = 0.0  # owed

    @property
    def working_set(self) -> NDArray[np.uint32]:
        """Uint32 ndarray, a copy: the working set, from hot to cold."""
        return self._set & ~_READ_ONLY_BIT

    def is_hot(self, gpns: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Bool ndarray (n,): which pages are in the working set now."""
        return self._hot.take(gpns)

    @property
    def phase(self) -> Phase:
        """In which it is now."""
        return self._phase

    @property
    def touches(self) -> float:
        """Pages a second that its phase touches."""
        return self._phase.touches if len(self._set) else 0.0

    def like(self, n: int) -> NDArray[np.uint32]:
        """Uint32 ndarray (n,): pages as it touches them now, in order. It does not touch them by that."""
        gpns, writes = np.empty(n, np.uint32), np.empty(n, np.uint8)
        first = self._drawn + (1 << 63)  # of the same random numbers, where no access is drawn
        quantiles = zipf_quantiles(len(self._set), self._phase.zipf)
        dedupcore.draw_accesses(self._draws_key, first, self._set, quantiles, 0, gpns, writes)
        gpns &= ~_READ_ONLY_BIT
        return gpns

    def accesses(self, now: float, seconds: float) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """What is touched in the next so many seconds: pages, in order, with repeats, and which touches are writes.

        now: seconds since the guest was started. A phase that begins in between begins at the next call.
        """
        burst = self._begin_phases(now / 3600)
        phase, n_set = self._phase, len(self._set)
        self._touches += phase.touches * seconds
        n = int(self._touches)
        self._touches -= n
        if not n_set:
            n = 0
        gpns, writes = np.empty(n, np.uint32), np.empty(n, np.bool_)
        if n:
            quantiles = zipf_quantiles(n_set, phase.zipf)
            chance = _of_2_32(phase.writes, self._to_written)
            dedupcore.draw_accesses(
                self._draws_key, self._drawn, self._set, quantiles, chance, gpns, writes.view(np.uint8)
            )
            self._drawn += n
            writes &= gpns < _READ_ONLY_BIT
            gpns &= ~_READ_ONLY_BIT
            self._drift(phase.drift * n_set * seconds / 3600)
        if burst:
            first, first_writes = self._burst(burst)
            return np.concatenate((first, gpns)), np.concatenate((first_writes, writes))
        return gpns, writes

    def _can_be_written(self, gpns: NDArray[np.uint32]) -> NDArray[np.bool_]:
        return self._written.take(self._memory.layout.regions.take(gpns))

    def _marked(self, gpns: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """As the working set has them."""
        return gpns | np.where(self._can_be_written(gpns), np.uint32(0), _READ_ONLY_BIT)

    # --- phases ---------------------------------------------------------------------------------------------------

    def _begin_phases(self, hours: float) -> int:
        """Begin those whose time has come; returns the pages of the last one's burst."""
        begun = self._begun
        while self._begun < len(self._phases) and self._phases[self._begun].start <= hours:
            self._begun += 1
        if self._begun == begun:
            return 0
        self._phase = phase = self._phases[self._begun - 1]
        n = round(phase.working_set * np.count_nonzero(holds_something(self._memory.uses)))
        self._hot[self.working_set[n:]] = False
        kept = self._set[:n]
        self._set = np.concatenate((kept, self._marked(self._others(n - len(kept)))))
        self._weigh()
        return pages_of(phase.burst, "burst")

    def _weigh(self) -> None:
        if len(self._set):
            chances = zipf_chances(len(self._set), self._phase.zipf)
            self._to_written = float(chances[self._set < _READ_ONLY_BIT].sum())

    def _burst(self, n: int) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """N pages in use, or all that are, each once."""
        gpns = np.flatnonzero(holds_something(self._memory.uses)).astype(np.uint32)
        order = np.empty(len(gpns), np.uint64)
        dedupcore.random_numbers(self._burst_key, order, self._begun << 32)
        gpns = gpns[np.argsort(order, kind="stable")[:n]]
        draws = np.empty(len(gpns), np.uint64)
        dedupcore.random_numbers(self._burst_key, draws, (self._begun << 32) + (1 << 31))
        can = self._can_be_written(gpns)
        chance = _of_2_32(self._phase.writes, float(can.mean()) if len(can) else 0.0)
        return gpns, can & (draws >> np.uint64(32) < np.uint64(chance))

    # --- drift ----------------------------------------------------------------------------------------------------

    def _drift(self, pages: float) -> None:
        self._drifts += pages
        n_set = len(self._set)
        if self._drifts < min(_DRIFTS_AT_ONCE, 1 + n_set // 16):
            return
        n = min(int(self._drifts), 1 + n_set // 4)
        cold = n_set // 2
        leaving = _distinct(self._random.below(n_set - cold, n)) + cold
        self._drifts -= len(leaving)
        coming = self._others(len(leaving))  # chosen before others leave, which must not come back at once
        leaving = leaving[: len(coming)]
        self._hot[self._set[leaving] & ~_READ_ONLY_BIT] = False
        self._put(leaving, self._marked(coming))
        moving = _distinct(self._random.below(n_set, 2 * n))
        self._put(moving, self._set[moving[::-1]])

    def _put(self, ranks: NDArray[np.int64], marked: NDArray[np.uint32]) -> None:
        chances = zipf_chances(len(self._set), self._phase.zipf)[ranks]
        before, now = self._set[ranks] < _READ_ONLY_BIT, marked < _READ_ONLY_BIT
        self._to_written += float(chances[now].sum() - chances[before].sum())
        self._set[ranks] = marked

    def _others(self, n: int) -> NDArray[np.uint32]:
        """Up to n pages in use that are not in the working set, by preference; they are in it now."""
        found = [_NO_GPNS]
        while n > 0:
            tried = min(8 * n + 512, _ANY)
            draws = self._random.take(tried)
            gpns = ((draws >> np.uint64(32)) * np.uint64(self._memory.pages) >> np.uint64(32)).astype(np.uint32)
            may = np.flatnonzero(self._may_come(gpns))
            gpns, chances = gpns[may], draws[may].astype(np.uint8)
            preferred = self._preference.take(self._memory.layout.regions.take(gpns))
            gpns = _distinct(gpns[chances < preferred])[:n]
            if len(gpns) < min(n, tried >> 8):  # few are left: look at all pages
                gpns = self._last_ones(n)
                n = len(gpns)
            self._hot[gpns] = True
            found.append(gpns)
            n -= len(gpns)
        return np.concatenate(found)

    def _may_come(self, gpns: NDArray[np.uint32]) -> NDArray[np.bool_]:
        return holds_something(self._memory.uses.take(gpns)) & ~self._hot.take(gpns)

    def _last_ones(self, n: int) -> NDArray[np.uint32]:
        gpns = np.arange(self._memory.pages, dtype=np.uint32)
        gpns = gpns[self._may_come(gpns)]
        preferred = self._preference.take(self._memory.layout.regions.take(gpns))
        draws = (self._random.take(len(gpns)).astype(np.float64) + 1) / 2.0**64
        # Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: the largest of draw^(1/weight).
        return gpns[np.argsort(np.log(draws) / -preferred.astype(np.float64), kind="stable")[:n]]


def _of_2_32(share: float, among: float) -> int:
    """The chance, of 2^32, with which those `among` have to be taken for so large a share of all; at most each."""
    return min(round(share / among * (1 << 32)), 1 << 32) if share and among > 0 else 0


def _distinct(numbers: NDArray[_Number]) -> NDArray[_Number]:
    """Each once, in the order in which they came first."""
    _, at = np.unique(numbers, return_index=True)
    return numbers[np.sort(at)]
