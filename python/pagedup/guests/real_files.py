"""Real files in simulated guests: their pages get names by their bytes, and the names can be turned back into these."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pagedup.guests.aslr import SYSTEMS
from pagedup.guests.spec import SpecError
from pagedup.memory.layouts import NameKind
from pagedup.memory.layouts.names import kind_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.guests.images import Image
    from pagedup.guests.spec import GuestSpec, ImageSet

_NUMBER = np.uint64((1 << 60) - 1)


class RealFiles:
    """All real files that specifications name, read once; equal pages of any of them get equal names.

    images: in the order of the specifications and of their paths. `of(path)` are the numbers of those of one path, as a
    loader maps them; `cached(path)` those of the same files, page by page as they lie on disk.
    """

    def __init__(self, specs: Sequence[GuestSpec]) -> None:
        """Raises OSError for a path that cannot be read, ValueError for a corrupt binary, both with its name."""
        self.images: list[Image] = []
        self._of = {path: self._take(load_images(path)) for path in _image_paths(specs)}
        self._cached = {path: self._take(load_cached(path)) for path in _cache_paths(specs)}
        if self.images:
            from pagedup.guests.images import identities

            self._identities = identities(self.images)

    def _take(self, found: list[Image]) -> range:
        self.images += found
        return range(len(self.images) - len(found), len(self.images))

    def of(self, path: str) -> range:
        """The numbers of the images of a path that a specification names."""
        return self._of[path]

    def cached(self, path: str) -> range:
        """The numbers of the files of a path that a specification names for its file cache."""
        return self._cached[path]

    def names(self, image: int) -> NDArray[np.uint64]:
        """The names of an image's pages at its preferred base; pages with relocations have none yet, and are 0."""
        own = self._identities.of(image)
        names = self._identities.id[own].astype(np.uint64) | np.uint64(kind_bits(NameKind.REAL))
        names[self._identities.zero[own] | self._identities.fixups[own]] = 0
        return names

    def fixups(self, image: int) -> NDArray[np.bool_]:
        """Which of its pages depend on the base."""
        mask: NDArray[np.bool_] = self._identities.fixups[self._identities.of(image)]
        return mask

    def content_at(self, image: int, base: int) -> NDArray[np.uint64]:
        """Uint64 ndarray (n_pages, 2): two pages with relocations, at their bases, are equal if both numbers are."""
        own = self._identities.of(image)
        return np.stack((self._identities.id[own].astype(np.uint64), self._identities.parameter(own, base)), axis=1)

    def key(self, image: int) -> bytes:
        """Equal for two images all of whose pages are equal at every base."""
        return self._identities.id[self._identities.of(image)].tobytes()

    def digest(self) -> str:
        """BLAKE3 of all pages, in hexadecimal: names of other files mean other things."""
        from blake3 import blake3  # only here: most guests have no real files

        hasher = blake3(max_threads=blake3.AUTO)
        for image in self.images:
            hasher.update(image.pages().data.cast("B"))
        return hasher.hexdigest()

    def first_pages(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each number of a REAL name an image, and a page of it, that holds the content."""
        ids, items = np.unique(self._identities.id, return_index=True)
        assert len(ids) == self._identities.n_ids
        image = np.searchsorted(self._identities.first, items, side="right") - 1
        return image, items - self._identities.first[image]


@dataclass(frozen=True, slots=True, eq=False)
class RealContent:
    """Where the bytes of REAL and MOVED names come from. `moved`: for each MOVED name's number image, page and base."""

    files: RealFiles
    moved: Sequence[tuple[int, int, int]]

    def fill(self, names: NDArray[np.uint64], out: NDArray[np.uint8]) -> None:
        """Write the bytes of these names into their pages of `out`, (n, 4096) uint8; others stay as they are."""
        kinds = names >> np.uint64(60)
        numbers = (names & _NUMBER).astype(np.int64)
        real = np.flatnonzero(kinds == NameKind.REAL)
        if len(real):
            first_image, first_page = self.files.first_pages()
            images, pages = first_image[numbers[real]], first_page[numbers[real]]
            for image in np.unique(images).tolist():
                own = images == image
                out[real[own]] = self.files.images[image].pages()[pages[own]]
        moved = np.flatnonzero(kinds == NameKind.MOVED)
        if len(moved):
            table = np.array(self.moved, np.uint64)[numbers[moved]]
            for image, base in np.unique(table[:, [0, 2]], axis=0).tolist():
                own = (table[:, 0] == image) & (table[:, 2] == base)
                out[moved[own]] = self.files.images[image].pages(base)[table[own, 1].astype(np.int64)]


def fits(image: Image, spec: GuestSpec) -> bool:
    """Whether the system runs such a binary."""
    system = SYSTEMS[spec.system]
    return image.kind == system.format and (not system.machine or image.machine == system.machine)


def chosen(images: ImageSet, spec: GuestSpec, files: RealFiles) -> list[int]:
    """The numbers of the images of a set that the system runs; SpecError if there is none."""
    found = [number for number in files.of(images.path) if fits(files.images[number], spec)]
    if not found:
        raise SpecError(f"images.{images.name}: {images.path} holds no image that {spec.system} runs")
    return found


def _image_paths(specs: Sequence[GuestSpec]) -> list[str]:
    """Each once, in the order of the specifications."""
    return list(dict.fromkeys(images.path for spec in specs for images in spec.images if images.path))


def _cache_paths(specs: Sequence[GuestSpec]) -> list[str]:
    return list(dict.fromkeys(spec.file_cache.path for spec in specs if spec.file_cache.path))


def load_images(path: str) -> list[Image]:
    """The images of a file, directory, wheel or other zip; OSError or ValueError, with its name, where that fails."""
    from pagedup.guests.images import load, load_tree  # only here: most guests have no real files

    if os.path.isdir(path) or path.endswith((".whl", ".zip")):
        return load_tree(path)
    return [load(path)]


def load_cached(path: str) -> list[Image]:
    """The same files as a file cache holds them: neither laid out nor relocated, whatever they are."""
    from pagedup.guests.images.plain import plain_image  # only here: most guests have no real files

    return [plain_image(image.content) for image in load_images(path)]
