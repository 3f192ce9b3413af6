"""A drawing for the HTML report, and what all drawings have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pagedup.report.scan_result import ScanResult
from pagedup.report.units import LONGEST_TEXT, printable, shortened

WIDTH = 960.0
"""Units of every drawing: the width of the page's column in px."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing for HTML.

    `identifier` is unique on its page. `caption` says what to see in it, `note` how to read it, and `words`, for those
    who do not see it, all that it shows.
    """

    identifier: str
    title: str
    svg: str
    caption: str
    note: str
    words: str


def words_id(identifier: str) -> str:
    """The id of the element that holds the words of a picture."""
    return f"{identifier}-words"


def guest_name(result: ScanResult, guest: int) -> str:
    """A guest's name on one line, of no more than a name should have."""
    return shortened(printable(result.guests[guest].name), LONGEST_TEXT)


def listed(items: Iterable[str]) -> str:
    """One sentence of several statements."""
    return f"{'; '.join(items)}."


def left_out(guests: int, which: str) -> str:
    """What to say of guests that are not drawn; nothing if there are none."""
    if not guests:
        return ""
    return f" {guests:,} {'guest' if guests == 1 else 'guests'} {which} {'is' if guests == 1 else 'are'} not drawn."
