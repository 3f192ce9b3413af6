"""Scans of small memories made up on the spot, and the pages that report them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagedup import Extent, find_duplicates, most_shared, summarize, summarize_guests
from pagedup.report import ScannedGuest, ScanResult
from pagedup.report.html import scan_html
from pagedup.report.provenance import Provenance, SourceDigest
from pagedup.sharing.pictures import GuestMatrix, MemoryMap, guest_matrix, memory_map

PAGE = 4096


@dataclass(frozen=True)
class Scan:
    """What a report is made of."""

    result: ScanResult
    memory_map: MemoryMap
    matrix: GuestMatrix
    provenance: Provenance

    def html(self) -> str:
        return scan_html(self.result, self.memory_map, self.matrix, self.provenance)


def pages(numbers: Sequence[int] | NDArray[Any]) -> NDArray[np.uint8]:
    """Memory of one page a number: equal pages for equal numbers, a zero page for 0."""
    words = np.zeros((len(numbers), PAGE // 8), np.uint64)
    words[:, -1] = numbers
    return words.view(np.uint8).reshape(-1)


def mixed(guests: int, seed: int = 1) -> list[Any]:
    """Guests of 1,200 pages of every kind; the first has a hole in its addresses."""
    random = np.random.default_rng(seed)
    found = []
    for guest in range(guests):
        shared = random.integers(1, 300, 200)
        own = np.arange(600) + 10_000 * (guest + 1)
        repeated = np.full(100, 5_000 + guest)
        numbers = np.concatenate((np.zeros(300, np.int64), shared, own, repeated))
        found.append(pages(numbers))
    first = found[0]
    return [[Extent(0, first[: 700 * PAGE].data), Extent(1 << 32, first[700 * PAGE :].data)], *found[1:]]


def scan(
    guests: Sequence[Any],
    names: Sequence[str] | None = None,
    domains: Sequence[str] | None = None,
    sizes: Sequence[int] = (PAGE, 4 * PAGE, 2 << 20, 1 << 30),
) -> Scan:
    """Scan them as the command line does, one name a guest."""
    names = names or [f"vm{guest}" for guest in range(len(guests))]
    found = find_duplicates(guests, frame_size=PAGE, domains=domains)
    n_bytes = (np.diff(found.guest_offsets) * PAGE).tolist()
    small = found.coarsen(sizes[0] // PAGE)
    result = ScanResult(
        guests=[
            ScannedGuest(name, f"{name}.img", "raw", "", n_bytes[guest], domains[guest] if domains else None)
            for guest, name in enumerate(names)
        ],
        page_sizes=[summarize(found.coarsen(size // PAGE)) for size in sizes],
        per_guest=summarize_guests(small),
        most_shared=most_shared(small, 5),
        work=found.work._asdict(),
    )
    return Scan(result, memory_map(small), guest_matrix(small), provenance(names))


def provenance(names: Sequence[str]) -> Provenance:
    """As if the sources had been files."""
    return Provenance(
        command=f"pagedup scan --html report.html {' '.join(names)}",
        version="0.1.0",
        started="2026-11-23T10:05:00Z",
        seconds=4.2,
        kernel="Linux 6.18.0",
        cpu="a CPU",
        page_size=PAGE,
        sources=[SourceDigest(name, "raw", 1234, f"{guest:064x}") for guest, name in enumerate(names)],
    )
