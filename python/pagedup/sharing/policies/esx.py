"""Page sharing of VMware ESX, as published."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pagedup.sharing.policies.scanner import Policy

if TYPE_CHECKING:
    import dedupcore
    from pagedup.sharing.frame_pool import PoolGuest

_PAGE = 4096  # bytes that a content name stands for
_NAME = 8
_TURN = 4.0  # seconds
_TURNS = 256  # the most that the guests take within one call


class EsxCounts(NamedTuple):
    """What was done since the pool was made, and, from shared on, how it stands; pages, unless it says frames.

    Attributes:
        full_scans: passes through a guest.
        pages_scanned: pages looked at.
        pages_hashed: times that a page was read whole for its hash.
        hints_matched: times that the hash was that of a hint.
        hints_stale: of which the hint's page had been written; the hint is dropped.
        collisions: pages that hold another content than the one with the same hash, and are not shared for that.
        shared: pages mapped to shared frames, esxtop's SHRD.
        common: these frames; shared less common is what is saved.
        zero: of the shared pages those of zero bytes, ZERO.
        cow_hints: pages remembered as hints and not written since, COWH. ESX notices a write when it comes by again.
    """

    full_scans: int
    pages_scanned: int
    pages_hashed: int
    hints_matched: int
    hints_stale: int
    collisions: int
    shared: int
    common: int
    zero: int
    cow_hints: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Esx(Policy):
    """Share as VMware ESX does: Waldspurger, OSDI 2002, and the defaults of ESXi's settings.

    Each guest is scanned at pages / share_scan_time, but at share_rate_max pages a second at the most. If all guests
    together would be more than share_scan_ghz allows for, all are slowed down in proportion.

    Attributes:
        cpu_ghz: of the host: cores times clock rate.
        share_scan_time: Mem.ShareScanTime, minutes in which a guest is scanned once.
        share_scan_ghz: Mem.ShareScanGHz, MB (2**20 bytes) a second that are scanned per GHz of the host.
        share_rate_max: Mem.ShareRateMax, pages a second and guest.
        share_force_salting: Mem.ShareForceSalting. 0: all guests share, whatever their domain, which is the salt; 1:
            those of equal salts, those without one (None) together; 2: those of equal salts, those without one each
            with itself alone (VMware's KB 2097593).
        seed: of the random order of pages.

    Raises ValueError for settings out of range.
    """

    PACE: ClassVar[tuple[str, ...]] = ("cpu_ghz", "share_scan_time", "share_scan_ghz", "share_rate_max")

    cpu_ghz: float
    share_scan_time: float = 60
    share_scan_ghz: float = 4
    share_rate_max: float = 1024
    share_force_salting: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("cpu_ghz", "share_scan_time", "share_scan_ghz", "share_rate_max"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0")
        if self.share_force_salting not in (0, 1, 2):
            raise ValueError(f"share_force_salting is {self.share_force_salting}; it can be 0, 1 or 2")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}; it must be 0 to 2**64 - 1")

    def domain(self, given: Hashable, guest: int) -> Hashable:
        """The domain of a guest by its salt."""
        if self.share_force_salting == 0:
            return None
        return ("alone", guest) if given is None and self.share_force_salting == 2 else given

    def rates(self, pages: list[int], page_size: int = _PAGE) -> list[float]:
        """Pages a second of guests that have so many pages each, of page_size bytes."""
        each = [min(n / (60 * self.share_scan_time), self.share_rate_max) for n in pages]
        most = self.share_scan_ghz * self.cpu_ghz * 2**20 / page_size
        slower = min(1.0, most / sum(each)) if each else 1.0
        return [rate * slower for rate in each]

    def scanner(self, pool: dedupcore.Pool, guests: Sequence[PoolGuest]) -> _EsxScanner:
        """For FramePool."""
        pool.set_policy("esx", seed=self.seed)
        return _EsxScanner(pool, guests, self)


class _EsxScanner:
    def __init__(self, pool: dedupcore.Pool, guests: Sequence[PoolGuest], policy: Esx) -> None:
        self._pool = pool
        self._guests = guests
        self._policy = policy
        self._due: list[float] = []  # pages, of each guest, that it is owed

    def scan(self, seconds: float) -> None:
        """See FramePool.scan: the guests take turns, of a few seconds."""
        pages = [guest.pages for guest in self._guests]
        self._due += [0.0] * (len(pages) - len(self._due))
        if seconds == math.inf:
            for guest in range(len(pages)):
                self._pool.scan_guest(guest, 2**64 - 1, to_end=True)
            return
        size = self._pool.frame_size
        rates = self._policy.rates(pages, _PAGE if size == _NAME else size)
        turns = max(1, min(_TURNS, math.ceil(seconds / _TURN)))
        for _ in range(turns):
            for guest, rate in enumerate(rates):
                self._due[guest] += rate * seconds / turns
                self._look(guest, math.floor(self._due[guest] + 1e-6))  # what many steps add up to is not short of one

    def _look(self, guest: int, due: int) -> None:
        self._due[guest] -= due
        self._pool.scan_guest(guest, due)

    def retune(self, policy: Esx) -> None:
        """See Scanner."""
        self._policy = policy

    def counts(self) -> EsxCounts:
        """See FramePool.scan_counts."""
        c = self._pool.scan_count()
        return EsxCounts(
            full_scans=c.full_scans,
            pages_scanned=c.pages_scanned,
            pages_hashed=c.pages_hashed,
            hints_matched=c.hints_matched,
            hints_stale=c.hints_stale,
            collisions=c.collisions,
            shared=c.pages_stable,
            common=c.frames_stable,
            zero=self._pool.count().zero_pages,
            cow_hints=c.pages_settled,
        )
