"""Measurements of generated guests: how fast they are made, and what they take beside their names."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.measure import Outcome
from benchmarks.memory import NotEnoughMemory, available_bytes, forget_peak, peak_bytes, resident_bytes
from benchmarks.settings import Settings
from pagedup.guests import Layout, generate, preset

_FLOOR = 40e6  # pages a second
_NAME = 8  # bytes


def layouts(settings: Settings) -> Iterator[Outcome]:
    """Fifty guests of 4 GiB: how fast they are generated, with two threads, and the memory that takes."""
    spec = preset("vdi-50")
    count = 4 if settings.quick else spec.guests
    if available_bytes() < 4 << 30:
        raise NotEnoughMemory("4 GiB of memory are needed")
    generate(spec, 1)  # what only the first call loads
    times, beyond = [], []
    n_pages = 0
    for seed in range(max(3, min(settings.rounds, 7))):
        forget_peak()
        before = resident_bytes()
        begin = time.perf_counter()
        made: list[Layout] = generate(spec, count, seed, threads=2)
        times.append(time.perf_counter() - begin)
        n_pages = sum(layout.n_pages for layout in made)
        beyond.append((peak_bytes() - before) / n_pages - _NAME)
        del made
    yield Outcome(
        "layouts",
        f"{count} guests of 4 GiB: pages a second / 40 million, two threads",
        [n_pages / seconds / _FLOOR for seconds in times],
        1,
        note=f"best: {n_pages / min(times) / 1e6:.0f} million a second",
    )
    yield Outcome("layouts", "the same: memory at its peak beyond the names, bytes a page", beyond, 2, "at most")
