"""What guests lose because large pages of the host under them were broken, as time passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pagedup.host.translation import Translation
from pagedup.sharing.frame_pool import LARGE_PAGE
from pagedup.tlb import microarchitecture

if TYPE_CHECKING:
    from pagedup.host.guest import HostGuest
    from pagedup.host.scenario import Machine
    from pagedup.host.work import Work

_ACCESSES = 40_000
_EVERY = 1800.0  # seconds of simulated time, or sooner for a guest with more than so many times the small pages:
_MORE = 2


class _Known(NamedTuple):
    """Of the guest that was looked at: when, its share in small pages, and cycles beyond large ones alone."""

    time: float
    small: float
    cycles: float


class LostReach:
    """Of the guests of one set, which are taken to be alike in each phase: one of them is looked at now and then.

    What a guest loses is in proportion to how much of it is in small pages.

    machine: whose CPU it is. page_turns: of a guest for each touch that is simulated.
    """

    def __init__(self, machine: Machine, page_turns: float) -> None:
        self._geometry = microarchitecture(machine.cpu)
        self._hertz = machine.ghz * 1e9
        self._turns = page_turns
        self._known: dict[tuple[int, int], _Known] = {}  # by set and phase
        self._translations: dict[tuple[int, bool], Translation] = {}

    def share(self, guest: HostGuest, work: Work, now: float) -> float:
        """The share of its time that the guest loses, beside one that has large pages alone."""
        small = _small(guest)
        if not small or not work.touches:
            return 0.0
        key = (id(guest.settings), id(work.phase))
        known = self._known.get(key)
        if known is None or now >= known.time + _EVERY or small > _MORE * known.small:
            known = self._known[key] = _Known(now, small, self._cycles(guest, work))
        return work.touches * self._turns * known.cycles * (small / known.small) / self._hertz

    def _cycles(self, guest: HostGuest, work: Work) -> float:
        """Of translation for each page turned to, beyond those with large pages alone."""
        which = (guest.pages, guest.settings.large_pages)
        if which not in self._translations:
            self._translations[which] = Translation(self._geometry, guest.pages, large_in_guest=which[1])
        translation, gpns, large = self._translations[which], work.like(_ACCESSES), guest.pool.large
        return max(translation.cycles(gpns, large) - translation.cycles(gpns, np.ones_like(large)), 0.0)


def _small(guest: HostGuest) -> float:
    """The share of its memory that is not in large pages; what is in its balloon is not its own."""
    held = max(guest.pages - guest.memory.balloon, 1)
    return max(1 - float(guest.pool.large.sum()) * LARGE_PAGE / held, 0.0)
