"""What kind of page lies where in each guest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pagedup.report.canvas import COLOURS, Canvas, Colour
from pagedup.report.picture import WIDTH, Picture, guest_name, left_out, listed, words_id
from pagedup.report.scan_result import ScanResult
from pagedup.report.units import human_size, percent, shortened
from pagedup.sharing.pictures import Kind, MemoryMap, Strip

_FILLS: dict[Kind, Colour] = {
    Kind.ZERO: "zero",
    Kind.ACROSS: "across",
    Kind.WITHIN: "within",
    Kind.UNIQUE: "unique",
}
_LEFT, _RIGHT = 220.0, 700.0  # where a strip begins and ends; right of it are the numbers of its kinds
_HEADER = 34.0
_NAME_COLUMNS = 18  # of a name, that fit before the guest's size
_FEW = 12  # guests that are drawn with large strips
_DOTS = 24  # the height of a strip, as an image: the share of a kind is told to a 24th
_MOST_MARKS = 40  # holes that are marked below a strip; more would be a line


def draw_memory_map(result: ScanResult, memory_map: MemoryMap) -> Picture:
    """A strip a guest."""
    identifier, title, strips = "memory-map", "Memory map by kind of page", memory_map.strips
    height, step = (28.0, 46.0) if len(strips) <= _FEW else (17.0, 27.0)
    canvas = Canvas(WIDTH, _HEADER + step * len(strips))
    _draw_header(canvas)
    for row, strip in enumerate(strips):
        _draw_strip(canvas, result, memory_map.page_size, strip, _HEADER + row * step, height)
    pages = np.sum([strip.kinds.sum(axis=0) for strip in strips], axis=0)
    guests = f"{len(strips)} guests" if len(strips) > 1 else "one guest"
    others = left_out(memory_map.left_out, "with no more pages")
    return Picture(
        identifier,
        title,
        canvas.svg(title, words_id(identifier)),
        f"Of {int(pages.sum()):,} pages in {guests}, {_shares(pages)}.{others}",
        "A strip is all the memory of a guest, from its lowest address to its highest. Each column of it shows, from"
        " top to bottom, how much is zero, stands in another guest too (across), is repeated within this guest only"
        f" (within), or is unique.{_about_marks(strips)}",
        listed(f"{guest_name(result, strip.guest)}: {_in_words(strip)}" for strip in strips),
    )


def _draw_header(canvas: Canvas) -> None:
    canvas.text(0, 16, "guest", size=11.5, colour="muted")
    canvas.text(_LEFT, 16, "lowest address", size=11.5, colour="muted")
    canvas.text(_RIGHT, 16, "highest", size=11.5, colour="muted", align="right")
    for kind, fill in _FILLS.items():
        canvas.box(_column(kind) - 55, 7, 9, 9, fill, "muted" if kind == Kind.ZERO else None)
        canvas.text(_column(kind) - 41, 16, fill, size=11.5, colour="muted")


def _column(kind: Kind) -> float:
    """Where the numbers of a kind end."""
    return _RIGHT + 65 * (kind + 1)


def _draw_strip(canvas: Canvas, result: ScanResult, page_size: int, strip: Strip, top: float, height: float) -> None:
    base = top + height / 2 + 4.5
    pages = strip.kinds.sum(axis=0)
    total = int(pages.sum())
    canvas.text(0, base, shortened(guest_name(result, strip.guest), _NAME_COLUMNS))
    canvas.text(_LEFT - 14, base, human_size(total * page_size), colour="muted", align="right")
    canvas.box(_LEFT, top, _RIGHT - _LEFT, height, "zero")
    canvas.image(_LEFT, top, _RIGHT - _LEFT, height, _pixels(strip))
    canvas.box(_LEFT, top, _RIGHT - _LEFT, height, None, "muted")
    if len(strip.jumps) <= _MOST_MARKS:
        cell = (_RIGHT - _LEFT) / len(strip.kinds)
        canvas.ticks([_LEFT + jump * cell for jump in strip.jumps.tolist()], top + height + 1, 5, "ink")
    for kind in Kind:
        canvas.text(_column(kind), base, percent(int(pages[kind]), total), align="right")


def _pixels(strip: Strip) -> NDArray[np.uint8]:
    """A column a cell, filled from the top with its kinds in their order; zero is transparent."""
    ends = np.cumsum(strip.kinds, axis=1) / strip.kinds.sum(axis=1, keepdims=True)
    dots = (np.arange(_DOTS) + 0.5) / _DOTS
    kinds = (dots[:, None, None] > ends[None, :, :-1]).sum(axis=2)
    palette = np.zeros((len(Kind), 4), np.uint8)
    for kind in (Kind.ACROSS, Kind.WITHIN, Kind.UNIQUE):
        palette[kind] = (*COLOURS[_FILLS[kind]], 255)
    pixels: NDArray[np.uint8] = palette[kinds]
    return pixels


def _about_marks(strips: Sequence[Strip]) -> str:
    counts = [len(strip.jumps) for strip in strips]
    some = " A mark below a strip is a hole in the addresses, which takes no room." if any(counts) else ""
    return some + (f" More than {_MOST_MARKS} in a guest are not marked." if max(counts) > _MOST_MARKS else "")


def _shares(pages: NDArray[np.int64]) -> str:
    zero, across, within, unique = (percent(int(part), int(pages.sum())) for part in pages)
    return (
        f"{zero} are zero, {across} stand in another guest too, {within} are repeated within one guest only, and"
        f" {unique} are unique"
    )


def _in_words(strip: Strip) -> str:
    pages = strip.kinds.sum(axis=0)
    where = f"from {strip.first_address:#x} to {strip.last_address:#x}"
    holes = f", with holes in {len(strip.jumps):,} places" if len(strip.jumps) else ""
    return f"{int(pages.sum()):,} pages {where}{holes}: {_shares(pages)}"
