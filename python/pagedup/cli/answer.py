"""The answer of a command that examines guests: tables or JSON on stdout, and a page of HTML where it was asked for."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable, Sequence

from pagedup.cli.command import Parser
from pagedup.cli.examine import Examined
from pagedup.cli.html_file import refuse_early, write_report
from pagedup.report import ScanResult, scan_json


def add_answer_options(parser: Parser) -> None:
    """The options `--html` and `--json`."""
    parser.add_argument("--html", metavar="FILE", help="write a report with pictures there, too (extra `report`)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, schema pagedup.scan/1")


def answer(options: Namespace, command: Sequence[str], find: Callable[[], Examined]) -> None:
    """Find it, and show it as the options say. `command`: the words of the command line."""
    if options.html is not None:
        refuse_early(options.html)  # as all that can fail at once does first: finding may take minutes
    begin, clock = time.time(), time.monotonic()
    examined = find()
    try:
        if options.html is not None:
            write_report(options.html, examined, command, begin, time.monotonic() - clock)
    finally:  # a report that cannot be written must not cost the answer
        if options.json:
            print(json.dumps(scan_json(examined.result), indent=2))
        else:
            _print_tables(examined.result)


def _print_tables(result: ScanResult) -> None:
    # Only here: rich is slow to import, and programs read the JSON.
    from rich.console import Console

    from pagedup.report.terminal import MIN_WIDTH, scan_text

    console = Console()
    # A narrow terminal breaks a long line in two, where rich would cut numbers off; a file has no width at all.
    console.width = max(console.width, MIN_WIDTH)
    console.print(scan_text(result))
