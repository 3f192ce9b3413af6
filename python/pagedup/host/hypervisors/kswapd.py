"""How Linux takes memory back: kswapd ahead of time, and whoever finds none by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.host.hypervisors.spread import spread
from pagedup.swap import oldest_victims

if TYPE_CHECKING:
    from pagedup.host.guest import HostGuest
    from pagedup.host.hypervisors.hypervisor import HostView
    from pagedup.host.hypervisors.watermarks import Watermarks

_CLUSTER = 32
"""SWAP_CLUSTER_MAX: pages that direct reclaim takes at a time (include/linux/swap.h)."""
_TURN = 512
"""Pages, at least, that one guest gives to who waits before it is another one's turn: assumed."""


class Kswapd(HostPolicy):
    """The policy that swaps pages that were not touched for long, of all guests in proportion to what they hold.

    Each tick, if less is free than `low`, until `high` is. A guest that waits reclaims what it needs by itself, from
    all of them likewise: virtual machines are processes like others. Guests have their turns from where the last
    reclaim has ended, as memory cgroups have. Pages that KSM shares stay.
    """

    def __init__(self, host: HostView, marks: Watermarks) -> None:
        self._host = host
        self._marks = marks
        self._turn = 0  # the guest that is next

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        if self._host.free < self._marks.low:
            self._reclaim(self._marks.high, 1)

    def make_room(self, frames: int, guest: HostGuest) -> None:
        """See HostPolicy."""
        if self._host.free < frames:
            self._reclaim(max(frames, self._host.free + _CLUSTER), _TURN)

    def _reclaim(self, free: int, least: int) -> None:
        guests = self._host.guests
        parts = spread(free - self._host.free, [guest.pool.present for guest in guests])
        idle = 0  # turns in which nobody gave anything
        while (short := free - self._host.free) > 0 and idle < len(guests):
            number = self._turn % len(guests)
            self._turn = number + 1
            gpns = oldest_victims(guests[number].pool, min(short, max(parts[number], least)))
            went = self._host.page_out(guests[number], gpns) if len(gpns) else 0
            idle = 0 if went else idle + 1
