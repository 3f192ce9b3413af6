"""How much memory guests use, by sampling, as ESX does it. (Waldspurger, OSDI 2002, section 5.3.)"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pagedup.host.hypervisors.hypervisor import HostPolicy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.host.guest import HostGuest
    from pagedup.host.hypervisors.hypervisor import HostView

_SLOW, _FAST = 0.1, 0.5
"""Gains of the moving averages: assumed. Published is that there are two, and that their maximum counts."""


@dataclass(slots=True)
class ActiveShare:
    """The share of a guest's pages that it uses, from samples of its pages, each the share of one that was touched.

    The largest of three averages: a slow one, a fast one, and the fast one with what the current sample has found so
    far. So it rises at once, and falls slowly. Before the first sample is complete it is 1.
    """

    slow: float = 1.0
    fast: float = 1.0
    current: float = 1.0
    _samples: int = 0

    @property
    def estimate(self) -> float:
        """The share, from 0 to 1."""
        return max(self.slow, self.fast, self.current)

    def so_far(self, touched: float) -> None:
        """The sample that is not complete has found so much."""
        if self._samples:
            self.current = self.fast + _FAST * (touched - self.fast)

    def complete(self, touched: float) -> None:
        """A sample has found so much."""
        if self._samples:
            self.slow += _SLOW * (touched - self.slow)
            self.fast += _FAST * (touched - self.fast)
        else:
            self.slow = self.fast = touched
        self.current = self.fast
        self._samples += 1


@dataclass(slots=True)
class _Sample:
    gpns: NDArray[np.uint32]
    touched: int = 0
    seconds: float = 0.0
    share: ActiveShare = field(default_factory=ActiveShare)


class ActiveMemory(HostPolicy):
    """The policy that samples: so many random pages of each guest, anew after so many seconds.

    What was touched is known by the host's mark of an access, which it clears.
    """

    def __init__(self, host: HostView, pages: int, seconds: float) -> None:
        self._host = host
        self._pages = pages
        self._seconds = seconds
        self._rng = host.rng("active memory")
        self._samples: dict[int, _Sample] = {}

    def of(self, guest: HostGuest) -> float:
        """Pages that the guest uses, estimated."""
        sample = self._samples.get(guest.number)
        return guest.pages * (sample.share.estimate if sample else 1.0)

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        for guest in self._host.guests:
            sample = self._samples.get(guest.number)
            if sample is None:
                self._samples[guest.number] = _Sample(self._draw(guest))
                continue
            sample.touched += int(np.count_nonzero(guest.pool.take_accessed(sample.gpns, by="host")))
            sample.seconds += seconds
            found = min(1.0, sample.touched / len(sample.gpns))
            if sample.seconds < self._seconds - 1e-6:
                sample.share.so_far(found)
                continue
            sample.share.complete(found)
            sample.gpns, sample.touched, sample.seconds = self._draw(guest), 0, 0.0

    def _draw(self, guest: HostGuest) -> NDArray[np.uint32]:
        """Other pages, with their marks cleared."""
        gpns = self._rng.choice(guest.pages, min(self._pages, guest.pages), replace=False).astype(np.uint32)
        guest.pool.take_accessed(gpns, by="host")
        return gpns
