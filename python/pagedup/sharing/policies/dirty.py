"""The policy that looks at what was written, and at nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pagedup.sharing.policies.scanner import Policy, WakingScanner, check_pace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dedupcore
    from pagedup.sharing.frame_pool import PoolGuest


class DirtyCounts(NamedTuple):
    """What the policy did since the pool was made, the first three; and how it stands now. Pages unless it says frames.

    Attributes:
        full_scans: passes through all guests.
        pages_scanned: written pages that it looked at, each read whole once.
        frames_compared: comparisons with a frame that may be equal.
        pages_shared: frames that were shared and still have a page, zero frames apart.
        pages_sharing: how many pages more than these frames are mapped to them.
        pages_unshared: pages looked at since they were written, of which no equal one is known.
        zero_pages: mapped to the zero frame of their domain.
        pages_dirty: written since it looked.
    """

    full_scans: int
    pages_scanned: int
    frames_compared: int
    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    zero_pages: int
    pages_dirty: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dirty(Policy):
    """Share what a dirty log names: pages written since the scanner last came by, at once, zero pages too.

    No hypervisor ships this. The cost of a pass grows with what was written, not with the memory. In a pool every write
    is known; DirtyLog shows where a log of real memory comes from.

    Attributes:
        pages_to_scan: written pages that are looked at each time it wakes, in ascending order, guest by guest.
        sleep_millisecs: between two times, in simulated time. Both as in Ksm, to be compared with it.

    Raises ValueError for settings out of range.
    """

    PACE: ClassVar[tuple[str, ...]] = ("pages_to_scan", "sleep_millisecs")

    pages_to_scan: int = 100
    sleep_millisecs: float = 20

    def __post_init__(self) -> None:
        check_pace(self.pages_to_scan, self.sleep_millisecs)

    def scanner(self, pool: dedupcore.Pool, guests: Sequence[PoolGuest]) -> _DirtyScanner:
        """For FramePool."""
        pool.set_policy("dirty")
        return _DirtyScanner(pool, self.pages_to_scan, self.sleep_millisecs)


class _DirtyScanner(WakingScanner):
    def counts(self) -> DirtyCounts:
        """See FramePool.scan_counts."""
        c = self._pool.scan_count()
        return DirtyCounts(
            full_scans=c.full_scans,
            pages_scanned=c.pages_scanned,
            frames_compared=c.frames_compared,
            pages_shared=c.frames_stable,
            pages_sharing=c.pages_stable - c.frames_stable,
            pages_unshared=c.pages_settled,
            zero_pages=self._pool.count().zero_pages,
            pages_dirty=c.pages_changed,
        )
