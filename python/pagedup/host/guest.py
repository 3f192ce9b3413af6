"""A guest that runs on a host, as the hypervisor sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagedup.host.costs import Ledger
    from pagedup.host.guest_memory import GuestMemory
    from pagedup.host.scenario import GuestSet
    from pagedup.sharing.frame_pool import PoolGuest


@dataclass(slots=True, eq=False)
class HostGuest:
    """One guest.

    Attributes:
        number: 0, 1 and so on, in the order in which guests are started; its index in the pool.
        name: for people.
        settings: of the set of guests that it is of.
        pool: its pages and their frames.
        memory: what its own operating system does with them.
        ledger: what it waited for.
    """

    number: int
    name: str
    settings: GuestSet
    pool: PoolGuest
    memory: GuestMemory
    ledger: Ledger

    @property
    def pages(self) -> int:
        """Of its memory, balloon included."""
        return self.pool.pages
