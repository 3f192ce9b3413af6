"""What a load costs that waits for the one before it, from each cache and from memory, while no TLB misses.

It must not, whatever the page size: a host may give a guest's large pages in small ones, which this cannot see. So
few pages are visited, and what the first two caches can hold of them is chased round and round. From beyond, lines
are chased once, after reading something else has driven them out of the caches that are nearer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import native
from benchmarks.dependent_loads import LINE, Timer, clock, link, medians
from benchmarks.measure import undisturbed
from benchmarks.page_sizes import LARGE, SMALL, Pages

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_PAGES = 32  # that any first-level TLB holds, with room left for the stack and the like
_LINES = 8  # of each page: far apart, as fetching a line may bring its neighbour
_SPREAD = 64 << 20  # bytes that the pages are spread over, as memory is faster where it was just read nearby
_ROUNDS = 25


def cache_sizes() -> dict[str, int]:
    """Bytes of the first CPU's caches for data, by name: L1d, L2 and L3."""
    found = {}
    for folder in _CACHES.glob("index*"):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level}" + "d" * (kind == "Data")] = int(size.removesuffix("K")) << 10
    if sorted(found) != ["L1d", "L2", "L3"]:
        raise RuntimeError(f"{_CACHES} tells not of L1d, L2 and L3, but of {sorted(found)}")
    return dict(sorted(found.items()))


def latencies(caches: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    """Nanoseconds and clock cycles of a load, by where the line is: in a cache, of these bytes, or in memory."""
    pages = Pages(_SPREAD, SMALL).memory
    other = Pages(-(-8 * caches["L3"] // LARGE) * LARGE, SMALL).memory
    found = {}
    with undisturbed(1):
        for name in ("L1d", "L2"):
            size = min(caches[name] // 2, _PAGES * SMALL)
            assert name == "L1d" or size >= 2 * caches["L1d"]
            timer = Timer(link(pages, np.arange(0, size, LINE), np.random.default_rng(0)))
            found[name] = medians([timer() for _ in range(_ROUNDS)])
        found["L3"] = _driven_out(pages, other[: 2 * caches["L2"]])
        found["memory"] = _driven_out(pages, other)
    return found


def l3_after(caches: Mapping[str, int]) -> Callable[[float], float]:
    """What a load from L3 costs, in nanoseconds, when the lines there were left alone for so many seconds."""
    pages, other = Pages(_SPREAD, SMALL).memory, Pages(-(-2 * caches["L2"] // LARGE) * LARGE, SMALL).memory

    def after(seconds: float) -> float:
        with undisturbed(1):
            return _driven_out(pages, other, seconds)[0]

    return after


def _driven_out(pages: NDArray[np.uint8], other: NDArray[np.uint8], wait: float = 0.0) -> tuple[float, float]:
    """Of lines in these pages, after the other memory has been read, and then none for so many seconds."""
    dice = np.random.default_rng(0)
    # One page to a set of a TLB. Its first line is visited to have it in the TLB, and then the others.
    first = (dice.integers(_SPREAD // SMALL // _PAGES, size=_PAGES) * _PAGES + np.arange(_PAGES)) * SMALL
    part = SMALL // _LINES
    apart = np.arange(0, SMALL, part) + dice.integers(part // 2, part, size=(_PAGES, _LINES)) // LINE * LINE
    tlb = link(pages, first, dice)
    cycle = link(pages, (first[:, None] + apart).ravel(), dice)
    reader = native.readers()[-1]
    samples = []
    for _ in range(_ROUNDS):
        native.chase(cycle.start, cycle.length)
        for _ in range(2):  # what was read once need not have replaced all else
            native.read(other, reader)
        native.add(round(wait * 1e9 * clock()) // 8 * 8)
        native.chase(tlb.start, 2 * tlb.length)
        call = min(_seconds(tlb.start, 0) for _ in range(3))  # the first time code, too, comes from memory
        seconds = _seconds(cycle.start, cycle.length) - call
        ns = seconds / cycle.length * 1e9
        samples.append((ns, ns * clock()))
    return medians(samples)


def _seconds(start: int, steps: int) -> float:
    begin = time.perf_counter()
    native.chase(start, steps)
    return time.perf_counter() - begin
