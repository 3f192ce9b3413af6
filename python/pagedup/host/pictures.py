"""The numbers behind the pictures of a simulation: a run's memory and slowdown in as many columns as can be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.host.result import Run, Sample

_COLUMNS = 300
"""So many can be told apart in the width of a page."""


class Layer(IntEnum):
    """Where guests' memory is, from the bottom of the picture to its top."""

    HELD = 0
    """In frames of the host, those of the compression cache included."""
    ZERO = 1
    """Saved by sharing zero pages."""
    EQUAL = 2
    """Saved by sharing other pages."""
    BALLOONED = 3
    COMPRESSED = 4
    SWAPPED = 5


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A time in which the hypervisor's word for how short memory is was the same; first and last column of it."""

    state: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """A run in columns of equally many samples, give or take one; at most one column a sample.

    Attributes:
        times: float64 ndarray (n_columns,), ascending: seconds of simulated time, the last of a column's samples.
        layers: float64 ndarray (n_columns, 6): bytes in each Layer, the mean of the column.
        slowdown: float64 ndarray (n_columns,): the mean of the column.
        worst: float64 ndarray (n_columns,): the greatest of the column.
        bands: what the state was in which columns: of a column the word that most of its samples have, the later one
            where two have as many. They cover all columns.
    """

    times: NDArray[np.float64]
    layers: NDArray[np.float64]
    slowdown: NDArray[np.float64]
    worst: NDArray[np.float64]
    bands: tuple[Band, ...]


def timeline(run: Run, *, columns: int = _COLUMNS) -> Timeline:
    """The run's samples, of which there must be one, as columns."""
    samples = run.samples
    edges = np.linspace(0, len(samples), min(columns, len(samples)) + 1).astype(int)
    parts = [samples[begin:end] for begin, end in pairwise(edges.tolist())]
    return Timeline(
        times=np.array([part[-1].time for part in parts]),
        layers=np.array([np.mean([_layers(sample) for sample in part], axis=0) for part in parts]) * PAGE,
        slowdown=np.array([np.mean([sample.slowdown for sample in part]) for part in parts]),
        worst=np.array([max(sample.worst for sample in part) for part in parts]),
        bands=_bands([_state(part) for part in parts]),
    )


def _layers(sample: Sample) -> tuple[int, ...]:
    """Pages, in the order of Layer."""
    return (
        sample.held,
        sample.saved_zero,
        sample.saved_equal,
        sample.ballooned,
        sample.compressed,
        sample.swapped,
    )


def _state(part: Sequence[Sample]) -> str:
    states = Counter(sample.state for sample in part)
    most = max(states.values())
    return next(sample.state for sample in reversed(part) if states[sample.state] == most)


def _bands(states: Sequence[str]) -> tuple[Band, ...]:
    starts = [column for column, state in enumerate(states) if not column or state != states[column - 1]]
    ends = [*(start - 1 for start in starts[1:]), len(states) - 1]
    return tuple(Band(states[first], first, last) for first, last in zip(starts, ends, strict=True))
