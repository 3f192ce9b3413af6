"""Images as a guest holds them in memory, page by page, before it is known where they are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.guests.aslr import SYSTEMS
from pagedup.guests.spec import pages_of
from pagedup.memory.layouts.names import BASE_BITS, NameKind, file_name, kind_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.guests.numbering import Numbering
    from pagedup.guests.spec import GuestSpec, ImageSet

TEXT, RDATA, DATA = range(3)
_MADE_UP = 1 << 40  # keys of the streams that images are made up from: not those of anonymous memory


@dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """One image; arrays have an item a page.

    kinds: TEXT, RDATA or DATA. names: of its content, but for the base. moves: whether it holds base relocations, so
    that the base completes the name. filled: whether each process's loader writes other images' addresses into it (or,
    on systems that relocate in each process, relocations), so that each process has its own copy, and there is no
    shared one. written: whether a process writes it, and so has its own.
    """

    name: str
    kinds: NDArray[np.uint8]
    names: NDArray[np.uint64]
    moves: NDArray[np.bool_]
    filled: NDArray[np.bool_]
    written: NDArray[np.bool_]

    @property
    def n_pages(self) -> int:
        """How much of the address space it takes."""
        return len(self.names)

    def filled_names(self) -> NDArray[np.uint64]:
        """The names of what the loader of a process fills in, but for the bases that it fills in."""
        plain = self.names[self.filled]
        return (plain & np.uint64((1 << 60) - 1)) | np.uint64(kind_bits(NameKind.IMPORTS))


def make_up(images: ImageSet, index: int, numbering: Numbering, spec: GuestSpec) -> LoadedImage:
    """Image number `index` of a set: which pages hold what is drawn at random, the same for every guest and seed."""
    field = f"images.{images.name}"
    counts = [pages_of(size, field) for size in (images.text, images.rdata, images.data)]
    n_pages = sum(counts)
    number = numbering.image((spec.system, images.name, index), n_pages)
    draws = np.empty(n_pages, np.uint64)
    dedupcore.random_numbers(_MADE_UP + number, draws)
    shares = as_shares(draws)
    kinds = np.repeat(np.arange(3, dtype=np.uint8), counts)
    fixups = shares < np.array((images.text_fixups, images.rdata_fixups, images.data_fixups))[kinds]
    user = images.role in ("library", "executable")
    filled = np.zeros(n_pages, np.bool_)
    if user:
        filled = (kinds == RDATA) & (shares >= 1 - images.imports)
        if SYSTEMS[spec.system].relocates_in_process:
            filled |= fixups
    written = np.zeros(n_pages, np.bool_)
    written[n_pages - round(images.data_written * counts[DATA]) :] = True
    filled &= ~written
    pages = np.arange(n_pages, dtype=np.uint64) << np.uint64(BASE_BITS)
    moves = fixups & ~filled & ~written
    kind = np.where(moves, kind_bits(NameKind.REBASED), kind_bits(NameKind.FILE)).astype(np.uint64)
    names = np.uint64(file_name(number, 0) ^ kind_bits(NameKind.FILE)) + pages | kind
    return LoadedImage(images.name, kinds, names, moves, filled, written)


def as_shares(draws: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Random numbers as float64 from 0 to 1 (1 excluded)."""
    return (draws >> np.uint64(11)).astype(np.float64) / (1 << 53)
