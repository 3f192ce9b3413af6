"""KSM, as Linux has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pagedup.sharing.policies.scanner import Policy, WakingScanner, check_pace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dedupcore
    from pagedup.sharing.frame_pool import PoolGuest

_PAGE = 4096  # bytes; KSM knows no other page on x86-64, and a content name stands for one
_RMAP_ITEM = 64  # bytes that KSM keeps for each page it scans (Documentation/admin-guide/mm/ksm.rst)


class KsmScanCounts(NamedTuple):
    """What /sys/kernel/mm/ksm would show, in pages unless it says otherwise; and the work that KSM would have done.

    A write or a release counts here at once; in the kernel its page stays in the counters until KSM visits it again.
    At the end of a full scan both are the same, unless contents have more copies than max_page_sharing and some go.

    Attributes:
        pages_shared: write-protected pages that stand for several.
        pages_sharing: how many sites more they have: what is saved, zero pages apart.
        pages_unshared: in the unstable tree: settled, but unique.
        pages_volatile: that KSM knows and that are none of these: changing, or left out by smart_scan.
        ksm_zero_pages: mapped to the zero page by use_zero_pages.
        full_scans: passes through all guests.
        pages_scanned: visits, by which pages_to_scan is counted.
        pages_skipped: visits that smart_scan has left out.
        general_profit: bytes freed less 64 for each page that KSM knows.
        pages_checksummed: visits in which the page is read whole.
        stable_searches, unstable_searches: walks down the trees, each a comparison of pages a level.
    """

    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    pages_volatile: int
    ksm_zero_pages: int
    full_scans: int
    pages_scanned: int
    pages_skipped: int
    general_profit: int
    pages_checksummed: int
    stable_searches: int
    unstable_searches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ksm(Policy):
    """Share as the kernel's KSM does: Linux 6.18, mm/ksm.c, with its defaults.

    A page must be unchanged since KSM's last visit to be looked for, first among the shared pages, then among others
    that are settled; so nothing is shared before the second pass, new copies of a shared page included.

    Attributes:
        pages_to_scan: visits each time that KSM wakes.
        sleep_millisecs: between two times, in simulated time; that visits take time is left out.
        max_page_sharing: sites that one shared page may have, 2 or more.
        use_zero_pages: map zero pages to the kernel's zero page.
        smart_scan: visit pages that found nothing more and more rarely.

    Raises ValueError for settings out of range.
    """

    PACE: ClassVar[tuple[str, ...]] = ("pages_to_scan", "sleep_millisecs")

    pages_to_scan: int = 100
    sleep_millisecs: float = 20
    max_page_sharing: int = 256
    use_zero_pages: bool = False
    smart_scan: bool = True

    def __post_init__(self) -> None:
        check_pace(self.pages_to_scan, self.sleep_millisecs)
        if not 2 <= self.max_page_sharing < 2**31:
            raise ValueError(f"max_page_sharing is {self.max_page_sharing}; it must be 2 to 2**31 - 1")

    def scanner(self, pool: dedupcore.Pool, guests: Sequence[PoolGuest]) -> _KsmScanner:
        """For FramePool."""
        pool.set_policy(
            "ksm",
            max_page_sharing=self.max_page_sharing,
            use_zero_pages=self.use_zero_pages,
            smart_scan=self.smart_scan,
        )
        return _KsmScanner(pool, self.pages_to_scan, self.sleep_millisecs)


class _KsmScanner(WakingScanner):
    def counts(self) -> KsmScanCounts:
        """See FramePool.scan_counts."""
        c = self._pool.scan_count()
        zero = self._pool.count().zero_pages
        sharing = c.pages_stable - c.frames_stable
        return KsmScanCounts(
            pages_shared=c.frames_stable,
            pages_sharing=sharing,
            pages_unshared=c.pages_settled,
            pages_volatile=c.pages_items - c.pages_stable - c.pages_settled,
            ksm_zero_pages=zero,
            full_scans=c.full_scans,
            pages_scanned=c.pages_scanned,
            pages_skipped=c.pages_skipped,
            general_profit=(sharing + zero) * _PAGE - c.pages_items * _RMAP_ITEM,
            pages_checksummed=c.pages_hashed,
            stable_searches=c.stable_searches,
            unstable_searches=c.unstable_searches,
        )
