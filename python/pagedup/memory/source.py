"""One guest's memory, wherever it comes from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from pagedup.memory.closing import Closing

if TYPE_CHECKING:
    from pagedup.memory.extent import AnyExtent

Progress = Callable[[str, int, int], None]
"""Called with the name of the phase, how much of it is done, and how much there is."""


class SourceTextError(ValueError):
    """The texts that name the sources are wrong in themselves: malformed, of no known form, or two for one source."""


class Apart(StrEnum):
    """Why memory of a guest is counted apart from what is scanned: sharing identical pages cannot save it."""

    ABSENT = "absent"
    """Never given memory: never touched, or not in the dump."""
    SWAPPED = "swapped"
    ZERO_MAPPED = "zero_mapped"
    """Mapped to the kernel's zero page: read, never written."""
    ALREADY_SHARED = "already_shared"
    """Private, but the very page is in more than one page table: since a fork, or merged."""
    SHARED_MAPPING = "shared_mapping"
    """Pages of files and of shared memory: one copy already, whoever maps them."""
    HUGETLB = "hugetlb"
    """From the pool of huge pages, which the kernel never shares."""
    NOT_MERGEABLE = "not_mergeable"
    """Not marked MADV_MERGEABLE, where only such memory was asked for."""
    PARTIAL_PAGE = "partial_page"
    """The ends of a segment of a dump that fill no whole page."""


class Source(Closing):
    """The memory of one guest, open for reading.

    `name` is unique among the sources opened together, `text` is what the user gave, `size` counts the bytes of memory
    that are scanned (holes of a sparse file included), and `extents` says where they lie. `apart` counts the bytes that
    belong to the guest but are not scanned, by reason. `detail` tells a person more, such as a process's command.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, text: str, size: int, detail: str = "") -> None:
        self.name = name
        self.text = text
        self.size = size
        self.detail = detail
        self.extents: list[AnyExtent] = []
        self.apart: dict[Apart, int] = {}

    @abstractmethod
    def check(self) -> None:
        """Raise OSError when what was read since opening cannot be trusted. Call it after the last byte was read."""

    @abstractmethod
    def close(self) -> None:
        """Give the memory back; the extents' buffers end with it. Closing twice does nothing."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} from {self.text!r}, {self.size:,} bytes>"
