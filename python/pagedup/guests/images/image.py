"""An image: what the loader maps of a binary, page by page, at any base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from pagedup.guests.images.content import Content
from pagedup.guests.images.fixups import Fixups
from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

Protection = Literal["text", "rdata", "data"]
"""Executable, read-only, writable."""


@dataclass(frozen=True, slots=True)
class Section:
    """Pages `first_page` up to but not including `first_page + n_pages` of an image, alike in protection."""

    name: str
    kind: Protection
    first_page: int
    n_pages: int


@dataclass(frozen=True, slots=True)
class Piece:
    """`size` bytes from `offset` of the file on lie at byte `at` of the image."""

    at: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A binary in memory; for any other file, its pages in the page cache.

    name: the file's path, unique among the images that were loaded together.
    kind: "pe", "elf" or "file".
    machine: "x86", "x86-64", "aarch64", ...; "" for a file.
    preferred_base: the address for which the file was linked.
    n_pages: pages of 4096 bytes from the image's first byte to its last.
    sections: by address; together all pages that the loader maps (an ELF image may have holes between segments).
    relocatable: whether it can be at another base than the preferred one.
    granularity: every base is a multiple of it, in bytes.
    fixups: (n_pages,) bool: the page's bytes depend on the base.
    imports: (n_pages,) bool: the loader writes addresses of other images into the page, or others that the file alone
        does not tell; `pages()` leaves them as the file has them. Not counted is what Windows' loader writes besides:
        the security cookie, the index of thread-local storage, pointers for Control Flow Guard.
    imported: names of the images that it imports from, as it writes them.
    flaw: why a file that looks like a binary was taken as a plain file by load_tree(), else "".
    """

    name: str
    kind: Literal["pe", "elf", "file"]
    machine: str
    preferred_base: int
    n_pages: int
    sections: tuple[Section, ...]
    relocatable: bool
    granularity: int
    fixups: NDArray[np.bool_]
    imports: NDArray[np.bool_]
    imported: tuple[str, ...]
    address_bits: int
    content: Content = field(repr=False)
    pieces: Sequence[Piece] = field(repr=False)
    fields: Fixups = field(repr=False)
    flaw: str = ""

    def pages(self, base: int | None = None) -> NDArray[np.uint8]:
        """The bytes of each page at `base` (None: the preferred one), as the loader makes them: (n_pages, 4096) uint8.

        They are read from the file each time. Raises ValueError for a base at which the image cannot be, ImageError (a
        ValueError, too) if the file has shrunk, and OSError if it cannot be read.
        """
        base = self.preferred_base if base is None else self.check_base(base)
        out = np.zeros((self.n_pages, PAGE), np.uint8)
        self.fill(out)
        self.fields.apply(out.reshape(-1), (base - self.preferred_base) % (1 << 64))
        return out

    def fill(self, out: NDArray[np.uint8]) -> None:
        """Write the file's bytes, not relocated, over zero bytes: (n_pages, 4096) uint8."""
        room = out.reshape(-1).data
        with self.content.opened() as file:
            for piece in self.pieces:
                file.read_into(piece.offset, room[piece.at : piece.at + piece.size])

    def check_base(self, base: int) -> int:
        """`base`. Raises ValueError if the image cannot be there."""
        if base == self.preferred_base:
            return base
        if not self.relocatable:
            what = "is a plain file" if self.kind == "file" else "cannot be relocated"
            raise ValueError(f"{self.name}: {what}; the only base is {self.preferred_base:#x}, not {base:#x}")
        if base % self.granularity:
            raise ValueError(f"{self.name}: the base {base:#x} is no multiple of {self.granularity:#x}")
        if not 0 <= base <= (1 << self.address_bits) - self.n_pages * PAGE:
            raise ValueError(
                f"{self.name}: the base {base:#x} and {self.n_pages:,} pages are not in {self.address_bits} bits"
            )
        return base
