"""What relocation changes: pages that carry fixups, by machine and section."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pagedup.guests.images.image import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMES = {".text": ".text", ".rdata": ".rdata", ".rodata": ".rdata", ".data": ".data", ".data.rel.ro": ".data"}
_ROWS = (".text", ".rdata", ".data", "all")


@dataclass(frozen=True, slots=True)
class Row:
    """Pages of the images of one kind for one machine, in sections of one name; "all": in all sections.

    ELF's ".rodata" counts as ".rdata", and ".data.rel.ro" as ".data".
    """

    kind: str
    machine: str
    section: str
    pages: int
    fixup_pages: int
    import_pages: int


def relocation_table(images: Iterable[Image]) -> list[Row]:
    """By kind and machine in order of their names: .text, .rdata, .data, and all sections with the header's page."""
    counts: dict[tuple[str, str], NDArray[np.int64]] = {}
    for image in images:
        if image.kind == "file":
            continue
        found = counts.setdefault((image.kind, image.machine), np.zeros((len(_ROWS), 3), np.int64))
        for section in image.sections:
            pages = slice(section.first_page, section.first_page + section.n_pages)
            row = [section.n_pages, np.count_nonzero(image.fixups[pages]), np.count_nonzero(image.imports[pages])]
            found[-1] += row
            if section.name in _NAMES:
                found[_ROWS.index(_NAMES[section.name])] += row
    return [
        Row(*key, section, *row)
        for key, rows in sorted(counts.items())
        for section, row in zip(_ROWS, rows.tolist(), strict=True)
    ]
