"""Where in a guest its bytes lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # collections.abc has Buffer only from Python 3.12 on
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from dedupcore._dedupcore import BufferLike


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes that lie in a guest from `address` (in bytes) on."""

    address: int
    buffer: Buffer


@dataclass(frozen=True, slots=True)
class ZeroExtent:
    """`size` bytes from `address` on that are zero and stored nowhere, such as a hole of a sparse file."""

    address: int
    size: int


class Contents(Protocol):
    """Where the bytes of contents are found that have names."""

    def find(self, names: NDArray[np.uint64]) -> Sequence[tuple[BufferLike, int, int]]:
        """For these names (uint64, none of them 0) a buffer, an offset into it, and how many contents follow there.

        Only of contents that were found more than once are the bytes kept; KeyError for another.
        """


@dataclass(frozen=True, slots=True, eq=False)
class NamedExtent:
    """Pages of `page` bytes from `address` on, of which only content names are known: one uint64 a page.

    Two pages have equal names if and only if they have equal bytes; 0 is a zero page. That holds among all pages whose
    extents have the same `contents`; others cannot be compared with these.
    """

    address: int
    page: int
    names: NDArray[np.uint64]
    contents: Contents

    @property
    def size(self) -> int:
        """Bytes from `address` on that it stands for."""
        return len(self.names) * self.page


AnyExtent = Extent | ZeroExtent | NamedExtent


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a guest's addresses, start <= address < end, and what it is to a person: a file, [heap], pc.ram."""

    start: int
    end: int
    name: str
