"""Measurements of generated guests: how fast they are made, and what they take beside their names.

Run as a child process it prints the memory that generating takes at its peak, beyond the names, in bytes a page (JSON).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.measure import Outcome
from benchmarks.memory import NotEnoughMemory, available_bytes, forget_peak, peak_bytes, resident_bytes
from benchmarks.settings import Settings
from pagedup.guests import generate, preset

_PRESET = "vdi-50"  # 4 GiB each
_FLOOR = 40e6  # pages a second
_NAME = 8  # bytes


def layouts(settings: Settings) -> Iterator[Outcome]:
    """Fifty guests of 4 GiB: how fast they are generated, with two threads, and the memory that takes."""
    spec = preset(_PRESET)
    count = 4 if settings.quick else spec.guests
    if available_bytes() < 4 << 30:
        raise NotEnoughMemory("4 GiB of memory are needed")
    times = []
    n_pages = 0
    for seed in range(1 + max(3, min(settings.rounds, 9))):
        begin = time.perf_counter()
        made = generate(spec, count, seed, threads=2)
        times.append(time.perf_counter() - begin)
        n_pages = sum(layout.n_pages for layout in made)
        del made
    del times[0]  # which loaded what only the first call loads
    yield Outcome(
        "layouts",
        f"{count} guests of 4 GiB: pages a second / 40 million, two threads",
        [n_pages / seconds / _FLOOR for seconds in times],
        1,
        note=f"best: {n_pages / min(times) / 1e6:.0f} million a second",
    )
    command = [sys.executable, "-m", "benchmarks.layouts", str(count)]
    beyond = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
    yield Outcome("layouts", "the same: memory at its peak beyond the names, bytes a page", beyond, 2, "at most")


def peak(count: int) -> float:
    """Bytes a page that generating takes at its peak, beyond the names."""
    generate(preset("debian-server"), 1)  # what only the first call loads
    forget_peak()
    before = resident_bytes()
    made = generate(preset(_PRESET), count, threads=2)
    return (peak_bytes() - before) / sum(layout.n_pages for layout in made) - _NAME


if __name__ == "__main__":
    print(json.dumps(peak(int(sys.argv[1]))))
