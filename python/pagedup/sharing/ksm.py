"""What Linux KSM would make of the memory: its own counters, its net profit, and how long and how hard it would work.

The rules are those of mm/ksm.c of Linux 6.18; tests compare them with the running kernel's counters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.sharing.duplicates import Duplicates

_PAGE = 4096  # bytes; KSM knows no other page on x86-64
_RMAP_ITEM = 64  # bytes that KSM keeps for each page it scans (Documentation/admin-guide/mm/ksm.rst)
_SITES = 256  # max_page_sharing as it ships: so many sites share one copy, the first included
_SCANS = 2  # the first takes checksums, the second merges what kept them

# Settings as they ship, and those of the advisor `scan-time` (mm/ksm.c).
_SLEEP = 0.020  # seconds; sleep_millisecs
_PAGES_TO_SCAN = 100
_ADVISOR_SECONDS = 200  # advisor_target_scan_time, of one scan
_ADVISOR_PAGES = (500, 30_000)  # advisor_min_pages_to_scan, advisor_max_pages_to_scan
_ADVISOR_CPU = 0.70  # advisor_max_cpu

SCAN_COST = 3.5e-6
"""Seconds of CPU that ksmd takes to scan a page: the mean of the two scans that merge all, and of later scans.

Measured by `python -m benchmarks.scan_cost` on one machine (AMD EPYC, Linux 6.18). Another may take half or twice as
long.
"""


@dataclass(frozen=True, slots=True)
class KsmCounters:
    """What /sys/kernel/mm/ksm would show once nothing more merges, under one choice of settings.

    All count pages, but general_profit: bytes, less than 0 where KSM's bookkeeping takes more than sharing frees.
    pages_unshared counts with smart_scan off; smart_scan leaves some of these pages out of the count.
    """

    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    pages_volatile: int
    ksm_zero_pages: int
    general_profit: int


@dataclass(frozen=True, slots=True)
class KsmPace:
    """One rate of scanning: pages per wake-up (every 20 ms), seconds until all is merged, and the share of a CPU.

    Seconds are at least these: the kernel rounds the 20 ms up to its clock ticks.
    """

    pages_to_scan: int
    seconds: float
    cpu: float


@dataclass(frozen=True, slots=True)
class KsmPrediction:
    """What KSM would show for `pages` mergeable pages, and how fast.

    as_shipped: with use_zero_pages=0 and max_page_sharing=256. zero_pages: with use_zero_pages=1 and no limit.
    default_pace: 100 pages per 20 ms. advised_pace: the pages_to_scan that meets the aims of KSM's own advisor,
    `scan-time`: a scan in 200 s, 500 to 30,000 pages per wake-up, at most 70 % of a CPU. The advisor itself wanders.
    """

    pages: int
    as_shipped: KsmCounters
    zero_pages: KsmCounters
    default_pace: KsmPace
    advised_pace: KsmPace


def predict_ksm(duplicates: Duplicates, *, volatile: NDArray[np.bool_] | None = None) -> KsmPrediction:
    """What KSM would make of these frames, were all of them mergeable.

    `volatile`, bool (n_frames,): frames that changed while they were looked at, which KSM would not merge. KSM knows no
    domains: give a grouping without them, or it is told for a KSM that did. Raises ValueError unless the frames are of
    4096 bytes, and `volatile` has one item a frame.
    """
    if duplicates.frame_size != _PAGE:
        raise ValueError(f"frames are of {duplicates.frame_size:,} bytes; KSM merges pages of {_PAGE:,} bytes")
    n_frames = duplicates.n_frames
    if volatile is not None and volatile.shape != (n_frames,):
        raise ValueError(f"volatile has the shape {volatile.shape} for {n_frames:,} frames; it must be ({n_frames},)")
    n_volatile = 0 if volatile is None else int(np.count_nonzero(volatile))
    copies: NDArray[np.integer] = duplicates.counts().copies
    if volatile is not None and n_volatile:
        copies = copies.astype(np.int64)
        copies -= np.bincount(duplicates.canonical[volatile], minlength=n_frames)
    zeros = sorted({zero for zero in duplicates.zero_canonicals() if zero is not None})
    n_zero = int(copies[zeros].sum())
    others = copies.copy()
    others[zeros] = 0
    return KsmPrediction(
        n_frames,
        # Zero pages are pages like any other here, and each keeps its entry of the bookkeeping.
        _counters(copies, _SITES, n_volatile, 0, n_frames),
        # A page that maps the kernel's zero page is none of KSM's any more: the next scan frees its entry.
        _counters(others, None, n_volatile, n_zero, n_frames - n_zero),
        _pace(n_frames, _PAGES_TO_SCAN),
        _pace(n_frames, _advised_pages(n_frames)),
    )


def _counters(copies: NDArray[np.integer], limit: int | None, volatile: int, zero: int, entries: int) -> KsmCounters:
    """Of classes with so many copies each, where at most `limit` sites share one page."""
    classes = np.bincount(copies)  # how many have so many copies: millions of classes have few different numbers
    numbers = np.flatnonzero(classes)
    classes = classes[numbers]
    full, rest = np.divmod(numbers, limit) if limit else (np.zeros_like(numbers), numbers)
    # A page that finds every copy of its content full is unshared, until another such page comes.
    shared = int((classes * (full + (rest > 1))).sum())
    unshared = int(classes[rest == 1].sum())
    sharing = int((classes * numbers).sum()) - shared - unshared
    profit = (sharing + zero) * _PAGE - entries * _RMAP_ITEM
    return KsmCounters(shared, sharing, unshared, volatile, zero, profit)


def _pace(pages: int, pages_to_scan: int) -> KsmPace:
    busy = pages * SCAN_COST
    scan = math.ceil(pages / pages_to_scan) * _SLEEP + busy
    return KsmPace(pages_to_scan, _SCANS * scan, busy / scan if scan else 0.0)


def _advised_pages(pages: int) -> int:
    """Pages per wake-up at which a scan takes the advisor's target time, within its bounds."""
    least, most = _ADVISOR_PAGES
    most = min(most, int(_SLEEP * _ADVISOR_CPU / (1 - _ADVISOR_CPU) / SCAN_COST))
    asleep = _ADVISOR_SECONDS - pages * SCAN_COST
    wanted = math.ceil(pages * _SLEEP / asleep) if asleep > 0 else most
    return min(max(wanted, least), most)
