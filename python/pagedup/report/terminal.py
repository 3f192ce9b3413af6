"""Results for a person at a terminal; imported only when they are printed, since rich is slow to import."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from pagedup.report.scan_result import ScanResult
from pagedup.report.table import Table
from pagedup.report.tables import scan_tables
from pagedup.report.verdict import verdict

MIN_WIDTH = 120
"""Columns that the tables need; on less, rich would cut numbers off."""


def scan_text(result: ScanResult) -> RenderableType:
    """All that `pagedup scan` shows: the tables, and the verdict."""
    return answer_text(scan_tables(result), verdict(result))


def answer_text(tables: Sequence[Table], sentences: Sequence[str]) -> RenderableType:
    """Tables, and what follows from them."""
    return Group(*(_drawn(table) for table in tables), *(Text(sentence) for sentence in sentences))


def _drawn(table: Table) -> RichTable:
    """A table with its first column to the left and numbers to the right; numbers never wrap, names may."""
    drawn = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, header in enumerate(table.headers):
        first = index == 0
        drawn.add_column(
            Text(header),
            justify="left" if first else "right",
            no_wrap=not first,
            overflow="fold",
        )
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    if table.note:
        drawn.caption = Text(f"{table.note}\n")
        drawn.caption_justify = "left"
    return drawn
