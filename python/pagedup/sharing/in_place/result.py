"""What sharing in place did, and what it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagedup.sharing.in_place.backing import Backing


@dataclass(frozen=True, slots=True)
class Left:
    """Memory that was left as it is: so many bytes, and why, in words."""

    bytes: int
    why: str


class InPlace:
    """What one call of `share_in_place` did. Counts are of pages of `page_size` bytes, or of mappings.

    Attributes:
        page_size: bytes of a page.
        pages: whole pages that were looked at; what `left` tells of memory that cannot be replaced is not in it.
        zero_pages: pages of zeros that were given back to the kernel; such as never had memory do not count.
        shared_pages: pages that were replaced by a mapping of a stored copy, the first of each content included.
        stored_pages: copies that were stored for it. What earlier calls stored is used again.
        huge_pages_split: huge pages that were split into small ones.
        mappings: what the process has now, of the kernel's ranges of addresses (lines of /proc/self/maps).
        max_mappings: how many it may have: vm.max_map_count.
        mappings_wanted: what vm.max_map_count must be at least, so that nothing is left for it.
        left: memory that was left as it is, and why.
    """

    def __init__(
        self,
        *,
        page_size: int,
        pages: int,
        zero_pages: int,
        shared_pages: int,
        stored_pages: int,
        huge_pages_split: int,
        mappings: int,
        max_mappings: int,
        mappings_wanted: int,
        left: Sequence[Left],
        backings: Sequence[Backing],
    ) -> None:
        self.page_size = page_size
        self.pages = pages
        self.zero_pages = zero_pages
        self.shared_pages = shared_pages
        self.stored_pages = stored_pages
        self.huge_pages_split = huge_pages_split
        self.mappings = mappings
        self.max_mappings = max_mappings
        self.mappings_wanted = mappings_wanted
        self.left = tuple(left)
        self._backings = tuple(backings)

    @property
    def saved_pages(self) -> int:
        """Pages of memory that the call freed, less those that it took; fewer than 0 if it took more."""
        return self.zero_pages + self.shared_pages - self.stored_pages

    @property
    def saved_bytes(self) -> int:
        """The same in bytes."""
        return self.saved_pages * self.page_size

    def reclaim(self) -> int:
        """Free the stored copies that the arrays of this call use no more, each page having been written; bytes freed.

        Stop threads that change the process's mappings meanwhile: that resize one of the arrays, or fork. Writers may
        go on. Frees nothing that was stored before the process last forked, since the child may still use it: not even
        when the child has ended, nor in the child. Once the arrays are gone there is nothing to free.
        """
        return sum(backing.reclaim() for backing in self._backings)

    def __repr__(self) -> str:
        left = sum(left.bytes for left in self.left)
        return (
            f"<InPlace: {self.saved_bytes:,} bytes saved; {self.zero_pages:,} zero pages,"
            f" {self.shared_pages:,} others on {self.stored_pages:,} stored copies; {left:,} bytes left>"
        )
