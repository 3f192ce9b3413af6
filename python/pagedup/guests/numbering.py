"""Numbers for what content names are made of: one for each image and each kind of memory, the same in every guest."""

from __future__ import annotations

from collections.abc import Hashable

from pagedup.guests.spec import SpecError
from pagedup.memory.layouts.names import IMAGE_BITS, PAGE_BITS

COMMON_SET_BITS = 28
"""Bits of a COMMON name that tell whose content it is; the 32 below count it."""


class Numbering:
    """Gives out numbers in the order of asking. One for all guests whose names are to be compared."""

    def __init__(self) -> None:
        self._images: dict[Hashable, int] = {}
        self._next_image = 0
        self._sets: dict[Hashable, int] = {}

    def image(self, key: Hashable, n_pages: int) -> int:
        """The number of an image or of a body of files; it takes as many numbers as its pages need."""
        key = (key, n_pages)
        if key not in self._images:
            self._images[key] = self._next_image
            self._next_image += max(1, -(-n_pages >> PAGE_BITS))
            if self._next_image > 1 << IMAGE_BITS:
                raise SpecError(
                    f"images and file_cache.files: {self._next_image:,} GiB are too many to name;"
                    f" {1 << IMAGE_BITS:,} are possible"
                )
        return self._images[key]

    def common(self, key: Hashable) -> int:
        """The number of a kind of anonymous memory."""
        number = self._sets.setdefault(key, len(self._sets))
        if number >> COMMON_SET_BITS:
            raise SpecError(f"there are more than {1 << COMMON_SET_BITS:,} kinds of processes")
        return number
