"""Which guests hold the same pages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pagedup.report.canvas import COLOURS, Canvas
from pagedup.report.picture import WIDTH, Picture, guest_name, left_out, listed, words_id
from pagedup.report.scan_result import ScanResult
from pagedup.report.units import human_size, percent, shortened
from pagedup.sharing.pictures import GuestMatrix

_LEFT, _TOP = 220.0, 48.0  # where the cells begin
_NAME_COLUMNS = 18  # of a name, that fit before the guest's size
_COLUMN_WIDTH = 7.5  # units that a column of text takes at most
_WIDE = 70.0  # a cell that has room for a size and a unit
_STRONGEST = 0.6  # opacity behind a number: on it text keeps a contrast of 4.5, light or dark
_PAIRS_IN_CAPTION = 1
_PAIRS_IN_WORDS = 10


def draw_guest_matrix(result: ScanResult, matrix: GuestMatrix) -> Picture:
    """A row and a column a guest."""
    identifier, title = "guest-matrix", "Which guests hold the same"
    names = [guest_name(result, guest) for guest in matrix.guests]
    cell = (WIDTH - _LEFT) / len(names)
    step = 44.0 if cell >= _WIDE else 22.0
    canvas = Canvas(WIDTH, _TOP + 1 + step * len(names))
    canvas.text(0, 16, "of the non-zero memory of", size=11.5, colour="muted")
    canvas.text(_LEFT, 16, "percent of it that stand also in", size=11.5, colour="muted")
    canvas.image(_LEFT, _TOP, WIDTH - _LEFT, step * len(names), _pixels(matrix))
    canvas.box(_LEFT, _TOP, WIDTH - _LEFT, step * len(names), None, "line")
    numbered = any(shortened(name, int((cell - 6) / _COLUMN_WIDTH)) != name for name in names)
    for index, name in enumerate(names):
        middle = _LEFT + (index + 0.5) * cell
        canvas.text(middle, _TOP - 9, str(index + 1) if numbered else name, size=11.5, align="center")
        label = f"{index + 1}  {name}" if numbered else name
        _draw_row(canvas, matrix, index, label, _TOP + index * step, step)
    pairs = _pairs(matrix, names)
    return Picture(
        identifier,
        title,
        canvas.svg(title, words_id(identifier)),
        f"{listed(pairs[:_PAIRS_IN_CAPTION])}{left_out(matrix.left_out, 'that have no more in common with others')}",
        "A row tells how much of one guest's memory that is not zero each other guest holds, too: the stronger the"
        f" colour, the more.{' Columns have the numbers of the rows.' if numbered else ''}",
        f"The pairs with most in common: {listed(pairs[:_PAIRS_IN_WORDS])}",
    )


def _draw_row(canvas: Canvas, matrix: GuestMatrix, row: int, label: str, top: float, step: float) -> None:
    cell = (WIDTH - _LEFT) / len(matrix.guests)
    total = int(matrix.pages[row, row])
    base = top + step / 2 + 4.5
    canvas.text(0, base, shortened(label, _NAME_COLUMNS))
    canvas.text(_LEFT - 14, base, human_size(total * matrix.page_size), colour="muted", align="right")
    for column, pages in enumerate(matrix.pages[row].tolist()):
        middle = _LEFT + (column + 0.5) * cell
        if column == row or not pages:
            canvas.text(middle, base, "·", colour="muted", align="center")
        elif cell >= _WIDE:
            canvas.text(middle, base - 6, percent(pages, total), align="center")
            canvas.text(middle, base + 9, human_size(pages * matrix.page_size), size=11, align="center")
        else:
            canvas.text(middle, base - 1, _whole_percent(pages, total), size=9.5, align="center")


def _whole_percent(part: int, whole: int) -> str:
    """For cells too small for `percent`; here too, some never reads as 0, and less than all never as 100."""
    share = 100 * part / whole
    return "<1" if share < 1 else f"{min(round(share), 99 if part < whole else 100)}"


def _pixels(matrix: GuestMatrix) -> NDArray[np.uint8]:
    """One colour, by its opacity; so it holds on a light and on a dark page."""
    own = matrix.pages.diagonal()
    shares = matrix.pages / np.maximum(own, 1)[:, None]
    np.fill_diagonal(shares, 0)
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[:, :, :3] = list(COLOURS["across"])
    pixels[:, :, 3] = np.round(shares * _STRONGEST * 255)
    return pixels


def _pairs(matrix: GuestMatrix, names: list[str]) -> list[str]:
    """The pairs of different guests of which one holds most bytes of the other, most first, in words."""
    between = matrix.pages.copy()
    np.fill_diagonal(between, 0)
    both = np.maximum(between, between.T)
    rows, columns = np.nonzero(np.triu(both))
    order = np.argsort(-both[rows, columns], kind="stable")[:_PAIRS_IN_WORDS]
    return [
        f"{human_size(int(between[row, column]) * matrix.page_size)} of {names[row]}"
        f" ({percent(int(between[row, column]), int(matrix.pages[row, row]))} of what is not zero) stand in"
        f" {names[column]}, too, and {human_size(int(between[column, row]) * matrix.page_size)} of {names[column]}"
        f" ({percent(int(between[column, row]), int(matrix.pages[column, column]))}) in {names[row]}"
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
    ]
