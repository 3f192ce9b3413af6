"""A report as one page of HTML that needs nothing else: no network, no script, no font of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pagedup.memory.whole_file import whole_file
from pagedup.report.provenance import Provenance
from pagedup.report.table import Table
from pagedup.report.units import LONGEST_TEXT, printable, shortened

if TYPE_CHECKING:
    from pagedup.report.picture import Picture

_MOST_ROWS = 100  # of a table: who wants more has --json
_NO_DIGEST = "none: live memory changes"
_LONGEST_COMMAND = 2000  # characters of the command line, which may name thousands of files


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the answer: what it counts, the number, and what it is to be seen beside."""

    term: str
    value: str
    beside: str


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


@dataclass(frozen=True, slots=True)
class Page:
    """What a page says: the question that it answers, of what, the answer in numbers and in sentences, and the rest."""

    question: str
    scope: str
    figures: Sequence[Figure]
    verdict: Sequence[str]
    sections: Sequence[Section]
    provenance: Provenance


def require() -> None:
    """Load what a page is made with; call it before a long scan. OSError if the extra is not installed."""
    # Where its cache cannot be written, matplotlib says so on stderr and works on; it is no error of ours.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import jinja2  # noqa: F401

        import pagedup.report.canvas  # noqa: F401
    except ImportError as error:
        raise OSError(f"an HTML report cannot be made: {error}; try: pip install 'pagedup[report]'") from None


def page_html(page: Page) -> str:
    """The page as text. The same input gives the same text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from pagedup.report.canvas import COLOURS

    environment = Environment(
        loader=PackageLoader("pagedup.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        question=page.question,
        verdict=[printable(sentence) for sentence in page.verdict],
        scope=page.scope,
        figures=page.figures,
        sections=[section for section in page.sections if section.pictures or section.facts or section.tables],
        colours={name: f"#{colour.hex()}" for name, colour in COLOURS.items()},
        provenance=page.provenance,
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


def shown(table: Table) -> ShownTable:
    """A table as the page has it."""
    notes = [table.note] if table.note else []
    rows = [[shortened(cell, LONGEST_TEXT) for cell in row] for row in table.rows[:_MOST_ROWS]]
    left_out = len(table.rows) - len(rows)
    if left_out:
        notes.append(f"{left_out:,} more {'row is' if left_out == 1 else 'rows are'} left out; --json has all of them.")
    if any(len(cell) > LONGEST_TEXT for row in table.rows[:_MOST_ROWS] for cell in row):
        notes.append("Long texts are cut in their middle (…); --json has them whole.")
    return ShownTable(table.title, table.headers, rows, notes)


def how_it_was_made(title: str, provenance: Provenance, of_what: tuple[str, str], sources: str) -> Section:
    """The last section: facts, `of_what` (a term and what is so) among them, and a table with the title `sources`."""
    facts = [
        ("Command", shortened(printable(provenance.command), _LONGEST_COMMAND)),
        ("Version", f"pagedup {provenance.version}"),
        ("Begun", provenance.started),
        ("Took", f"{provenance.seconds:,.1f} seconds"),
        of_what,
        ("Kernel", printable(provenance.kernel)),
        ("CPU", printable(provenance.cpu)),
        ("Page size of the host", f"{provenance.page_size:,} bytes"),
    ]
    rows = [
        (printable(source.name), printable(source.kind), f"{source.bytes:,}", source.digest or _NO_DIGEST)
        for source in provenance.sources
    ]
    return Section(title, facts=facts, tables=[shown(Table(sources, ("source", "kind", "bytes", "blake3"), rows))])
