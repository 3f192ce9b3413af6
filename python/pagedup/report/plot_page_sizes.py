"""What is saved, of which kind, at each page size."""

from __future__ import annotations

from pagedup.report.canvas import Canvas, Colour
from pagedup.report.picture import WIDTH, Picture, listed, words_id
from pagedup.report.scan_result import ScanResult
from pagedup.report.units import human_size, page_size_label, size_and_percent
from pagedup.sharing import Summary

_LEFT, _RIGHT = 56.0, 800.0  # where a bar begins and ends: all the memory
_HEIGHT, _STEP = 22.0, 58.0
_LABEL_STEP = 190.0


def draw_page_sizes(result: ScanResult) -> Picture:
    """A bar a page size."""
    identifier, title = "page-sizes", "Saving by page size"
    canvas = Canvas(WIDTH, 2 + _STEP * len(result.page_sizes))
    for index, row in enumerate(result.page_sizes):
        _draw_bar(canvas, row, result.bytes, 1 + index * _STEP)
    return Picture(
        identifier,
        title,
        canvas.svg(title, words_id(identifier)),
        _caption(result),
        f"A whole bar is the memory scanned, {human_size(result.bytes)}; what is filled would be saved.",
        listed(_in_words(row, result.bytes) for row in result.page_sizes),
    )


def _draw_bar(canvas: Canvas, row: Summary, memory: int, top: float) -> None:
    canvas.text(0, top + 16, page_size_label(row.page_size), bold=True)
    canvas.box(_LEFT, top, _RIGHT - _LEFT, _HEIGHT, None, "muted")
    at, label = _LEFT, _LEFT
    for fill, name, saved in _parts(row):
        length = (_RIGHT - _LEFT) * saved / memory
        if saved:
            canvas.box(at, top, length, _HEIGHT, fill, "muted")
            canvas.box(label, top + _HEIGHT + 7, 9, 9, fill, "muted" if fill == "zero" else None)
            canvas.text(label + 15, top + _HEIGHT + 15, f"{name} {human_size(saved)}", size=11.5, colour="muted")
        at += length
        label += _LABEL_STEP
    canvas.text(WIDTH, top + 16, _saving(row, memory), align="right")


def _parts(row: Summary) -> tuple[tuple[Colour, str, int], ...]:
    """What is saved, in bytes."""
    size = row.page_size
    return (
        ("zero", "zero pages", row.saved_zero * size),
        ("across", "across guests", row.saved_across_guests * size),
        ("within", "within guests", row.saved_within_guests * size),
    )


def _saved(row: Summary) -> int:
    return (row.saved_zero + row.saved_nonzero) * row.page_size


def _saving(row: Summary, memory: int) -> str:
    return size_and_percent(_saved(row), memory) if row.frames else "no whole page"


def _caption(result: ScanResult) -> str:
    saving = [row for row in result.page_sizes if _saved(row)]
    if not saving:
        return "No page size saves anything."
    small, large = saving[0], saving[-1]
    first = f"With {page_size_label(small.page_size)} pages {_saving(small, result.bytes)} would be saved"
    if large is small:
        return f"{first}, with larger ones nothing." if large is not result.page_sizes[-1] else f"{first}."
    most = "" if large is result.page_sizes[-1] else ", the largest that save anything,"
    return f"{first}, with {page_size_label(large.page_size)} pages{most} {_saving(large, result.bytes)}."


def _in_words(row: Summary, memory: int) -> str:
    parts = ", ".join(f"{name} {human_size(saved)}" for _, name, saved in _parts(row) if saved)
    return f"{page_size_label(row.page_size)} pages: {_saving(row, memory)}{f', of these {parts}' if parts else ''}"
