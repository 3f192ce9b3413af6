"""Where in a guest its bytes lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # collections.abc has Buffer only from Python 3.12 on
    from typing_extensions import Buffer


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


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a guest's addresses, start <= address < end, and what it is to a person: a file, [heap], pc.ram."""

    start: int
    end: int
    name: str
