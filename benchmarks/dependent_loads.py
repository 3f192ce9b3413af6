"""Loads that wait for each other, over memory in any order: pointers are written into it, and followed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks import native

LINE = 64  # bytes that a cache holds or does not
_LEAST = 5e-3  # seconds that a timing takes
_ADDITIONS = 200_000  # that the clock is told by, some 60 microseconds


@dataclass(frozen=True)
class Cycle:
    """Pointers in memory, each to another one, the last to the first."""

    start: int
    """An address."""
    length: int
    """Pointers."""


def link(memory: NDArray[np.uint8], places: NDArray[np.int64], dice: np.random.Generator) -> Cycle:
    """Write a pointer into each of these places, offsets in bytes: one cycle through all, in random order."""
    order = dice.permutation(places)
    base = memory.ctypes.data
    memory.view(np.int64)[order // 8] = base + np.roll(order, -1)
    return Cycle(base + int(order[0]), len(order))


class Timer:
    """Goes round and round a cycle: what a load costs, once all has been visited as often as it is then timed."""

    def __init__(self, cycle: Cycle) -> None:
        """Find out how many loads take long enough: a whole cycle at least."""
        self._at = cycle.start
        self._steps = -(-cycle.length // 8) * 8
        while min(self._seconds() for _ in range(2)) < _LEAST:  # twice: one may have been interrupted
            self._steps *= 2

    def __call__(self) -> tuple[float, float]:
        """Nanoseconds and clock cycles of a load."""
        self._seconds()
        before = clock()
        ns = self._seconds() / self._steps * 1e9
        return ns, ns * (before + clock()) / 2

    def _seconds(self) -> float:
        begin = time.perf_counter()
        self._at = native.chase(self._at, self._steps)
        return time.perf_counter() - begin


def medians(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of nanoseconds, and of clock cycles."""
    ns, cycles = zip(*samples, strict=True)
    return statistics.median(ns), statistics.median(cycles)


def clock() -> float:
    """Cycles of the CPU's clock in a nanosecond, now: additions that wait for each other take one each."""
    best = 1.0
    for _ in range(3):
        begin = time.perf_counter()
        native.add(_ADDITIONS)
        best = min(best, time.perf_counter() - begin)
    return _ADDITIONS / best / 1e9
