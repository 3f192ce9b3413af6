"""Content names: 64-bit numbers that stand for what a page holds. Equal names <=> equal content, within one space.

The four highest bits say what kind of name it is; what follows is injective by construction, from bit 59 down:

    kind            bits
    ZERO      0     the name 0 alone: the page of zero bytes
    FILE      1     image (14), page of it (18), 0 (28): the same wherever it is loaded
    REBASED   2     image (14), page of it (18), base (28): holds base relocations, so it depends on where it is loaded
    IMPORTS   3     image (14), page of it (18), bases (28): holds addresses of other images; a number for all of these
    OWN       4     guest (20), number in it (40): content that stands nowhere else
    COMMON    5     number (60): anonymous memory that comes out the same in every guest, and perhaps in many processes
    READ      6     class (60): content read from real memory; one more than the number of its first page in all of it
    REAL      7     content (60): a page of a real file, by its bytes
    MOVED     8     content (60): a page of a real file that holds base relocations, by its bytes at one base
    ABSENT    15    all bits set, alone: a page that was never given memory; it has no content

A base is not an address but its number among those that the system may choose.
"""

from __future__ import annotations

from enum import IntEnum

PAGE = 4096
"""Bytes of the page that a name stands for."""

ZERO = 0
ABSENT = (1 << 64) - 1

IMAGE_BITS, PAGE_BITS, BASE_BITS = 14, 18, 28
GUEST_BITS, NUMBER_BITS = 20, 40


class NameKind(IntEnum):
    """The four highest bits of a name."""

    ZERO = 0
    FILE = 1
    REBASED = 2
    IMPORTS = 3
    OWN = 4
    COMMON = 5
    READ = 6
    REAL = 7
    MOVED = 8
    ABSENT = 15


def kind_bits(kind: NameKind) -> int:
    """The kind, where a name has it."""
    return int(kind) << 60


def file_name(image: int, page: int) -> int:
    """The name of a page of a file or image that is the same wherever it is loaded.

    Of pages beyond the last that PAGE_BITS can tell, the numbers that follow `image` are taken.
    """
    return kind_bits(NameKind.FILE) | ((image << PAGE_BITS) + page) << BASE_BITS
