"""How long a line that is left alone stays in L3, which others may fill: guests of the same host, for one.

A cache that keeps what was used last, and that others share, holds of us what we used within this time. Nothing of
the chases that the model is held beside is used to find it.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

_LADDERS = 5  # what others do comes and goes
_LADDER = tuple(step * 1e-3 for step in (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0))


def lifetime(after: Callable[[float], float], l3_ns: float, memory_ns: float) -> float:
    """Seconds after which a load costs the mean of one from L3 and one from memory; inf: not within 32 ms.

    after: what a load costs, in nanoseconds, when the line was left alone for so many seconds. The median of some.
    """
    return statistics.median(_climb(after, (l3_ns + memory_ns) / 2) for _ in range(_LADDERS))


def _climb(after: Callable[[float], float], middle: float) -> float:
    costs = ((seconds, after(seconds)) for seconds in _LADDER)
    for (short, low), (long, high) in itertools.pairwise(costs):
        if low >= middle:  # gone at once
            return short
        if high >= middle:
            return short + (long - short) * (middle - low) / (high - low)
    return math.inf
