"""Images as a guest holds them in memory, page by page, before it is known where they are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.guests.aslr import SYSTEMS
from pagedup.guests.spec import pages_of
from pagedup.memory.layouts.names import BASE_BITS, PAGE, NameKind, file_name, kind_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.guests.images import Image
    from pagedup.guests.numbering import Numbering
    from pagedup.guests.real_files import RealFiles
    from pagedup.guests.spec import GuestSpec, ImageSet, Role

TEXT, RDATA, DATA = range(3)
_KINDS = {"text": TEXT, "rdata": RDATA, "data": DATA}
# Where the first real image lies if 0 is drawn, in 32 and 64 bits: round addresses in the areas that systems use. What
# is equal in two guests depends on the differences of addresses alone, so where an area begins does not matter.
_AREAS: dict[int, dict[Role, int]] = {
    32: {"executable": 0x0100_0000, "library": 0x5000_0000, "driver": 0x8800_0000, "kernel": 0x8200_0000},
    64: {
        "executable": 0x7FF6_0000_0000,
        "library": 0x7FF8_0000_0000,
        "driver": 0xFFFF_F880_0000_0000,
        "kernel": 0xFFFF_F800_0000_0000,
    },
}
_MADE_UP = 1 << 40  # keys of the streams that images are made up from: not those of anonymous memory


@dataclass(frozen=True, slots=True)
class RealPlace:
    """A real image: its number among the real files, and its address if the number drawn for it is 0.

    Without ASLR it lies where it was linked for, as it always does if it cannot be relocated.
    """

    image: int
    start: int


@dataclass(frozen=True, slots=True, eq=False)
class LoadedImage:
    """One image; arrays have an item a page.

    number: among the guest's images. kinds: TEXT, RDATA or DATA. pages: where in the image the page lies; there may be
    holes between sections. names: of its content, but for the base. moves: whether it holds base relocations, so
    that the base completes the name. filled: whether each process's loader writes other images' addresses into it (or,
    on systems that relocate in each process, relocations), so that each process has its own copy, and there is no
    shared one. written: whether a process writes it, and so has its own.
    """

    name: str
    number: int
    kinds: NDArray[np.uint8]
    pages: NDArray[np.uint64]
    names: NDArray[np.uint64]
    moves: NDArray[np.bool_]
    filled: NDArray[np.bool_]
    written: NDArray[np.bool_]
    real: RealPlace | None = None

    @property
    def n_pages(self) -> int:
        """How much of the address space it takes."""
        return len(self.names)

    def filled_names(self) -> NDArray[np.uint64]:
        """The names of what the loader of a process fills in, but for the bases that it fills in."""
        return _image_names(NameKind.IMPORTS, self.number, self.pages[self.filled])


def _image_names(kind: NameKind, number: int, pages: NDArray[np.uint64]) -> NDArray[np.uint64]:
    first = np.uint64(file_name(number, 0) - kind_bits(NameKind.FILE) + kind_bits(kind))
    names: NDArray[np.uint64] = first + (pages << np.uint64(BASE_BITS))
    return names


def make_up(images: ImageSet, index: int, numbering: Numbering, spec: GuestSpec) -> LoadedImage:
    """Image number `index` of a set: which pages hold what is drawn at random, the same for every guest and seed."""
    field = f"images.{images.name}"
    counts = [pages_of(size, field) for size in (images.text, images.rdata, images.data)]
    n_pages = sum(counts)
    shares_of = (images.text_fixups, images.rdata_fixups, images.data_fixups, images.imports)
    number = numbering.image((spec.system, images.name, images.role, index, *counts, *shares_of), n_pages)
    draws = np.empty(n_pages, np.uint64)
    dedupcore.random_numbers(_MADE_UP + number, draws)
    shares = as_shares(draws)
    kinds = np.repeat(np.arange(3, dtype=np.uint8), counts)
    fixups = shares < np.array(shares_of[:3])[kinds]
    user = images.role in ("library", "executable")
    filled = np.zeros(n_pages, np.bool_)
    if user:
        filled = (kinds == RDATA) & (shares >= 1 - images.imports)
        if SYSTEMS[spec.system].relocates_in_process:
            filled |= fixups
    written = np.zeros(n_pages, np.bool_)
    written[n_pages - round(images.data_written * counts[DATA]) :] = True
    filled &= ~written
    pages = np.arange(n_pages, dtype=np.uint64)
    moves = fixups & ~filled & ~written
    names = np.where(moves, _image_names(NameKind.REBASED, number, pages), _image_names(NameKind.FILE, number, pages))
    return LoadedImage(images.name, number, kinds, pages, names, moves, filled, written)


class AddressSpace:
    """Lays the real images of a guest one behind the other, as its loader does; those of one role move together."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, Role], int] = {}

    def take(self, image: Image, role: Role) -> int:
        """The address of the next image, if the number drawn is 0."""
        key = (image.address_bits, role)
        start = self._ends.get(key, _AREAS[image.address_bits][role])
        self._ends[key] = start + -(-image.n_pages * PAGE // image.granularity) * image.granularity
        return start


def read_real(
    images: ImageSet, index: int, numbering: Numbering, spec: GuestSpec, files: RealFiles, addresses: AddressSpace
) -> LoadedImage:
    """Real image number `index` as the guest's system loads it."""
    image = files.images[index]
    kinds = np.full(image.n_pages, 255, np.uint8)
    for section in image.sections:
        kinds[section.first_page : section.first_page + section.n_pages] = _KINDS[section.kind]
    there = kinds != 255
    kinds = kinds[there]
    fixups, imports = files.fixups(index)[there], image.imports[there]
    user = images.role in ("library", "executable")
    filled = np.zeros(len(kinds), np.bool_)
    if user:
        filled = imports | fixups if SYSTEMS[spec.system].relocates_in_process else imports.copy()
    data = np.flatnonzero((kinds == DATA) & ~filled)
    written = np.zeros(len(kinds), np.bool_)
    written[data[len(data) - round(images.data_written * len(data)) :]] = True
    return LoadedImage(
        images.name,
        numbering.image(("real", files.key(index)), image.n_pages),
        kinds,
        np.flatnonzero(there).astype(np.uint64),
        files.names(index)[there],
        fixups & ~filled & ~written,
        filled,
        written,
        RealPlace(index, addresses.take(image, images.role)),
    )


def as_shares(draws: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Random numbers as float64 from 0 to 1 (1 excluded)."""
    return (draws >> np.uint64(11)).astype(np.float64) / (1 << 53)
