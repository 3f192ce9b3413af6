"""The scan as tables for a person; imported only when one is printed, since rich is slow to import."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pagedup.report.scan_result import ScannedGuest, ScanResult
from pagedup.report.units import human_size, page_size_label, printable, size_and_percent
from pagedup.report.verdict import verdict

MIN_WIDTH = 120
"""Columns that the tables need; on less, rich would cut numbers off."""


def scan_tables(result: ScanResult) -> RenderableType:
    """All that `pagedup scan` shows: by page size, by guest, the most shared contents, and the verdict."""
    parts: list[RenderableType] = [_by_page_size(result), _by_guest(result)]
    if result.most_shared:
        parts.append(_most_shared(result))
    parts.append(Text(verdict(result)))
    return Group(*parts)


def _by_page_size(result: ScanResult) -> Table:
    rows = []
    for row in result.page_sizes:
        size = row.page_size
        saved = row.saved_zero + row.saved_nonzero
        rows.append(
            (
                page_size_label(size),
                f"{row.frames:,}",
                f"{row.zero:,}",
                f"{row.distinct:,}",
                size_and_percent(saved * size, result.bytes),
                human_size(row.saved_zero * size),
                human_size(row.saved_nonzero * size),
                human_size(row.saved_within_guests * size),
                human_size(row.saved_across_guests * size),
                human_size(row.excluded_bytes),
            )
        )
    title = f"Storing identical pages once, in {human_size(result.bytes)} of memory"
    headers = ("page", "frames", "zero", "distinct", "saved", "zero", "non-zero", "within", "across", "excluded")
    table = _table(title, headers, rows)
    table.caption = Text(
        "saved: zero + non-zero; non-zero: within + across guests; excluded: where no whole aligned page lies\n"
    )
    table.caption_justify = "left"
    return table


def _by_guest(result: ScanResult) -> Table:
    size = result.page_size
    domains = any(guest.domain is not None for guest in result.guests)
    rows = []
    for guest, found in zip(result.guests, result.per_guest, strict=True):
        row = [
            _label(guest),
            human_size(guest.bytes),
            size_and_percent(found.zero * size, guest.bytes),
            human_size(found.nonzero * size),
            human_size(found.distinct * size),
            size_and_percent(found.saved_within * size, guest.bytes),
            size_and_percent(found.shared_across * size, guest.bytes),
        ]
        if domains:
            row.insert(1, printable(guest.domain or ""))
        rows.append(row)
    headers = ["guest", "memory", "zero", "non-zero", "distinct", "saved within", "also in others"]
    if domains:
        headers.insert(1, "domain")
    return _table(f"By guest, in {page_size_label(size)} pages", headers, rows)


def _most_shared(result: ScanResult) -> Table:
    rows = [
        (
            printable(result.guests[content.guest].name),
            f"{content.address:#x}",
            f"{content.copies:,}",
            f"{content.n_guests:,}",
            human_size((content.copies - 1) * result.page_size),
        )
        for content in result.most_shared
    ]
    title = f"Most shared non-zero contents, in {page_size_label(result.page_size)} pages"
    return _table(title, ("first in", "at address", "copies", "in guests", "saved"), rows)


def _label(guest: ScannedGuest) -> str:
    return printable(f"{guest.name} ({guest.detail})" if guest.detail else guest.name)


def _table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with its first column to the left and numbers to the right; numbers never wrap, names may."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, header in enumerate(headers):
        first = index == 0
        table.add_column(
            Text(header),
            justify="left" if first else "right",
            no_wrap=not first,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
