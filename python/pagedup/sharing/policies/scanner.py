"""What a sharing policy is to a frame pool, and the scanner of those that wake up now and then."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import dedupcore
    from pagedup.sharing.frame_pool import PoolGuest

_SLICE = 1 << 14
"""Pages in one call of the engine that goes to the end of a pass: between two calls it can be interrupted."""


class Scanner(Protocol):
    """The scanner of one pool."""

    def scan(self, seconds: float) -> None:
        """Go on for so long; math.inf: to the end of the pass."""

    def counts(self) -> Any:
        """The counters of the original, by its names."""

    def retune(self, policy: Any) -> None:
        """See FramePool.retune: the policy is of the same kind, and so are all settings but those of its PACE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(ABC):
    """A way to share: settings, and a scanner for each pool that shares so."""

    PACE: ClassVar[tuple[str, ...]] = ()
    """The settings that say how fast it is, which can be others while it runs."""

    @abstractmethod
    def scanner(self, pool: dedupcore.Pool, guests: Sequence[PoolGuest]) -> Scanner:
        """Make the pool, which has no guests yet, share by this policy; `guests` grows with those that are added."""

    def domain(self, given: Hashable, guest: int) -> Hashable:
        """The domain that a guest, by its number, is in when it is given one."""
        return given


class WakingPolicy(Protocol):
    """What the policies of a WakingScanner have."""

    @property
    def pages_to_scan(self) -> int:
        """Each time that it wakes up."""

    @property
    def sleep_millisecs(self) -> float:
        """Between two times."""


class WakingScanner:
    """Wakes up once every so many milliseconds, and then looks at so many pages."""

    def __init__(self, pool: dedupcore.Pool, pages_to_scan: int, sleep_millisecs: float) -> None:
        self._pool = pool
        self._pages = pages_to_scan
        self._sleep = sleep_millisecs
        self._millisecs = 0.0  # of simulated time
        self._woken = 0

    def scan(self, seconds: float) -> None:
        """See FramePool.scan."""
        if seconds == math.inf:
            self._pool.scan(2**64 - 1, _SLICE, to_end=True)
            return
        self._millisecs += seconds * 1000
        due = math.floor(self._millisecs / self._sleep + 1e-9)  # what many short times add up to is not short of one
        wakes, self._woken = due - self._woken, due
        self._pool.scan(wakes, self._pages)

    def retune(self, policy: WakingPolicy) -> None:
        """See Scanner. It wakes up as long after the last time as it now sleeps."""
        self._millisecs -= self._woken * self._sleep
        self._woken = 0
        self._pages = policy.pages_to_scan
        self._sleep = policy.sleep_millisecs


def check_pace(pages_to_scan: int, sleep_millisecs: float) -> None:
    """Raise ValueError for settings that no scanner can have."""
    if not 1 <= pages_to_scan < 2**32:
        raise ValueError(f"pages_to_scan is {pages_to_scan}; it must be 1 to 2**32 - 1")
    if not 0 < sleep_millisecs < math.inf:
        raise ValueError(
            f"sleep_millisecs is {sleep_millisecs}; it must be more than 0: without a pause a scanner is as fast as its"
            " CPU, of which simulated time knows nothing (scan(math.inf) does whole passes)"
        )
