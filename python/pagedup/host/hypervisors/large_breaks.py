"""Large pages that an ESXi host breaks before anything that hurts, so that their small pages can be shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.host.costs import Operation
from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.host.hypervisors.spread import spread
from pagedup.sharing.frame_pool import LARGE_PAGE

if TYPE_CHECKING:
    from pagedup.host.guest import HostGuest
    from pagedup.host.hypervisors.hypervisor import HostView
    from pagedup.host.hypervisors.memory_states import MemoryStates


class LargeBreaks(HostPolicy):
    """The policy that breaks large pages while less is free than the first threshold.

    That ESXi breaks them all then, before it balloons or swaps, is published (Guo et al., VEE 2015); how many at a time
    is assumed: each tick as many as would be enough if all of their pages were shared, of each guest in proportion to
    those it has, at random.
    """

    def __init__(self, host: HostView, states: MemoryStates) -> None:
        self._host = host
        self._states = states
        self._rng = host.rng("large pages")

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        self._break(self._states.high - self._host.free)

    def make_room(self, frames: int, guest: HostGuest) -> None:
        """See HostPolicy: pages whose hashes the scanner knows are shared at once."""
        self._break(frames - self._host.free)

    def _break(self, short: float) -> None:
        if short <= 0 or not self._host.pool.counts().large_pages:
            return
        guests = self._host.guests
        large = [guest.pool.large for guest in guests]
        counts = [int(np.count_nonzero(ranges)) for ranges in large]
        for guest, ranges, n in zip(guests, large, spread(int(-(-short // LARGE_PAGE)), counts), strict=True):
            if n:
                guest.pool.break_large(self._rng.choice(np.flatnonzero(ranges), n, replace=False))
                self._host.charge(Operation.BREAK_LARGE, n)
