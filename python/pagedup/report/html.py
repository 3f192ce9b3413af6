"""The scan as one page of HTML that needs nothing else: no network, no script, no font of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pagedup.memory.whole_file import whole_file
from pagedup.report.provenance import Provenance
from pagedup.report.scan_result import ScanResult
from pagedup.report.tables import Table, scan_tables
from pagedup.report.units import LONGEST_TEXT, human_size, page_size_label, percent, printable, shortened
from pagedup.report.verdict import verdict

if TYPE_CHECKING:
    from pagedup.report.picture import Picture
    from pagedup.sharing.pictures import GuestMatrix, MemoryMap

_MOST_ROWS = 100  # of a table: who wants more has --json
_NO_DIGEST = "none: live memory changes"
_LONGEST_COMMAND = 2000  # characters of the command line, which may name thousands of files


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the answer: what it counts, the number, and its share of the whole."""

    term: str
    value: str
    share: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page under a heading: pictures, then facts (a term and what is so), then tables."""

    title: str
    pictures: Sequence[Picture] = ()
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[ShownTable] = ()


@dataclass(frozen=True, slots=True)
class ShownTable:
    """A table as the page has it: no longer than people read, and `notes` says what was left out."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def require() -> None:
    """Load what a page is made with; call it before a long scan. OSError if the extra is not installed."""
    # Where its cache cannot be written, matplotlib says so on stderr and works on; it is no error of ours.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import jinja2  # noqa: F401

        import pagedup.report.plots  # noqa: F401
    except ImportError as error:
        raise OSError(f"an HTML report cannot be made: {error}; try: pip install 'pagedup[report]'") from None


def scan_html(result: ScanResult, memory_map: MemoryMap, matrix: GuestMatrix, provenance: Provenance) -> str:
    """The page, below 2 MB whatever was scanned. The same input gives the same text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from pagedup.report.canvas import COLOURS
    from pagedup.report.plots import scan_pictures

    sections = [
        Section("In pictures", pictures=scan_pictures(result, memory_map, matrix)),
        Section("In numbers", tables=[_shown(table) for table in scan_tables(result)]),
        Section("How it was measured", facts=_facts(result, provenance), tables=[_shown(_sources(provenance))]),
    ]
    environment = Environment(
        loader=PackageLoader("pagedup.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        verdict=[printable(sentence) for sentence in verdict(result)],
        scope=_scope(result),
        figures=_figures(result),
        sections=[section for section in sections if section.pictures or section.facts or section.tables],
        colours={name: f"#{colour.hex()}" for name, colour in COLOURS.items()},
        provenance=provenance,
    )


def write_html(path: str, text: str) -> None:
    """Write a page to `path`: all of it, or, with OSError, nothing. What stood there before is replaced."""
    try:
        with whole_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, f"the report cannot be written: {error.strerror}", path) from None


def _scope(result: ScanResult) -> str:
    guests = len(result.guests)
    return f"{guests:,} {'guest' if guests == 1 else 'guests'}, {human_size(result.bytes)} scanned"


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
    return [
        Figure(term, human_size(pages * small.page_size), percent(pages * small.page_size, result.bytes))
        for term, pages in counted
    ]


def _shown(table: Table) -> ShownTable:
    notes = [table.note] if table.note else []
    rows = [[shortened(cell, LONGEST_TEXT) for cell in row] for row in table.rows[:_MOST_ROWS]]
    left_out = len(table.rows) - len(rows)
    if left_out:
        notes.append(f"{left_out:,} more {'row is' if left_out == 1 else 'rows are'} left out; --json has all of them.")
    if any(len(cell) > LONGEST_TEXT for row in table.rows[:_MOST_ROWS] for cell in row):
        notes.append("Long texts are cut in their middle (…); --json has them whole.")
    return ShownTable(table.title, table.headers, rows, notes)


def _facts(result: ScanResult, provenance: Provenance) -> list[tuple[str, str]]:
    guests = len(result.guests)
    return [
        ("Command", shortened(printable(provenance.command), _LONGEST_COMMAND)),
        ("Version", f"pagedup {provenance.version}"),
        ("Begun", provenance.started),
        ("Took", f"{provenance.seconds:,.1f} seconds"),
        ("Scanned", f"{human_size(result.bytes)} of {guests:,} {'guest' if guests == 1 else 'guests'}"),
        ("Kernel", printable(provenance.kernel)),
        ("CPU", printable(provenance.cpu)),
        ("Page size of the host", f"{provenance.page_size:,} bytes"),
    ]


def _sources(provenance: Provenance) -> Table:
    rows = [
        (printable(source.name), printable(source.kind), f"{source.bytes:,}", source.digest or _NO_DIGEST)
        for source in provenance.sources
    ]
    return Table("Sources, and what they held when they were read", ("source", "kind", "bytes", "blake3"), rows)
