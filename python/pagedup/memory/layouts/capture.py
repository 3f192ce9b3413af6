"""Real memory as layouts: each content gets a name."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.memory.extent import AnyExtent, Extent, NamedExtent, Region, ZeroExtent
from pagedup.memory.layouts.layout import MOST_REGIONS, Layout, LayoutRegion, RegionKind
from pagedup.memory.layouts.names import ABSENT, PAGE, NameKind, kind_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.source import Progress, Source


def capture(sources: Sequence[Source], progress: Progress | None) -> list[Layout]:
    """See Layout.from_memory."""
    extents = [extent for source in sources for extent in source.extents]
    places = []
    for source in sources:
        own = []
        for extent in source.extents:
            size = memoryview(extent.buffer).nbytes if isinstance(extent, Extent) else extent.size
            if extent.address % PAGE or size % PAGE:
                raise ValueError(
                    f"{source.text}: {size:,} bytes at {extent.address:#x} are no whole pages of {PAGE:,} bytes"
                )
            own.append((extent.address // PAGE, size // PAGE))
        places.append(own)
    named = any(isinstance(extent, NamedExtent) for extent in extents)
    numbers = _given(extents) if named else _classes(extents, progress)
    for source in sources:
        source.check()
    names = np.where(numbers == 0, np.uint64(0), numbers | np.uint64(kind_bits(NameKind.READ)))
    # No digest of the names: two memories may repeat their pages alike and yet hold other ones.
    space = f"read-{secrets.token_hex(16)}"
    layouts, at = [], 0
    for source, own in zip(sources, places, strict=True):
        runs = _joined(np.array(own, np.uint64).reshape(-1, 2))
        n_pages = int(runs[:, 1].sum())
        layouts.append(_with_holes(source, names[at : at + n_pages], runs, space))
        at += n_pages
    return layouts


def _classes(extents: Sequence[AnyExtent], progress: Progress | None) -> NDArray[np.uint64]:
    """A number for each page: equal where the bytes are, and 0 for zero pages."""
    spans = []
    for extent in extents:
        buffer = extent.buffer if isinstance(extent, Extent) else None
        assert not isinstance(extent, NamedExtent)
        size = extent.size if isinstance(extent, ZeroExtent) else memoryview(extent.buffer).nbytes
        spans.append((buffer, 0, size // PAGE))
    canonical = np.empty(sum(length for _, _, length in spans), np.uint32)
    threads = dedupcore.available_threads()
    found = dedupcore.find_duplicates(spans, canonical, frame_size=PAGE, threads=threads, progress=progress)
    numbers = canonical.astype(np.uint64) + np.uint64(1)
    if found.zero_canonical is not None:
        numbers[canonical == found.zero_canonical] = 0
    return numbers


def _given(extents: Sequence[AnyExtent]) -> NDArray[np.uint64]:
    """The same, of pages that have been named already."""
    numbers, contents = [np.empty(0, np.uint64)], []
    for extent in extents:
        if isinstance(extent, NamedExtent):
            contents.append(extent.contents)
            if extent.page != PAGE:
                raise ValueError(f"pages of {extent.page:,} bytes; layouts are made of pages of {PAGE:,}")
            numbers.append(extent.names)
        elif isinstance(extent, ZeroExtent):
            numbers.append(np.zeros(extent.size // PAGE, np.uint64))
        else:
            raise ValueError("a live source and one that was opened apart cannot be compared; open them at once")
    if any(other is not contents[0] for other in contents):
        raise ValueError("live sources that were opened apart cannot be compared; open them at once")
    return np.concatenate(numbers)


def _joined(runs: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Runs that follow each other, as one."""
    runs = runs[runs[:, 1] > 0]
    if not len(runs):
        return runs
    begins = np.concatenate(([True], runs[1:, 0] != runs[:-1, 0] + runs[:-1, 1]))
    starts = np.flatnonzero(begins)
    return np.stack((runs[starts, 0], np.add.reduceat(runs[:, 1], starts)), axis=1)


def _with_holes(source: Source, names: NDArray[np.uint64], runs: NDArray[np.uint64], space: str) -> Layout:
    """A layout with the holes between runs as absent pages, where these are no more than the pages are."""
    n_pages = len(names)
    end = int(runs[-1].sum()) if len(runs) else 0
    if end <= 2 * n_pages:
        whole = np.full(end, ABSENT, np.uint64)
        at = 0
        for first, length in runs.tolist():
            whole[first : first + length] = names[at : at + length]
            at += length
        names, runs = whole, np.array([[0, end]], np.uint64)
    regions, table = _regions(source, names, runs)
    return Layout(source.name, names, regions, table, runs, space)


def _regions(
    source: Source, names: NDArray[np.uint64], runs: NDArray[np.uint64]
) -> tuple[NDArray[np.uint8], list[LayoutRegion]]:
    """Pages by the source's own regions, if it has some (mappings of a process); the 255th and on have no name."""
    table = [LayoutRegion(RegionKind.UNKNOWN), LayoutRegion(RegionKind.ABSENT)]
    regions = np.zeros(len(names), np.uint8)
    known: Sequence[Region] = getattr(source, "regions", ())
    if known:
        pages = np.concatenate([np.arange(first, first + length, dtype=np.uint64) for first, length in runs.tolist()])
        different = list(dict.fromkeys(region.name for region in known))[: MOST_REGIONS - len(table)]
        numbers = {name: number for number, name in enumerate(different, len(table))}
        table += [LayoutRegion(RegionKind.UNKNOWN, name) for name in numbers]
        for region in known:
            own = slice(*np.searchsorted(pages, (np.uint64(region.start // PAGE), np.uint64(-(-region.end // PAGE)))))
            regions[own] = numbers.get(region.name, 0)
    regions[names == np.uint64(ABSENT)] = 1
    return regions, table
