"""Hyper-V's Dynamic Memory at work: what guests are assigned, tick by tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pagedup.guests.spec import pages_of
from pagedup.host.hypervisors.demands import Demand, assigned, shrunk
from pagedup.host.hypervisors.hypervisor import HostPolicy

if TYPE_CHECKING:
    from pagedup.host.guest import HostGuest
    from pagedup.host.hypervisors.hypervisor import HostView


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
        return self._host.capacity - sum(guest.pages - guest.memory.balloon for guest in self._host.guests)

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
                unassigned -= guest.memory.deflate(min(change, unassigned))
