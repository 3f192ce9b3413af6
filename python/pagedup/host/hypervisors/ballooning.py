"""ESXi's balloons: how large each guest's is to be, and how fast it gets there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.host.hypervisors.memory_states import MemoryState
from pagedup.host.hypervisors.spread import spread

if TYPE_CHECKING:
    from pagedup.host.hypervisors.allocation import Allocation
    from pagedup.host.hypervisors.hypervisor import HostView
    from pagedup.host.hypervisors.memory_states import MemoryStates


class Ballooning(HostPolicy):
    """The policy that inflates balloons in the state soft, and deflates them in the state high.

    It reclaims what is missing up to the level of the state clear, as OSDI 2002 drives free memory above its highest
    threshold, from each guest what it holds beyond its entitlement. A guest that holds more than its limit balloons in
    any state but hard and low, in which ballooning stops.

    Args:
        cap: the most that a balloon can be, a share of its guest.
        rate: pages a second by which one can grow or shrink. That ESX limits it is published, not how.
    """

    def __init__(
        self, host: HostView, states: MemoryStates, allocation: Allocation, cap: float, rate: float
    ) -> None:
        self._host = host
        self._states = states
        self._allocation = allocation
        self._cap = cap
        self._rate = rate

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        most = round(self._rate * seconds)
        if self._states.state == MemoryState.HIGH:
            self._deflate(most)
        if self._states.state in (MemoryState.HARD, MemoryState.LOW):
            return
        excess = [guest.pool.present - self._allocation.limit(guest) for guest in self._host.guests]
        if self._states.state == MemoryState.SOFT:
            short = round(self._states.level(MemoryState.CLEAR)) - self._host.free
            excess = [max(pair) for pair in zip(excess, self._allocation.excess(short, self._room()), strict=True)]
        for guest, pages in zip(self._host.guests, excess, strict=True):
            room = int(self._cap * guest.pages) - guest.memory.balloon
            wanted = min(pages, room, most)
            if wanted > 0:
                guest.memory.inflate(wanted)

    def _room(self) -> dict[int, int]:
        """By which each guest's balloon can still grow, so that others give what it cannot."""
        return {
            guest.number: max(0, int(self._cap * guest.pages) - guest.memory.balloon) for guest in self._host.guests
        }

    def _deflate(self, most: int) -> None:
        """What is free beyond the level at which the state was reached goes back, to the largest balloons most."""
        guests = self._host.guests
        beyond = self._host.free - int(self._states.leaves(MemoryState.CLEAR))
        balloons = [
            max(0, min(guest.memory.balloon, most, self._allocation.limit(guest) - guest.pool.present))
            for guest in guests
        ]
        for guest, pages in zip(guests, spread(beyond, balloons), strict=True):
            if pages:
                guest.memory.deflate(pages)
