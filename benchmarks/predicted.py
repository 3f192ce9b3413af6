"""What the model of TLBs, walks and caches says of a pointer chase."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.page_sizes import LARGE
from pagedup.tlb import Cache, Geometry, Tlb, Translations

_LEAST = 2000  # loads that are counted, after as many that are not
_CLOSE = 0.02  # relative: how far lines in L3 may be from what they would have to be
_MOST_TRIES = 30


@dataclass(frozen=True)
class Setting:
    """What the model knows of the machine; none of it from the chases that it is held beside."""

    geometry: Geometry
    host_page_size: int | None
    """Bytes; None: no host."""
    l3_lifetime: float
    """Seconds that L3 keeps a line which is left alone."""


@dataclass(frozen=True)
class Prediction:
    """Of a load."""

    cycles: float
    found: Translations
    """Of all loads that were counted."""

    def a_load(self, number: float) -> float:
        """Of all loads, as many each."""
        return number / self.found.accesses


def with_latencies(geometry: Geometry, found: Mapping[str, tuple[float, float]]) -> Geometry:
    """The same with nanoseconds and cycles as measured, by name: L1d, L2, L3, memory."""
    ns, cycles = found["memory"]
    data_cycles = (found["L1d"][1], found["L2"][1], found["L3"][1])
    return replace(geometry, data_cycles=data_cycles, memory_ns=ns, ghz=cycles / ns)


def predict(setting: Setting, cycle: NDArray[np.uint64], page_size: int) -> Prediction:
    """Of going round and round these addresses, in bytes, in this order, over memory in pages of this size.

    Others fill L3 as well. Of a cache that keeps what was used last, they leave us what we use within the lifetime of
    a line: that many lines, if it is less than all. How many we use in that time hangs on what a load costs, and so on
    how many there are. A chase begins after others, with nothing in L3, so it is the least that fits.
    """
    if math.isinf(setting.l3_lifetime):
        return _with_l3(setting, setting.geometry.data[2], cycle, page_size)
    lines = 1
    for _ in range(_MOST_TRIES):
        found = _with_l3(setting, Cache(lines), cycle, page_size)
        beyond_l2 = found.a_load(sum(found.found.references_found[2:]) + sum(found.found.data_found[2:]))
        loads = setting.l3_lifetime * setting.geometry.ghz * 1e9 / found.cycles
        used = math.ceil(loads * beyond_l2)
        if used >= setting.geometry.data[2].entries:
            return _with_l3(setting, setting.geometry.data[2], cycle, page_size)
        if used <= lines * (1 + _CLOSE):
            return found
        lines = used
    return found


def _with_l3(setting: Setting, l3: Cache, cycle: NDArray[np.uint64], page_size: int) -> Prediction:
    geometry = replace(setting.geometry, data=(*setting.geometry.data[:2], l3))
    memory = -(-(int(cycle.max()) + 1) // LARGE) * LARGE
    host = setting.host_page_size
    tlb = Tlb(geometry, memory, page_size, host_page_size=host, table_page_size=host or page_size)
    rounds = np.tile(cycle, -(-_LEAST // len(cycle)))
    tlb.access(rounds)
    found = tlb.access(rounds)
    return Prediction((found.cycles + found.data_cycles) / found.accesses, found)
