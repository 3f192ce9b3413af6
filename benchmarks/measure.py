"""Timing side by side: rounds in which every side runs once, and what the bounds say about the ratios."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Times = dict[str, float]
"""Seconds by side, of one round."""

_BUDGET = 30.0  # seconds for one comparison; fewer rounds are run where they take longer, but these at least:
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Outcome:
    """One line of the table: a ratio for each round, judged by their median; no ratios: it was skipped."""

    row: str
    what: str
    ratios: Sequence[float]
    bound: float | None = None  # None: told, not judged
    sense: Literal["at least", "at most"] = "at least"
    note: str = ""

    @property
    def median(self) -> float:
        """What is judged."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> Literal["ok", "BELOW", "ABOVE", "skipped", ""]:
        """Which side of the bound the median is on."""
        if not self.ratios:
            return "skipped"
        if self.bound is None:
            return ""
        if self.sense == "at least":
            return "ok" if self.median >= self.bound else "BELOW"
        return "ok" if self.median <= self.bound else "ABOVE"

    @property
    def failed(self) -> bool:
        """Whether it is on the wrong side."""
        return self.verdict in ("BELOW", "ABOVE")


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """1 if a bound was missed, or nothing at all was measured."""
    return int(any(outcome.failed for outcome in outcomes) or all(not outcome.ratios for outcome in outcomes))


def rounds_of(
    sides: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    cpus: int = 1,
    check: Callable[[dict[str, Any]], None] | None = None,
) -> list[Times]:
    """Run every side once a round, in turned order each time, on so many CPUs.

    The first round is not counted; what its sides returned is handed to `check`, by side.
    """
    with undisturbed(cpus):
        start = time.perf_counter()
        results = {name: side() for name, side in sides.items()}
        affordable = int(_BUDGET / (time.perf_counter() - start))
        if check is not None:
            check(results)
        results.clear()
        count = max(min(rounds, affordable), min(rounds, _LEAST_ROUNDS))
        return [_round(sides, list(sides)[:: -1 if n % 2 else 1]) for n in range(count)]


def silently(command: Sequence[str]) -> None:
    """Run a command that must succeed, without its output."""
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _round(sides: Mapping[str, Callable[[], Any]], order: Sequence[str]) -> Times:
    times = {}
    for name in order:
        start = time.perf_counter()
        result = sides[name]()
        times[name] = time.perf_counter() - start
        del result  # freeing it is in nobody's time
    return times


@contextmanager
def undisturbed(cpus: int) -> Iterator[None]:
    """On the last of the CPUs that may be used, as the first ones serve most interrupts; without garbage collection."""
    before = os.sched_getaffinity(0)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    os.sched_setaffinity(0, sorted(before)[-cpus:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        if collecting:
            gc.enable()
