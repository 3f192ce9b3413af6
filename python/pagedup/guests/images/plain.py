"""A file that is no binary: what the page cache holds of it."""

from __future__ import annotations

import numpy as np

from pagedup.guests.images.content import Content
from pagedup.guests.images.fixups import Fixups
from pagedup.guests.images.image import Image, Piece, Section
from pagedup.memory.layouts import PAGE


def plain_image(content: Content, flaw: str = "") -> Image:
    """The file's pages, the last one filled up with zero bytes."""
    n_pages = -(-content.size // PAGE)
    return Image(
        name=content.name,
        kind="file",
        machine="",
        preferred_base=0,
        n_pages=n_pages,
        sections=(Section("file", "rdata", 0, n_pages),) if n_pages else (),
        relocatable=False,
        granularity=PAGE,
        fixups=np.zeros(n_pages, np.bool_),
        imports=np.zeros(n_pages, np.bool_),
        imported=(),
        address_bits=64,
        content=content,
        pieces=(Piece(0, 0, content.size),) if content.size else (),
        fields=Fixups.none(12),
        flaw=flaw,
    )
