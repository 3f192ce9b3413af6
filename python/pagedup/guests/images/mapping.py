"""What the readers of PE and ELF share: the bytes of an image before it is relocated, and checks of what it claims."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from pagedup.guests.images.content import OpenContent
from pagedup.guests.images.error import ImageError
from pagedup.guests.images.image import Piece, Protection, Section
from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_NAMES = 1 << 16  # what one image imports from; a file may make up more of the same few bytes
_MOST_EMPTY = 256 << 20  # bytes of an image that its file need not have: large .bss, and gaps between segments


@dataclass(frozen=True, slots=True)
class Mapping:
    """An image whose `pieces` are known: ascending and apart."""

    file: OpenContent
    pieces: Sequence[Piece]
    size: int

    def read(self, at: int, size: int, what: str) -> bytes:
        """Bytes of the image; what the file does not have is zero. Raises ImageError if the image ends before."""
        if at + size > self.size:
            raise ImageError(
                f"{self.file.content.name}: {what} takes {size:,} bytes at address {at:#x} of the image, which ends at"
                f" {self.size:#x}"
            )
        if size > self.file.content.size:
            raise ImageError(
                f"{self.file.content.name}: {what} at address {at:#x} of the image takes {size:,} bytes, more than the"
                f" file's {self.file.content.size:,}"
            )
        out = bytearray(size)
        room = memoryview(out)
        first = bisect_right(self.pieces, at, key=lambda piece: piece.at) - 1  # the one before may reach here
        for piece in islice(self.pieces, max(0, first), None):
            if piece.at >= at + size:
                break
            start, end = max(at, piece.at), min(at + size, piece.at + piece.size)
            if start < end:
                self.file.read_into(piece.offset + start - piece.at, room[start - at : end - at])
        return bytes(out)

    def text(self, at: int, what: str) -> str:
        """A name that ends with a zero byte; of at most 4096 bytes."""
        raw = self.read(at, min(PAGE, max(1, self.size - at), self.file.content.size), what)
        name, end, _ = raw.partition(b"\0")
        if not end:
            raise ImageError(f"{self.file.content.name}: {what} at address {at:#x} of the image does not end")
        return name.decode("utf-8", "backslashreplace")


def check_size(name: str, field: str, offset: int, image_size: int, file_size: int) -> None:
    """Raise ImageError for an image so much larger than its file that it would fill memory with nothing."""
    if image_size - file_size > _MOST_EMPTY:
        raise ImageError(
            f"{name}: {field} at offset {offset:#x} makes an image of {image_size:,} bytes of a file of"
            f" {file_size:,}; at most {_MOST_EMPTY >> 20} MiB more than the file are taken"
        )


def pages_of(at: NDArray[np.int64], n_pages: int, size: int) -> NDArray[np.bool_]:
    """Pages (n_pages,) bool that hold fields of `size` bytes at these bytes of the image."""
    mask = np.zeros(n_pages, np.bool_)
    mask[at // PAGE] = True
    mask[(at + size - 1) // PAGE] = True
    return mask


def section_of(name: str, executable: bool, writable: bool, at: int, size: int) -> Section:
    """A section by its protection; `at` and `size` in bytes."""
    first = at // PAGE
    kind: Protection = "text" if executable else "data" if writable else "rdata"
    return Section(name, kind, first, -(-(at + size) // PAGE) - first)
