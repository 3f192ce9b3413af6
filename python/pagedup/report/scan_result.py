"""What one scan found: everything that its reports show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pagedup.memory import Apart
from pagedup.sharing import (
    Explanation,
    GuestSummary,
    Isolation,
    KsmPrediction,
    LargePageCost,
    Lifetime,
    NumaSaving,
    RegionSummary,
    SharedContent,
    Summary,
    Volatility,
)

if TYPE_CHECKING:
    from pagedup.guests.images import Row as RelocationRow


@dataclass(frozen=True, slots=True)
class ScannedGuest:
    """One guest: its name, the source as the user gave it, what kind that is, and how many bytes were scanned.

    `apart`: bytes that belong to it and were not scanned, by reason.
    """

    name: str
    source: str
    kind: str
    detail: str
    bytes: int
    domain: str | None
    apart: Mapping[Apart, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The answers for each page size, ascending. `per_guest` and `most_shared` are of the smallest one.

    What follows `work` is None, or empty, where it was not asked for or makes no sense. `regions` count pages of the
    smallest size.
    """

    guests: Sequence[ScannedGuest]
    page_sizes: Sequence[Summary]
    per_guest: Sequence[GuestSummary]
    most_shared: Sequence[SharedContent]
    work: Mapping[str, int]
    ksm: KsmPrediction | None = None
    large_pages: LargePageCost | None = None
    isolation: Isolation | None = None
    numa: NumaSaving | None = None
    volatile: Volatility | None = None
    lifetime: Lifetime | None = None
    regions: Sequence[RegionSummary] = ()
    explanation: Explanation | None = None
    relocation: Sequence[RelocationRow] = ()

    @property
    def page_size(self) -> int:
        """The smallest page size, in bytes."""
        return self.page_sizes[0].page_size

    @property
    def bytes(self) -> int:
        """The memory of all guests."""
        return sum(guest.bytes for guest in self.guests)

    @property
    def apart(self) -> dict[Apart, int]:
        """The bytes counted apart of all guests, by reason; those only that have some."""
        sums: dict[Apart, int] = {}
        for guest in self.guests:
            for reason, size in guest.apart.items():
                if size:
                    sums[reason] = sums.get(reason, 0) + size
        return sums
