"""Throughput of find_duplicates by kind of memory, under pytest-benchmark: `python -m pytest benchmarks`."""

from collections.abc import Callable

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import data
from benchmarks.memory import allocate
from pagedup import find_duplicates

PAGES = 1 << 16
KINDS: dict[str, tuple[int, Callable[[], np.ndarray[tuple[int], np.dtype[np.uint8]]]]] = {
    "unique pages": (4096, lambda: data.unique(PAGES)),
    "zero pages": (4096, lambda: allocate(PAGES * 4096, huge=True)),
    "equal pairs": (4096, lambda: data.adversarial("equal pairs", PAGES)),
    "names": (8, lambda: data.names(5_000_000).view(np.uint8)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_throughput(benchmark: BenchmarkFixture, kind: str) -> None:
    """One thread; GB/s and frames a second are in the JSON (--benchmark-json=FILE)."""
    frame_size, make = KINDS[kind]
    memory = make()
    found = benchmark(find_duplicates, memory, frame_size=frame_size, threads=1)
    assert found.n_frames == memory.nbytes // frame_size
    if benchmark.stats is None:  # --benchmark-disable
        return
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["GB/s"] = memory.nbytes / seconds / 1e9
    benchmark.extra_info["million frames/s"] = found.n_frames / seconds / 1e6
