"""Real binaries as a guest's memory holds them: PE and ELF images at any base, and other files as the page cache does.

    images = load_tree("numpy-win32.whl")
    images[0].pages(0x6B130000)    # the bytes of each page, relocated
    names = identities(images)     # which pages are equal, at which bases

Reading PE takes the extra `images`: pip install 'pagedup[images]'.
"""

from pagedup.guests.images.error import ImageError
from pagedup.guests.images.identity import PageIdentities, identities
from pagedup.guests.images.image import Image, Section
from pagedup.guests.images.loading import load
from pagedup.guests.images.relocation import Row, relocation_table
from pagedup.guests.images.tree import load_tree

__all__ = [
    "Image",
    "ImageError",
    "PageIdentities",
    "Row",
    "Section",
    "identities",
    "load",
    "load_tree",
    "relocation_table",
]
