"""How Linux takes memory back: kswapd ahead of time, and whoever finds none by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.host.hypervisors.spread import spread

if TYPE_CHECKING:
    from pagedup.host.guest import HostGuest
    from pagedup.host.hypervisors.hypervisor import HostView
    from pagedup.host.hypervisors.watermarks import Watermarks

_CLUSTER = 32
"""SWAP_CLUSTER_MAX: pages that direct reclaim takes at a time (include/linux/swap.h)."""
_ROUNDS = 4


class Kswapd(HostPolicy):
    """The policy that swaps pages that were not touched for long, of all guests in proportion to what they hold.

    Each tick, if less is free than `low`, until `high` is. A guest that waits reclaims what it needs by itself, from
    all of them likewise: virtual machines are processes like others. Pages that KSM shares stay.
    """

    def __init__(self, host: HostView, marks: Watermarks) -> None:
        self._host = host
        self._marks = marks

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        if self._host.free < self._marks.low:
            self._reclaim(self._marks.high)

    def make_room(self, frames: int, guest: HostGuest) -> None:
        """See HostPolicy."""
        if self._host.free < frames:
            self._reclaim(frames)

    def _reclaim(self, free: int) -> None:
        for _ in range(_ROUNDS):
            short = free - self._host.free
            if short <= 0:
                return
            guests = self._host.guests
            wanted = spread(max(short, _CLUSTER), [guest.pool.present for guest in guests])
            if not sum(self._take(guest, pages) for guest, pages in zip(guests, wanted, strict=True)):
                return

    def _take(self, guest: HostGuest, pages: int) -> int:
        gpns = guest.pool.oldest(pages, by="host")
        return self._host.page_out(guest, gpns) if len(gpns) else 0
