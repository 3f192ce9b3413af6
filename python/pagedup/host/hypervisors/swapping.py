"""ESXi's last means: pages compressed or swapped, whichever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.host.hypervisors.memory_states import MemoryState

if TYPE_CHECKING:
    from pagedup.host.guest import HostGuest
    from pagedup.host.hypervisors.allocation import Allocation
    from pagedup.host.hypervisors.hypervisor import HostView
    from pagedup.host.hypervisors.memory_states import MemoryStates

_BATCH = 32
"""Pages, at least, that are paged out at a time for a guest that waits: assumed, as Linux does."""
_ROUNDS = 32
"""Half as many would do: of what is compressed half is free, so that each round halves what is missing."""


class Swapping(HostPolicy):
    """The policy that pages out in the states hard and low, until hard is left, and whenever a guest waits for memory.

    Guests give what they hold beyond their entitlements, their pages taken at random. A guest that waits and that holds
    more than it should if the state were to be clear, gives first: it is blocked until its own pages are out, as in the
    state low. Pages beyond a guest's limit, which its balloon has not got, are paged out in any state.
    """

    def __init__(self, host: HostView, states: MemoryStates, allocation: Allocation) -> None:
        self._host = host
        self._states = states
        self._allocation = allocation

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        for guest in self._host.guests:
            self._take(guest, guest.pool.present - self._allocation.limit(guest))
        if self._states.state in (MemoryState.HARD, MemoryState.LOW):
            self._reclaim(int(self._states.leaves(MemoryState.HARD)) + 1)

    def make_room(self, frames: int, guest: HostGuest) -> None:
        """See HostPolicy."""
        short = frames - self._host.free
        if short <= 0:
            return
        guests = self._host.guests
        if guest in guests:
            to_clear = round(self._states.level(MemoryState.CLEAR)) + short
            own = self._allocation.excess(to_clear)[guests.index(guest)]
            self._take(guest, min(max(short, _BATCH), own))
        self._reclaim(frames)

    def _reclaim(self, free: int) -> None:
        """Page out until so many frames are free, or no guest has a page to give."""
        most: dict[int, int] = {}
        for _ in range(_ROUNDS):
            short = free - self._host.free
            if short <= 0:
                return
            excess = self._allocation.excess(max(short, _BATCH), most)
            if not any(excess):
                return
            for guest, pages in zip(self._host.guests, excess, strict=True):
                if pages and self._take(guest, pages) < pages:
                    most[guest.number] = 0  # the others share their frames, or nobody takes them

    def _take(self, guest: HostGuest, pages: int) -> int:
        """Page out so many of its pages, and return how many went."""
        if pages <= 0:
            return 0
        gpns = guest.pool.pick(pages)
        return self._host.page_out(guest, gpns) if len(gpns) else 0
