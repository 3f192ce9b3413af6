"""What a load costs that waits for the one before it, by working set and page size: measured on this CPU.

    python -m benchmarks.pointer_chase

Prints two tables in Markdown: what a load costs from each cache and from memory, then what it costs by working
set. There one cache line of each 4 KiB is visited, in random order: as much data with pages of 4 KiB as of 2 MiB.
What differs is how the CPU finds out where it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.cache_latency import cache_sizes, latencies
from benchmarks.dependent_loads import LINE, Timer, link, medians
from benchmarks.figure_table import row
from benchmarks.machine import OtherLoad, machine
from benchmarks.measure import undisturbed
from benchmarks.memory import available_bytes
from benchmarks.page_sizes import LARGE, SMALL, NotGiven, Pages

_LEAST, _MOST = 64 << 10, 4 << 30  # bytes of the working sets
_ROUNDS = 9


@dataclass(frozen=True)
class Chase:
    """A working set, and what a load in it costs."""

    pages: int
    """Of 4 KiB: one line is visited in each."""
    page_size: int
    """That the kernel gave, in bytes; the hardware may be given smaller ones by a host."""
    ns: float
    cycles: float
    """Of the CPU's clock, as it was just then."""


def working_sets() -> list[int]:
    """Powers of two, in bytes; two buffers of the largest take at most a half of the available memory."""
    sizes = [_LEAST]
    while sizes[-1] * 2 <= min(_MOST, available_bytes() // 4):
        sizes.append(sizes[-1] * 2)
    return sizes


def measure(sizes: Sequence[int], rounds: int) -> list[Chase]:
    """Medians of rounds in which each working set, in bytes, has its turn in either page size that is given."""
    buffers = {size: pages for size in (SMALL, LARGE) if (pages := _largest(sizes, size))}
    timers = {}
    for size, pages in buffers.items():
        timers.update({(size, n): timer for n, timer in _timers(pages.memory, sizes).items()})
    with undisturbed(1):
        samples = [{key: timer() for key, timer in timers.items()} for _ in range(rounds)]
    for pages in buffers.values():
        pages.check()
    return [Chase(n, size, *medians([sample[size, n] for sample in samples])) for size, n in timers]


def _largest(sizes: Sequence[int], page_size: int) -> Pages | None:
    """A buffer for the largest working set, or else for the next one, that the kernel has such pages for."""
    for size in sorted(sizes, reverse=True):
        try:
            return Pages(-(-size // LARGE) * LARGE, page_size)
        except NotGiven as why:
            print(why, file=sys.stderr)
    return None


def _timers(memory: NDArray[np.uint8], sizes: Sequence[int]) -> dict[int, Timer]:
    """By pages of 4 KiB: each the first ones, with lines of its own, which are the same in every buffer."""
    lines_a_page = SMALL // LINE
    assert len(sizes) <= lines_a_page
    lines = np.random.default_rng(0).integers(lines_a_page, size=memory.nbytes // SMALL)
    timers = {}
    for number, size in enumerate(sizes):
        n = size // SMALL
        if size <= memory.nbytes:
            places = np.arange(n) * SMALL + (lines[:n] + number) % lines_a_page * LINE
            timers[n] = Timer(link(memory, places, np.random.default_rng(n)))
    return timers


def table(chases: Sequence[Chase]) -> Iterator[str]:
    """Lines in Markdown, a row for each working set."""
    found = {(chase.page_size, chase.pages): chase for chase in chases}
    yield row(["working set", "lines", "4K: ns", "cycles", "2M: ns", "cycles", "difference: ns", "cycles"])
    yield row(["---", *["---:"] * 7])
    for pages in sorted({chase.pages for chase in chases}):
        yield row([_size(pages * SMALL), _size(pages * LINE), *_cells(found, pages)])


def _cells(found: Mapping[tuple[int, int], Chase], pages: int) -> Iterator[str]:
    small, large = found.get((SMALL, pages)), found.get((LARGE, pages))
    for chase in (small, large):
        yield from (f"{chase.ns:.1f}", f"{chase.cycles:.0f}") if chase else ("not given", "")
    if small and large:
        yield from (f"{small.ns - large.ns:z.1f}", f"{small.cycles - large.cycles:z.0f}")
    else:
        yield from ("", "")


def _size(size: int) -> str:
    for unit, name in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >> unit:
            return f"{size >> unit} {name}"
    return f"{size} B"


def main() -> None:
    """Print the tables."""
    load = OtherLoad()
    caches = cache_sizes()
    print(f"{machine()}; caches: {', '.join(f'{name} {_size(size)}' for name, size in caches.items())}\n")
    print(row(["a load from", "ns", "cycles"]))
    print(row(["---", "---:", "---:"]))
    for name, (ns, cycles) in latencies(caches).items():
        print(row([name, f"{ns:.1f}", f"{cycles:.1f}"]))
    print()
    for line in table(measure(working_sets(), _ROUNDS)):
        print(line)
    print(f"\nOthers took {load}")


if __name__ == "__main__":
    main()
