"""The scan as a page of HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagedup.report.page import Figure, Page, Section, how_it_was_made, page_html, shown
from pagedup.report.provenance import Provenance
from pagedup.report.scan_result import ScanResult
from pagedup.report.tables import scan_tables
from pagedup.report.units import human_size, page_size_label, percent
from pagedup.report.verdict import verdict

if TYPE_CHECKING:
    from pagedup.sharing.pictures import GuestMatrix, MemoryMap


def scan_html(result: ScanResult, memory_map: MemoryMap, matrix: GuestMatrix, provenance: Provenance) -> str:
    """The page, below 2 MB whatever was scanned. The same input gives the same text."""
    from pagedup.report.plots import scan_pictures

    return page_html(
        Page(
            question="What storing identical pages once would save",
            scope=_scope(result),
            figures=_figures(result),
            verdict=verdict(result),
            sections=[
                Section("In pictures", pictures=scan_pictures(result, memory_map, matrix)),
                Section("In numbers", tables=[shown(table) for table in scan_tables(result)]),
                how_it_was_made(
                    "How it was measured",
                    provenance,
                    ("Scanned", f"{human_size(result.bytes)} of {_guests(result)}"),
                    "Sources, and what they held when they were read",
                ),
            ],
            provenance=provenance,
        )
    )


def _guests(result: ScanResult) -> str:
    guests = len(result.guests)
    return f"{guests:,} {'guest' if guests == 1 else 'guests'}"


def _scope(result: ScanResult) -> str:
    return f"{_guests(result)}, {human_size(result.bytes)} scanned"


def _figures(result: ScanResult) -> list[Figure]:
    """The answer in numbers, the sum first."""
    small = result.page_sizes[0]
    label = page_size_label(small.page_size)
    counted = [
        (f"saved with {label} pages", small.saved_zero + small.saved_nonzero),
        ("zero pages", small.saved_zero),
        ("equal pages across guests", small.saved_across_guests),
        ("equal pages within a guest", small.saved_within_guests),
    ]
    if len(result.guests) == 1:
        del counted[2]
    shares = [percent(pages * small.page_size, result.bytes) for _, pages in counted]
    shares[0] += " of all memory"
    return [
        Figure(term, human_size(pages * small.page_size), share)
        for (term, pages), share in zip(counted, shares, strict=True)
    ]
