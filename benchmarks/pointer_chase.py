"""What a load costs that waits for the one before it, by working set and page size: measured on this CPU.

    python -m benchmarks.pointer_chase [PICTURE.svg]

Prints tables in Markdown: what a load costs from each cache and from memory, then what it costs by working set.
There one cache line of each 4 KiB is visited, in random order: as much data with pages of 4 KiB as of 2 MiB. What
differs is how the CPU finds out where it is. The last table holds the model of that beside it (pagedup.tlb), and
says how near it is. Takes some two minutes, and up to half of the available memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.beside_model import Compared, compare, described, size_name, verdict
from benchmarks.beside_model import table as table_beside
from benchmarks.cache_latency import cache_sizes, l3_after, latencies
from benchmarks.dependent_loads import LINE, Timer, link, medians
from benchmarks.figure_table import row
from benchmarks.host_pages import host_page_size
from benchmarks.l3_lifetime import lifetime
from benchmarks.machine import OtherLoad, machine
from benchmarks.measure import undisturbed
from benchmarks.memory import available_bytes
from benchmarks.page_sizes import LARGE, SMALL, NotGiven, Pages
from benchmarks.predicted import Setting, with_latencies
from pagedup.tlb import this_cpu

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
    """By pages of 4 KiB: each the first ones."""
    return {
        n: Timer(link(memory, visited, _dice(n))) for n, visited in _places(sizes).items() if n * SMALL <= memory.nbytes
    }


def _places(sizes: Sequence[int]) -> dict[int, NDArray[np.int64]]:
    """By pages of 4 KiB, where in them each working set has its lines: none has those of another."""
    lines_a_page = SMALL // LINE
    assert len(sizes) <= lines_a_page
    lines = np.random.default_rng(0).integers(lines_a_page, size=max(sizes) // SMALL)
    counts = [size // SMALL for size in sizes]
    return {n: np.arange(n) * SMALL + (lines[:n] + number) % lines_a_page * LINE for number, n in enumerate(counts)}


def _dice(pages: int) -> np.random.Generator:
    return np.random.default_rng(pages)


def cycles_of(sizes: Sequence[int]) -> dict[int, NDArray[np.uint64]]:
    """By pages of 4 KiB, the offsets of what was measured, in order: link draws that from the same dice."""
    return {n: _dice(n).permutation(visited).astype(np.uint64) for n, visited in _places(sizes).items()}


def table(chases: Sequence[Chase]) -> Iterator[str]:
    """Lines in Markdown, a row for each working set."""
    found = {(chase.page_size, chase.pages): chase for chase in chases}
    yield row(["working set", "lines", "4K: ns", "cycles", "2M: ns", "cycles", "difference: ns", "cycles"])
    yield row(["---", *["---:"] * 7])
    for pages in sorted({chase.pages for chase in chases}):
        yield row([size_name(pages * SMALL), size_name(pages * LINE), *_cells(found, pages)])


def _cells(found: Mapping[tuple[int, int], Chase], pages: int) -> Iterator[str]:
    small, large = found.get((SMALL, pages)), found.get((LARGE, pages))
    for chase in (small, large):
        yield from (f"{chase.ns:.1f}", f"{chase.cycles:.0f}") if chase else ("not given", "")
    if small and large:
        yield from (f"{small.ns - large.ns:z.1f}", f"{small.cycles - large.cycles:z.0f}")
    else:
        yield from ("", "")


def compare_all(setting: Setting, sizes: Sequence[int], chases: Sequence[Chase]) -> list[Compared]:
    """Each of these beside the model; sizes: of all working sets, in bytes."""
    cycles = cycles_of(sizes)
    return [compare(setting, cycles[chase.pages], chase.page_size, chase.cycles) for chase in chases]


def main() -> None:
    """Print the tables, and draw the picture."""
    picture = Path(sys.argv[1]) if sys.argv[1:] else None
    if picture:
        from benchmarks.chase_picture import draw  # now: matplotlib may be missing
    load = OtherLoad()
    caches = cache_sizes()
    print(f"{machine()}; caches: {', '.join(f'{name} {size_name(size)}' for name, size in caches.items())}\n")
    costs = latencies(caches)
    print(row(["a load from", "ns", "cycles"]))
    print(row(["---", "---:", "---:"]))
    for name, (ns, cycles) in costs.items():
        print(row([name, f"{ns:.1f}", f"{cycles:.1f}"]))
    print()
    try:
        geometry = with_latencies(this_cpu(), costs)
        kept = lifetime(l3_after(caches), costs["L3"][0], costs["memory"][0])
        setting = Setting(geometry, host_page_size(geometry), kept)
    except LookupError as why:
        setting = None
        print(f"no model: {why}\n")
    sizes = working_sets()
    chases = measure(sizes, _ROUNDS)
    for line in table(chases):
        print(line)
    print(f"\nOthers took {load}")
    if setting:
        rows = compare_all(setting, sizes, chases)
        print("\nThe model, in cycles.", *described(setting), "", *table_beside(rows), "", *verdict(rows), sep="\n")
        if picture:
            draw(setting, rows, f"{machine().split(', Python')[0]}; model: {geometry.name}", picture)


if __name__ == "__main__":
    main()
