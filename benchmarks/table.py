"""The table of what was measured, for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.measure import Outcome

_STYLES = {"ok": "green", "BELOW": "bold red", "ABOVE": "bold red", "skipped": "yellow", "": ""}
_WIDTH = 160


def print_table(outcomes: Sequence[Outcome], facts: Mapping[str, str]) -> None:
    """Print one line an outcome, then what it was measured on."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("row", "what", "median", "least .. most", "bound", "", "notes"):
        table.add_column(column, justify="right" if column in ("median", "least .. most") else "left", overflow="fold")
    for outcome in outcomes:
        verdict = outcome.verdict
        spread = f"{number(min(outcome.ratios))} .. {number(max(outcome.ratios))}" if outcome.ratios else ""
        table.add_row(
            outcome.row,
            Text(outcome.what),
            number(outcome.median) if outcome.ratios else "",
            spread,
            "" if outcome.bound is None else f"{outcome.sense} {number(outcome.bound)}",
            Text(verdict, _STYLES[verdict]),
            Text(outcome.note),
        )
    console = Console()
    console.width = max(console.width, _WIDTH)
    console.print(table)
    for name, fact in facts.items():
        console.print(Text(f"{name}: {fact}"))


def number(value: float) -> str:
    """With three digits or so."""
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"
