"""What tables of published figures have in common: their rows, their verdicts, and why some figures are not met."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from benchmarks.figures import Figure


def row(cells: Sequence[str]) -> str:
    """One of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def is_odd(figure: Figure, holds: bool) -> bool:
    """Whether it holds, or does not, other than the figure says of itself."""
    return figure.use != "told" and holds == bool(figure.disagrees)


def verdict(figure: Figure, holds: bool) -> str:
    """Whether what was simulated agrees; with an exclamation mark where that is odd."""
    if figure.use == "told":
        return ""
    told = "agrees" if holds else "**disagrees**"
    return f"! {told}" if is_odd(figure, holds) else told


def reasons(figures: Sequence[Figure]) -> Iterator[str]:
    """Lines that say why some figures are not met."""
    yield "Why some disagree:\n"
    for figure in figures:
        if figure.disagrees:
            yield textwrap.fill(f"- {figure.what}: {figure.disagrees}", 120, subsequent_indent="  ")
