"""Numbers as a person reads them."""

from __future__ import annotations

from itertools import accumulate
from unicodedata import east_asian_width

LONGEST_TEXT = 80
"""Columns of a name that are shown where room is short; a name may have thousands."""


def page_size_label(size: int) -> str:
    """A page size (bytes) as users write it: 4096 is 4K."""
    for letter, unit in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if size >= unit:
            return f"{size // unit}{letter}"
    return str(size)


def human_size(size: int) -> str:
    """Bytes to three significant digits, in binary units."""
    if size < 0:
        return f"-{human_size(-size)}"
    if size < 1024:
        return f"{size} B"
    value = float(size)
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    value, unit = value / 1024, next(units)
    while value >= 999.5:
        value, unit = value / 1024, next(units)
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f} {unit}"


def human_time(seconds: float) -> str:
    """A length of time to two significant digits or more."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.{0 if seconds >= 10 * length else 1}f} {unit}"
    if seconds >= 0.1:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
    if seconds >= 0.01 or not seconds:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} us"


def percent(part: int, whole: int) -> str:
    """`part` of `whole`; what is not nothing never reads as 0, and what is not all never as 100."""
    share = 100 * part / whole if whole else 0.0
    if part and share < 0.1:
        return "<0.1 %"
    if part < whole and share > 99.9:
        return ">99.9 %"
    return f"{share:.1f} %"


def size_and_percent(part: int, whole: int) -> str:
    """Bytes, and in brackets their share of `whole` bytes."""
    return f"{human_size(part)} ({percent(part, whole)})"


def printable(text: str) -> str:
    """`text` on one line: whatever a terminal might act on, or cannot encode, is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(text: str, width: int) -> str:
    """`text` as it is shown in at most `width` columns (at least 3), cut in its middle, since names differ at the ends.

    Characters that East Asian fonts draw wide take two columns.
    """
    if len(text) <= width and sum(map(_columns, text)) <= width:
        return text
    tail = (width - 1) * 2 // 5
    return f"{_fitting(text[:width], width - 1 - tail)}…{_fitting(text[: -width - 1 : -1], tail)[::-1]}"


def _columns(character: str) -> int:
    return 2 if east_asian_width(character) in "WF" else 1


def _fitting(text: str, width: int) -> str:
    """As many characters from the start as fit."""
    return text[: sum(used <= width for used in accumulate(map(_columns, text)))]
