"""Compare pagedup with its peers and with the physical limit; the exit status is 1 when a bound is missed."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import OtherLoad, machine
from benchmarks.measure import Outcome, exit_status
from benchmarks.memory import NotEnoughMemory
from benchmarks.native import CompileError
from benchmarks.realram import NoRealMemory
from benchmarks.rows import ON_REAL_MEMORY, ROWS
from benchmarks.settings import Settings
from benchmarks.table import print_table


def measure(rows: Sequence[str], settings: Settings) -> list[Outcome]:
    """Measure these rows in their order; a row that cannot be measured here is skipped by name."""
    outcomes = []
    for row in sorted(rows, key=list(ROWS).index):
        if row not in ON_REAL_MEMORY:
            settings.release_real()
        settings.say(f"--- {row}")
        try:
            for outcome in ROWS[row](settings):
                median = f": {outcome.median:.2f} {outcome.verdict}" if outcome.ratios else ": skipped"
                settings.say(f"{outcome.what}{median}")
                outcomes.append(outcome)
        except (NoRealMemory, NotEnoughMemory) as error:
            settings.say(f"{row} skipped: {error}")
            outcomes.append(Outcome(row, (ROWS[row].__doc__ or "").partition("\n")[0], [], note=str(error)))
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help=" ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=15, help="rounds a comparison, fewer where a round is slow")
    parser.add_argument("--dumps", type=Path, metavar="DIR", help="raw dumps of guests' RAM (default: boots guests)")
    parser.add_argument("--no-huge", action="store_true", help="hold memory in small pages (default: as QEMU does)")
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the size: to try it; no fair judgement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all ratios there, too")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least 1 is needed")
    settings = Settings(options.rounds, options.dumps, not options.no_huge, options.quick)
    if not set(options.only).isdisjoint(ON_REAL_MEMORY):
        with contextlib.suppress(NoRealMemory):  # the rows that need it will say so
            settings.dump_paths()
    load = OtherLoad()
    try:
        outcomes = measure(sorted(set(options.only)), settings)
    except CompileError as error:
        print(f"bench: a C compiler is needed: {error}", file=sys.stderr)
        return 1
    facts = {"machine": machine(), "other processes": str(load), **settings.described}
    print_table(outcomes, facts)
    if options.json:
        rows = [
            {
                "row": outcome.row,
                "what": outcome.what.strip(),
                "ratios": list(outcome.ratios),
                "bound": outcome.bound,
                "sense": outcome.sense,
                "verdict": outcome.verdict,
                "note": outcome.note,
            }
            for outcome in outcomes
        ]
        report = {"schema": "pagedup.bench/1", "facts": facts, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return exit_status(outcomes)


if __name__ == "__main__":
    sys.exit(main())
