"""Page sizes as users write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pagedup.cli.command import UsageError

SMALLEST, LARGEST = 8, 1 << 30  # bytes; what the engine takes
DEFAULT_PAGE_SIZES = (4 << 10, 16 << 10, 64 << 10, 2 << 20, 1 << 30)
"""Bytes, ascending; what is asked about where nobody says otherwise."""
_SIZE = re.compile(r"([0-9]{1,12})([KMG]?)", re.ASCII | re.IGNORECASE)
_LIKE_A_SIZE = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([KMGT]i?B?)?", re.ASCII | re.IGNORECASE)
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30}


def parse_page_size(text: str) -> int:
    """A page size in bytes from text such as 4K, 2M, 1G or 4096; UsageError if it is none."""
    match = _SIZE.fullmatch(text)
    size = int(match[1]) << _SHIFT[match[2].upper()] if match else 0
    if size < SMALLEST or size > LARGEST or size & (size - 1):
        raise UsageError(f"'{text}' is no page size; it is a power of two from 8 to 1G, such as 4096, 4K or 2M")
    return size


def spread_page_sizes(argv: Sequence[str], option: str) -> list[str]:
    """Write `option A B` as `option A option B`, for arguments B that look like a size.

    An option of many values would otherwise swallow the sources that follow it.
    """
    spread: list[str] = []
    inside = False  # whether the last argument was the option's value
    for index, text in enumerate(argv):
        if text == "--":
            return spread + list(argv[index:])
        is_value = bool(spread) and spread[-1] == option
        if inside and _LIKE_A_SIZE.fullmatch(text):
            # With =, argparse takes a value that begins with a minus for what it is.
            spread.append(f"{option}={text}")
        elif is_value:
            spread[-1] = f"{option}={text}"
            inside = True
        else:
            spread.append(text)
            inside = text.startswith(f"{option}=")
    return spread
