"""Which pages of a guest go: at random, as ESX does, or the least recently used, as Linux does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Guest(Protocol):
    """What is asked of a guest: a PoolGuest can do it."""

    def pick(self, n: int, eligible: NDArray[np.bool_] | None = None) -> NDArray[np.uint32]:
        """Pages at random."""
        ...

    def oldest(
        self, n: int, by: Literal["host", "guest"], eligible: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint32]:
        """Pages that were not accessed for long."""
        ...


Victims = Callable[[Guest, int], "NDArray[np.uint32]"]
"""Names up to so many pages of a guest; none of them shares its frame."""


def random_victims(guest: Guest, n: int) -> NDArray[np.uint32]:
    """Up to n pages in random order, each once until all had their turn.

    As ESX does: a guest's own replacement has often just chosen what looks oldest from outside, and would read it back
    only to write it to the guest's own swap.
    """
    return guest.pick(n)


def oldest_victims(guest: Guest, n: int) -> NDArray[np.uint32]:
    """Up to n pages that were not accessed since the host's clock passed them last: second chance, near to LRU."""
    return guest.oldest(n, "host")
