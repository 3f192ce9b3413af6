"""Hold simulated guests against what was published of real ones, and against what this repository measures.

    python -m benchmarks.published

Prints a table in Markdown: published, simulated, measured. The exit status is 1 when a row disagrees and figures.py
does not say why, or agrees though it says why not.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.figure_table import is_odd, reasons, row, verdict
from benchmarks.figures import FIGURES, Figure
from benchmarks.simulated import simulate

SEEDS = (0, 1, 2, 3, 4)
_COLUMNS = ("what", "of", "source", "published", "simulated", "least .. most", "measured", "use", "verdict")
_NOTES = """\
Simulated: the median of five seeds. It agrees within a quarter of the figure (2 points at least), or within the range
that the source gives. Measured: the eight guests of the README, by `pagedup scan`; relocations, by
`python -m benchmarks.relocation`. [P]: read in the source, [S]: quoted by others, [D]: derived from it, [M]: measured
on guests that are gone.

What tunes and what judges was decided before anything was tuned. But whoever assumed a value had read all figures, and
two rows that judge hang on such values, and so say little: what ten Linux guests share, and how much of the five other
Debian guests is zero."""


def main() -> int:
    """Print the table; returns the exit status."""
    simulated: dict[str, list[float]] = {figure.key: [] for figure in FIGURES}
    for seed in SEEDS:
        if sys.stderr.isatty():
            print(f"simulating, seed {seed}", file=sys.stderr)
        for key, value in simulate(seed).items():
            simulated[key].append(value)
    for line in _lines(simulated):
        print(line)
    return int(any(is_odd(figure, _holds(figure, simulated[figure.key])) for figure in FIGURES))


def _holds(figure: Figure, values: Sequence[float]) -> bool:
    return figure.holds(statistics.median(values))


def _lines(simulated: Mapping[str, Sequence[float]]) -> Iterator[str]:
    yield row(_COLUMNS)
    yield row(["---"] * len(_COLUMNS))
    for figure in FIGURES:
        values = simulated[figure.key]
        yield row(
            [
                figure.what,
                figure.counts,
                f"[{figure.tag}]",
                figure.published,
                f"{statistics.median(values):.1f}{figure.unit}",
                f"{min(values):.1f} .. {max(values):.1f}",
                figure.measured,
                figure.use,
                verdict(figure, _holds(figure, values)),
            ]
        )
    yield f"\n{_NOTES}\n"
    yield from reasons(FIGURES)


if __name__ == "__main__":
    sys.exit(main())
