"""The answer of a command: tables or JSON on stdout, and a page of HTML where it was asked for."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pagedup.cli.command import Parser
from pagedup.cli.html_file import refuse_early, write_report

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pagedup.report.provenance import Provenance, SourceDigest


class Answer(Protocol):
    """What a command found, in all ways in which it can be shown. Only the one that is asked for is made."""

    def data(self) -> dict[str, Any]:
        """As what `json.dumps` takes."""

    def text(self) -> RenderableType:
        """For a terminal."""

    def sources(self) -> Sequence[SourceDigest]:
        """What it was made from."""

    def html(self, provenance: Provenance) -> str:
        """As a page."""


def add_answer_options(parser: Parser, schema: str) -> None:
    """The options `--html` and `--json`."""
    parser.add_argument("--html", metavar="FILE", help="write a report with pictures there, too (extra `report`)")
    parser.add_argument("--json", action="store_true", help=f"print the result as JSON, schema {schema}")


def answer(options: Namespace, command: Sequence[str], find: Callable[[], Answer]) -> None:
    """Find it, and show it as the options say. `command`: the words of the command line."""
    if options.html is not None:
        refuse_early(options.html)  # as all that can fail at once does first: finding may take minutes
    begin, clock = time.time(), time.monotonic()
    found = find()
    try:
        if options.html is not None:
            write_report(options.html, found, command, begin, time.monotonic() - clock)
    finally:  # a report that cannot be written must not cost the answer
        if options.json:
            print(json.dumps(found.data(), indent=2))
        else:
            _print_text(found)


def _print_text(found: Answer) -> None:
    # Only here: rich is slow to import, and programs read the JSON.
    from rich.console import Console

    from pagedup.report.terminal import MIN_WIDTH

    console = Console()
    # A narrow terminal breaks a long line in two, where rich would cut numbers off; a file has no width at all.
    console.width = max(console.width, MIN_WIDTH)
    console.print(found.text())
