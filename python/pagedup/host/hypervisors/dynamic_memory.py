"""Hyper-V's Dynamic Memory at work: what guests are assigned, tick by tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pagedup.guests.spec import pages_of
from pagedup.host.hypervisors.demands import Demand, assigned, shrunk
from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.host.page_use import Use
from pagedup.sharing.frame_pool import ABSENT

if TYPE_CHECKING:
    from pagedup.host.guest import HostGuest
    from pagedup.host.hypervisors.hypervisor import HostView


_NOT_THERE = ((Use.BALLOON, Use.SWAPPED, Use.DROPPED), (Use.UNLOADED,))
"""Uses of pages that are not in their guest's memory; the last ones soon will be."""


@dataclass(slots=True)
class _Bounds:
    """Of one guest, in pages; until when it boots, in seconds of simulated time."""

    minimum: int
    maximum: int
    booting: float


class DynamicMemory(HostPolicy):
    """The policy that assigns physical memory to guests, and never more than there is.

    What a guest is not assigned is in its balloon. Memory is added at once where it is there, and else taken from
    others by their balloons first; of what they refuse to give nobody gets anything. While it boots, nothing is taken
    from a guest: its balloon's driver does not run yet.
    """

    def __init__(self, host: HostView) -> None:
        self._host = host
        self._bounds: dict[int, _Bounds] = {}

    @property
    def assigned(self) -> int:
        """See HostPolicy."""
        return sum(guest.pages - guest.memory.balloon for guest in self._host.guests)

    def admits(self, guest: HostGuest) -> bool:
        """See HostPolicy: it must have its startup memory, for which others give what they have not committed."""
        settings = guest.settings.dynamic_memory
        maximum = min(pages_of(settings.maximum, "maximum") or guest.pages, guest.pages)
        startup = min(pages_of(settings.startup, "startup"), maximum)
        minimum = min(pages_of(settings.minimum, "minimum"), startup)
        guests = self._host.guests
        demands = [self._demand(other) for other in guests]
        short = startup - self._unassigned()
        left = shrunk(demands, short, buffers=True)
        if sum(demand.held for demand in demands) - sum(left) < short:
            return False
        self._assign(left)
        balloon = guest.pages - startup - guest.memory.balloon
        if startup > self._unassigned() or guest.memory.inflate(balloon) < balloon:
            return False
        self._bounds[guest.number] = _Bounds(minimum, maximum, self._host.now + guest.settings.boot)
        return True

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        self._assign(assigned([self._demand(guest) for guest in self._host.guests], self._host.capacity))

    def make_room(self, frames: int, guest: HostGuest) -> None:
        """See HostPolicy: what guests are assigned is there, but for pages that large ones give them beyond that.

        A large page can reach to pages that are not in its guest's memory, such as those in the balloon.
        """
        for uses in _NOT_THERE:
            for each in self._host.guests:
                away = np.isin(each.memory.uses, uses) & (each.pool.page_table != ABSENT)
                each.pool.release(np.flatnonzero(away))
            if self._host.free >= frames:
                return

    def _demand(self, guest: HostGuest) -> Demand:
        bounds, settings = self._bounds[guest.number], guest.settings.dynamic_memory
        return Demand(
            held=guest.pages - guest.memory.balloon,
            committed=guest.memory.committed,
            minimum=bounds.minimum,
            maximum=bounds.maximum,
            buffer=settings.buffer,
            weight=settings.weight,
            can_shrink=self._host.now >= bounds.booting,
        )

    def _unassigned(self) -> int:
        return self._host.capacity - self.assigned

    def _assign(self, pages: list[int]) -> None:
        """So many to each guest: first what shrinks, then what grows, as far as that made room for it."""
        changes = [
            (held - (guest.pages - guest.memory.balloon), guest)
            for held, guest in zip(pages, self._host.guests, strict=True)
        ]
        for change, guest in changes:
            if change < 0:
                guest.memory.inflate(-change)
        unassigned = self._unassigned()
        for change, guest in changes:
            if change > 0:
                unassigned -= guest.memory.deflate(max(0, min(change, unassigned)))
