"""What one scan found: everything that its reports show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pagedup.sharing import GuestSummary, SharedContent, Summary


@dataclass(frozen=True, slots=True)
class ScannedGuest:
    """One guest: its name, the source as the user gave it, what kind that is, and how many bytes were scanned."""

    name: str
    source: str
    kind: str
    detail: str
    bytes: int
    domain: str | None


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The answers for each page size, ascending. `per_guest` and `most_shared` are of the smallest one."""

    guests: Sequence[ScannedGuest]
    page_sizes: Sequence[Summary]
    per_guest: Sequence[GuestSummary]
    most_shared: Sequence[SharedContent]
    work: Mapping[str, int]

    @property
    def page_size(self) -> int:
        """The smallest page size, in bytes."""
        return self.page_sizes[0].page_size

    @property
    def bytes(self) -> int:
        """The memory of all guests."""
        return sum(guest.bytes for guest in self.guests)
