"""A table as text in rows and columns; how it is shown (terminal, HTML) is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """One table. The first column holds names, the others hold numbers; `note` explains the headers."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
