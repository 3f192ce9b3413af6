"""Pointer chases as measured and as the model has them, side by side: where they differ, and what is known of why."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.dependent_loads import LINE
from benchmarks.figure_table import row
from benchmarks.page_sizes import LARGE, SMALL
from benchmarks.predicted import Prediction, Setting, predict

TOLERANCE = 0.25  # of what was measured
NAMES = {SMALL: "4K", LARGE: "2M"}

_L3 = (
    "others share L3: what a round leaves there is there in the next one if that comes soon, and it comes soon if it"
    " is there. What was measured lies between the model with L3 to itself and the model without it"
)
_WALK = (
    "TLB misses whose page table entries are near, in L1 or L2: then it counts what a walk takes to begin. No published"
    " figure was found, and the model has none"
)
_EDGE = (
    "a TLB or cache is about as large as what is visited: real ones do not quite give up what was used longest ago, and"
    " other memory needs some of them"
)
_UNKNOWN = "not known"


@dataclass(frozen=True)
class Compared:
    """One working set in pages of one size."""

    size: int
    """Bytes."""
    page_size: int
    measured: float
    """Cycles of a load."""
    model: Prediction
    reasons: tuple[str, ...]
    """Why the two differ; none where they do not."""

    @property
    def ratio(self) -> float:
        """Model / measured."""
        return self.model.cycles / self.measured

    @property
    def agrees(self) -> bool:
        """Whether the model is within the tolerance."""
        return is_near(self.model.cycles, self.measured)


def is_near(model: float, measured: float) -> bool:
    """Whether these differ by no more than the tolerance."""
    return abs(model - measured) <= TOLERANCE * measured


def compare(setting: Setting, cycle: NDArray[np.uint64], page_size: int, measured: float) -> Compared:
    """What the model has for this cycle of addresses; measured: cycles of a load."""
    model = predict(setting, cycle, page_size)
    reasons = () if is_near(model.cycles, measured) else tuple(_reasons(setting, cycle, page_size, measured, model))
    return Compared(len(cycle) * SMALL, page_size, measured, model, reasons)


def _reasons(
    setting: Setting, cycle: NDArray[np.uint64], page_size: int, measured: float, model: Prediction
) -> Iterator[str]:
    alone, without = (
        predict(replace(setting, l3_lifetime=seconds), cycle, page_size).cycles for seconds in (math.inf, 0.0)
    )
    by_l3 = alone <= measured <= without and not is_near(alone, without)
    near, far = sum(model.found.references_found[:2]), sum(model.found.references_found[2:])
    by_walks = measured > model.cycles and model.a_load(sum(model.found.misses)) > 0.5 and near > 3 * far
    if by_l3:
        yield _L3
    if by_walks:
        yield _WALK
    if not by_l3 and not by_walks:
        yield _EDGE if _is_at_an_edge(setting, len(cycle), page_size) else _UNKNOWN


def _is_at_an_edge(setting: Setting, pages: int, page_size: int) -> bool:
    geometry = setting.geometry
    entry = min(page_size, setting.host_page_size or page_size)
    tlbs = [geometry.caches[level[entry]].entries * entry for level in (geometry.l1, geometry.l2) if entry in level]
    full = [size // SMALL for size in tlbs] + [cache.entries for cache in geometry.data[:2]]
    return any(each / 2 <= pages <= each * 2 for each in full)


def size_name(size: int) -> str:
    """A round number of bytes."""
    for unit, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >> unit:
            return f"{size >> unit} {name}"
    return f"{size} B"


def table(rows: Sequence[Compared]) -> Iterator[str]:
    """Lines in Markdown, a row for each working set; bold is what is off."""
    found = {(each.page_size, each.size): each for each in rows}
    yield row(["working set", "lines", *(f"{name}: {what}" if not i else what for name in NAMES.values()
               for i, what in enumerate(("measured", "model", "ratio")))])  # fmt: skip
    yield row(["---", *["---:"] * 7])
    for size in sorted({each.size for each in rows}):
        cells = [size_name(size), size_name(size // SMALL * LINE)]
        for page_size in NAMES:
            each = found.get((page_size, size))
            if each:
                ratio = f"{each.ratio:.2f}"
                measured, model = f"{each.measured:.0f}", f"{each.model.cycles:.0f}"
                cells += [measured, model, ratio if each.agrees else f"**{ratio}**"]
            else:
                cells += ["not given", "", ""]
        yield row(cells)


def verdict(rows: Sequence[Compared]) -> Iterator[str]:
    """Lines: how many are near, and for the others what is known of why."""
    yield f"{sum(each.agrees for each in rows)} of {len(rows)} within {TOLERANCE:.0%}."
    off = [each for each in rows if not each.agrees]
    if off:
        yield "\nWhere the model is off, and what may be why:\n"
    for reason in (_L3, _WALK, _EDGE, _UNKNOWN):
        told = ", ".join(
            f"{size_name(each.size)} in {NAMES[each.page_size]} ({each.ratio:.2f})"
            for each in off
            if reason in each.reasons
        )
        if told:
            yield textwrap.fill(f"- {told}: {reason}.", 120, subsequent_indent="  ")


def described(setting: Setting) -> Iterator[str]:
    """Lines: what the model was given."""
    geometry, host, lifetime = setting.geometry, setting.host_page_size, setting.l3_lifetime
    yield f"TLBs and caches: {geometry.name}, as published; what a load costs from each cache: as measured above."
    yield f"Host: {'none' if host is None else f'its pages count as {NAMES[host]}'}."
    if math.isinf(lifetime):
        yield "L3: keeps lines that are left alone."
    else:
        yield f"L3: others share it, and a line that is left alone is gone after {lifetime * 1e3:.1f} ms."
