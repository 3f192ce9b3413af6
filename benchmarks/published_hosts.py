"""Hold simulated hosts against what was published of real ones.

    python -m benchmarks.published_hosts

Prints a table in Markdown: published, simulated. The exit status is 1 when a row disagrees and host_figures.py does not
say why, or agrees though it says why not.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from benchmarks.figure_table import is_odd, reasons, row, verdict
from benchmarks.figures import Figure
from benchmarks.host_figures import HOST_FIGURES
from benchmarks.simulated_hosts import Values, simulate
from dedupcore import available_threads
from pagedup.host.side_by_side import Progress, side_by_side

SEEDS = (0, 1, 2, 3, 4)
_COLUMNS = ("what", "of", "source", "published", "simulated", "least .. most", "verdict")
_NOTES = """\
Simulated: the mean of five seeds. It agrees if each of them is within what the source gives. [P]: read in the source,
[D]: derived from it."""


def main() -> int:
    """Print the table; returns the exit status."""
    calls: list[Callable[[Progress | None], Values]] = [partial(_simulate, seed) for seed in SEEDS]
    runs = side_by_side(calls, available_threads(), None)
    simulated = {figure.key: [run[figure.key] for run in runs] for figure in HOST_FIGURES}
    for line in _lines(simulated):
        print(line)
    return int(any(is_odd(figure, _holds(figure, simulated[figure.key])) for figure in HOST_FIGURES))


def _simulate(seed: int, progress: Progress | None) -> Values:
    if sys.stderr.isatty():
        print(f"simulating, seed {seed}", file=sys.stderr)
    return simulate(seed)


def _holds(figure: Figure, values: Sequence[float]) -> bool:
    return all(figure.holds(value) for value in values)


def _lines(simulated: Mapping[str, Sequence[float]]) -> Iterator[str]:
    yield row(_COLUMNS)
    yield row(["---"] * len(_COLUMNS))
    for figure in HOST_FIGURES:
        values = simulated[figure.key]
        yield row(
            [
                figure.what,
                figure.counts,
                f"[{figure.tag}]",
                figure.published,
                f"{statistics.fmean(values):.4g}{figure.unit}",
                f"{min(values):.4g} .. {max(values):.4g}",
                verdict(figure, _holds(figure, values)),
            ]
        )
    yield f"\n{_NOTES}\n"
    yield from reasons(HOST_FIGURES)


if __name__ == "__main__":
    sys.exit(main())
