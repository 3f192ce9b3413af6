"""What each guest of an ESXi host may hold, and what it has to give if memory is short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagedup.guests.spec import pages_of
from pagedup.host.hypervisors.entitlements import entitlements
from pagedup.host.hypervisors.hypervisor import HostPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pagedup.host.guest import HostGuest
    from pagedup.host.hypervisors.hypervisor import HostView


class Allocation(HostPolicy):
    """The policy that admits guests, and that divides memory among them by shares, reservation, limit and idle tax.

    A guest starts if memory is left for its reservation, and swap for the rest of its memory, so that none can ever be
    without (Waldspurger, OSDI 2002, section 6.2). What a virtual machine takes beside its guest's memory is left out.

    Args:
        active: pages that a guest uses.
        tax: on idle memory, a share.
    """

    def __init__(self, host: HostView, active: Callable[[HostGuest], float], tax: float) -> None:
        self._host = host
        self._active = active
        self._tax = tax
        self._bounds: dict[int, tuple[int, int]] = {}  # of each guest: its reservation and its limit, in pages
        self._reserved = self._unreserved = 0  # pages of all guests
        self._swap = pages_of(host.machine.swap, "host.swap")

    def admits(self, guest: HostGuest) -> bool:
        """See HostPolicy."""
        reservation, _ = self._of(guest)
        reserved, unreserved = self._reserved + reservation, self._unreserved + guest.pages - reservation
        if reserved > self._host.capacity or unreserved > self._swap:
            return False
        self._reserved, self._unreserved = reserved, unreserved
        return True

    def limit(self, guest: HostGuest) -> int:
        """Pages that the guest may hold at the most."""
        return self._of(guest)[1]

    def reservation(self, guest: HostGuest) -> int:
        """Pages that are never taken from the guest."""
        return self._of(guest)[0]

    def excess(self, short: int, most: Mapping[int, int] | None = None) -> list[int]:
        """Pages that each guest has to give so that so many more are free, in the order of host.guests.

        They are `short` in all if the guests have so many beyond their reservations, and else what they have. most:
        pages that a guest can give at the most, by its number, of those of which that is known.
        """
        guests = self._host.guests
        held = [guest.pool.present for guest in guests]
        least = []
        for guest, pages in zip(guests, held, strict=True):
            can = pages if most is None else most.get(guest.number, pages)
            least.append(max(min(self.reservation(guest), pages), pages - can))
        keep = entitlements(
            [guest.settings.shares for guest in guests],
            least,
            held,
            sum(held) - max(0, short),
            active=[self._active(guest) for guest in guests],
            tax=self._tax,
        )
        return [pages - kept for pages, kept in zip(held, keep, strict=True)]

    def _of(self, guest: HostGuest) -> tuple[int, int]:
        bounds = self._bounds.get(guest.number)
        if bounds is None:
            settings = guest.settings
            limit = pages_of(settings.limit, "limit") or guest.pages
            reservation = min(pages_of(settings.reservation, "reservation"), limit, guest.pages)
            bounds = self._bounds[guest.number] = (reservation, min(limit, guest.pages))
        return bounds
