"""Names for pages of real images that hold relocations, at the bases that the guests' boots drew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory.layouts import NameKind
from pagedup.memory.layouts.names import kind_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.guests.boot import Boot
    from pagedup.guests.real_files import RealFiles
    from pagedup.guests.template import MovedPages

Origin = tuple[int, int, int]
"""Image, page of it, and base."""


def name_moved(files: RealFiles, boots: Sequence[Boot]) -> tuple[list[list[NDArray[np.uint64]]], list[Origin]]:
    """For each boot the names of its template's moved pages, one array each; and where each name's content comes from.

    Equal content, wherever it comes from, has one name: they are numbered over all boots, in their order.
    """
    contents, origins, sizes = [], [], []
    for boot in boots:
        for pages in boot.template.moved:
            base = _base(files, boot, pages)
            contents.append(files.content_at(pages.place.image, base)[pages.pages])
            origins.append((pages.place.image, pages.pages, base))
            sizes.append(len(pages.pages))
    if not contents:
        return [[] for _ in boots], []
    _, first, number = np.unique(np.concatenate(contents), axis=0, return_index=True, return_inverse=True)
    names = number.reshape(-1).astype(np.uint64) | np.uint64(kind_bits(NameKind.MOVED))
    parts = iter(np.split(names, np.cumsum(sizes)[:-1]))
    of_boots = [[next(parts) for _ in boot.template.moved] for boot in boots]
    part = np.searchsorted(np.cumsum(sizes), first, side="right")
    begins = np.cumsum(sizes) - sizes
    table = [
        (origins[index][0], int(origins[index][1][at - begins[index]]), origins[index][2])
        for index, at in zip(part.tolist(), first.tolist(), strict=True)
    ]
    return of_boots, table


def _base(files: RealFiles, boot: Boot, pages: MovedPages) -> int:
    image = files.images[pages.place.image]
    if not boot.template.spec.aslr or not image.relocatable:
        return image.preferred_base
    return image.check_base(pages.place.start + boot.base(pages.source) * image.granularity)
