"""Grouping layouts: pages that are known by name instead of by their bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.memory.layouts import PAGE
from pagedup.sharing.duplicates import Duplicates
from pagedup.sharing.frame_runs import FrameRuns
from pagedup.sharing.grouping import Grouping, group
from pagedup.sharing.isolation import domain_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.layouts import Layout


def find_duplicate_names(
    layouts: Sequence[Layout],
    *,
    domains: Sequence[Hashable] | None = None,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Duplicates:
    """Find all pages with equal names, one guest a layout: what find_duplicates says of the bytes of these pages.

    Frames are the present pages, of 4096 bytes; absent ones have no frame. `domains`, `threads` and `progress` as in
    find_duplicates. Takes 40 bytes a page beside the layouts while it runs. Raises ValueError for layouts of different
    spaces, whose names mean different things.
    """
    for layout in layouts:
        if layout.space != layouts[0].space:
            raise ValueError(
                f"{layout.name} and {layouts[0].name} were named apart, so their names cannot be compared; generate,"
                " or capture from memory, all of them together"
            )
    numbers = domain_numbers(domains, len(layouts))
    n_threads = dedupcore.available_threads() if threads is None else threads
    offsets = np.cumsum([0, *(layout.n_pages for layout in layouts)])
    names = [np.ascontiguousarray(layout.names) for layout in layouts]
    grouping = group(
        [[(own, 0, len(own))] for own in names],
        offsets,
        numbers,
        frame_size=8,
        threads=n_threads,
        progress=progress,
    )
    present = np.concatenate([layout.present for layout in layouts]) if layouts else np.empty(0, np.bool_)
    runs = FrameRuns.of(PAGE, len(layouts), *_runs(layouts, present))
    absent = {number for layout, number in zip(layouts, numbers.tolist(), strict=True) if not layout.present.all()}
    left = _only(grouping, present, len(absent))
    return Duplicates(left, runs, numbers, runs.n_frames * PAGE, n_threads, grouping.work)


def _runs(
    layouts: Sequence[Layout], present: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """Guest, address in bytes and length of each run of present pages."""
    guests, addresses, lengths = [], [], []
    at = 0
    for guest, layout in enumerate(layouts):
        own = present[at : at + layout.n_pages]
        at += layout.n_pages
        run_starts = np.cumsum(layout.runs[:, 1]) - layout.runs[:, 1]
        begins = own & np.concatenate(([True], ~own[:-1]))[: len(own)]
        begins[run_starts[run_starts < len(own)].astype(np.int64)] |= True
        begins &= own
        first = np.flatnonzero(begins)
        ends = np.flatnonzero(own & np.concatenate((begins[1:] | ~own[1:], [True]))[: len(own)]) + 1
        run = np.searchsorted(run_starts, first.astype(np.uint64), side="right") - 1
        address = (layout.runs[run, 0] + (first.astype(np.uint64) - run_starts[run])) * np.uint64(PAGE)
        guests.append(np.full(len(first), guest, np.int64))
        addresses.append(address)
        lengths.append(ends - first)
    if not guests:
        return np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate(guests), np.concatenate(addresses), np.concatenate(lengths)


def _only(grouping: Grouping, present: NDArray[np.bool_], n_absent: int) -> Grouping:
    """The grouping of the present pages alone; in `n_absent` domains the absent ones are a class, which falls out."""
    if not n_absent:
        return grouping
    numbers = np.cumsum(present, dtype=np.uint32)
    numbers -= np.uint32(1)  # of each frame that is left
    canonical = numbers[grouping.canonical[present]]
    canonical.flags.writeable = False
    zero = tuple(None if frame is None else int(numbers[frame]) for frame in grouping.zero_canonical)
    return Grouping(canonical, zero, grouping.n_zero, grouping.n_distinct - n_absent, grouping.work)
