"""Progress on stderr, for a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pagedup.report.units import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from pagedup.memory import Progress as Report


@contextmanager
def progress_display() -> Iterator[Report | None]:
    """A function that shows how far a phase is, while the block runs; None when nobody watches."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    # Only here: rich is slow to import, and programs do not see it.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        phases: dict[str, TaskID] = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in phases:
                phases[phase] = display.add_task(printable(phase), total=total)
            # What is done makes room: each of fifty processes is a phase.
            display.update(phases[phase], completed=done, total=total, visible=done < total)

        yield show
