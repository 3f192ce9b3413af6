"""Which reader takes a file."""

from __future__ import annotations

import os

from pagedup.guests.images import elf, pe
from pagedup.guests.images.content import Content, file_content
from pagedup.guests.images.error import ImageError
from pagedup.guests.images.image import Image
from pagedup.guests.images.plain import plain_image


def load(path: str | os.PathLike[str]) -> Image:
    """The image of a PE or ELF program or library; of any other file, its pages in the page cache.

    What it is is told by its content. Raises ImageError for a binary that is corrupt or cut off, ImportError without
    lief, OSError for a file that cannot be read or is no regular file.
    """
    text = os.fspath(path)
    return image_of(file_content(text, text))


def image_of(content: Content) -> Image:
    """The image of a file, by its content."""
    with content.opened() as file:
        head = file.read(0, 64)
    if head.startswith(pe.MAGIC) and pe.is_pe(content, head):
        return pe.pe_image(content)
    if head.startswith(elf.MAGIC) and elf.is_mapped(content, head):
        return elf.elf_image(content)
    return plain_image(content)


def image_or_file(content: Content) -> Image:
    """The same, but a binary that is corrupt is taken as a plain file with a flaw: among thousands there may be one."""
    try:
        return image_of(content)
    except ImageError as error:
        return plain_image(content, str(error))
