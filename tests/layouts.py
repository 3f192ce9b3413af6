"""Layouts made up for tests, and Hypothesis strategies for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pagedup.memory.layouts import ABSENT, Layout, LayoutRegion, RegionKind

PAGE = 4096


def make(names: Sequence[int] | NDArray[Any], runs: Any = None, *, name: str = "vm", space: str = "test") -> Layout:
    """A layout of these names, from page 0 on unless `runs` says otherwise; every third page is heap."""
    held = np.array(names, np.uint64).reshape(-1)
    table = (LayoutRegion(RegionKind.UNKNOWN), LayoutRegion(RegionKind.HEAP, "x"), LayoutRegion(RegionKind.ABSENT))
    regions = (np.arange(len(held)) % 3 == 0).astype(np.uint8)
    regions[held == np.uint64(ABSENT)] = 2
    places = [[0, len(held)]] if runs is None else runs
    return Layout(name, held, regions, table, np.array(places, np.uint64).reshape(-1, 2), space)


@st.composite
def layouts(draw: st.DrawFn, names: st.SearchStrategy[int], max_pages: int) -> Layout:
    """Any runs, some of them empty or next to each other."""
    lengths = draw(st.lists(st.integers(0, max_pages), max_size=4))
    top = (1 << 52) - len(lengths) * (max_pages + 3)
    at = draw(st.sampled_from([0, 0, 1, 3, 512, top]))
    runs = []
    for length in lengths:
        at += draw(st.sampled_from([0, 0, 1, 3]))
        runs.append((at, length))
        at += length
    held = draw(st.lists(names, min_size=sum(lengths), max_size=sum(lengths)))
    return make(held, runs)


def extents(layout: Layout, pages: NDArray[np.uint8]) -> list[tuple[int, bytes]]:
    """Its present pages, one by one, with their addresses; `pages` are the bytes of all."""
    numbers = [page for first, length in layout.runs.tolist() for page in range(first, first + length)]
    present = layout.present.tolist()
    return [
        (number * PAGE, pages[index].tobytes())
        for index, (number, there) in enumerate(zip(numbers, present, strict=True))
        if there
    ]
