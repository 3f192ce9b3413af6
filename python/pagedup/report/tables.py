"""The tables of a scan as text in rows and columns; how they are shown (terminal, HTML) is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pagedup.report.scan_result import ScannedGuest, ScanResult
from pagedup.report.units import human_size, page_size_label, printable, size_and_percent


@dataclass(frozen=True, slots=True)
class Table:
    """One table. The first column holds names, the others hold numbers; `note` explains the headers."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def scan_tables(result: ScanResult) -> list[Table]:
    """All tables of the scan that have something to say, the most important one first."""
    tables = [_by_page_size(result), _by_guest(result)]
    if result.most_shared:
        tables.append(_most_shared(result))
    return tables


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
    return Table(
        f"Storing identical pages once, in {human_size(result.bytes)} of memory",
        ("page", "frames", "zero", "distinct", "saved", "zero", "non-zero", "within", "across", "excluded"),
        rows,
        "saved: zero + non-zero; non-zero: within + across guests; excluded: where no whole aligned page lies",
    )


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
    return Table(f"By guest, in {page_size_label(size)} pages", headers, rows)


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
    return Table(title, ("first in", "at address", "copies", "in guests", "saved"), rows)


def _label(guest: ScannedGuest) -> str:
    return printable(f"{guest.name} ({guest.detail})" if guest.detail else guest.name)
