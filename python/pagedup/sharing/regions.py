"""Sharing by region: which mappings of processes, RAM blocks of guests or segments of a dump the saving lies in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory import Region
from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.layouts import Layout
    from pagedup.sharing.duplicates import Duplicates


@dataclass(frozen=True, slots=True)
class RegionSummary:
    """All regions of one name, in pages, over all guests.

    unique pages stand alone. A non-zero page is saved if it is not the first of its content: saved_within if the
    content stands in its guest before, saved_across if only in an earlier guest. Over all regions these sum up to
    Summary's saved_within_guests and saved_across_guests. What is left are the copies that are kept.
    """

    name: str
    guests: int
    pages: int
    zero: int
    unique: int
    saved_within: int
    saved_across: int


OUTSIDE = "(no region)"
"""The name for pages that lie in none."""


def summarize_regions(duplicates: Duplicates, regions: Sequence[Sequence[Region]]) -> list[RegionSummary]:
    """What the regions of each name hold, those first that save most. `regions`: for each guest, by ascending address.

    A page belongs to the region in which its first byte lies. Raises ValueError when there is not one list a guest, or
    regions are out of order or overlap.
    """
    n_guests = duplicates.runs.n_guests
    if len(regions) != n_guests:
        raise ValueError(f"regions has {len(regions)} lists for {n_guests} guests; it must have one a guest")
    for guest, own in enumerate(regions):
        _check(guest, own)
    addresses = duplicates.addresses
    offsets = duplicates.guest_offsets.tolist()
    labelled = [_label(own, addresses[low:high]) for own, (low, high) in zip(regions, pairwise(offsets), strict=True)]
    return _summarize(duplicates, labelled)


def summarize_layout_regions(duplicates: Duplicates, layouts: Sequence[Layout]) -> list[RegionSummary]:
    """What the regions of layouts hold, those first that save most, by the texts of their table.

    `duplicates` must be of these layouts (see find_duplicate_names), perhaps in larger frames: then a frame belongs to
    the region of its first page. ValueError when there is not one layout a guest.
    """
    n_guests = duplicates.runs.n_guests
    if len(layouts) != n_guests:
        raise ValueError(f"there are {len(layouts)} layouts for {n_guests} guests; there must be one a guest")
    addresses = duplicates.addresses
    labelled = []
    for layout, (low, high) in zip(layouts, pairwise(duplicates.guest_offsets.tolist()), strict=True):
        numbers = (addresses[low:high] // np.uint64(PAGE)).astype(np.int64)
        first = layout.runs[:, 0].astype(np.int64)
        length = layout.runs[:, 1].astype(np.int64)
        run = np.searchsorted(first, numbers, side="right") - 1
        index = numbers - first[run] + (np.cumsum(length) - length)[run]
        labelled.append((layout.regions[index].astype(np.int64), [str(region) for region in layout.region_table]))
    return _summarize(duplicates, labelled)


def _summarize(duplicates: Duplicates, labelled: Sequence[tuple[NDArray[np.int64], list[str]]]) -> list[RegionSummary]:
    """`labelled`: for each guest the region of each frame, as a number, and what the numbers mean."""
    kinds = _kinds(duplicates)
    totals: dict[str, NDArray[np.int64]] = {}
    holders: dict[str, int] = {}
    offsets = duplicates.guest_offsets.tolist()
    for (labels, names), (low, high) in zip(labelled, pairwise(offsets), strict=True):
        pages = np.bincount(labels, minlength=len(names))
        counts = [np.bincount(labels[kind[low:high]], minlength=len(names)) for kind in kinds]
        table = np.stack([pages, *counts], axis=1)
        for number in np.flatnonzero(pages).tolist():
            name = names[number]
            totals[name] = totals.get(name, np.zeros(len(kinds) + 1, np.int64)) + table[number]
            holders[name] = holders.get(name, 0) + 1
    found = [RegionSummary(name, holders[name], *counts.tolist()) for name, counts in totals.items()]
    return sorted(found, key=lambda row: (-row.saved_within - row.saved_across, -row.zero, -row.pages, row.name))


def _check(guest: int, own: Sequence[Region]) -> None:
    for before, region in pairwise([Region(0, 0, ""), *own]):
        if not before.end <= region.start <= region.end:
            raise ValueError(
                f"guest {guest}: the region at {region.start:#x} overlaps the one at {before.start:#x}, is out of order"
                " or ends before it begins; regions must have ascending addresses"
            )
    if own and own[-1].end > 1 << 64:
        raise ValueError(f"guest {guest}: the region at {own[-1].start:#x} ends beyond 2**64")


def _kinds(duplicates: Duplicates) -> list[NDArray[np.bool_]]:
    """Which frames are zero, unique, saved within their guest, and saved across guests."""
    frames = np.arange(duplicates.n_frames, dtype=np.uint32)
    zero = duplicates.zero
    first_in_guest = _first_in_guest(duplicates) == frames
    return [
        zero,
        (duplicates.counts().copies == 1) & ~zero,
        ~first_in_guest & ~zero,
        first_in_guest & (duplicates.canonical != frames) & ~zero,
    ]


def _first_in_guest(duplicates: Duplicates) -> NDArray[np.uint32]:
    """For each frame the lowest one of its guest with the same content."""
    lowest = np.empty(duplicates.n_frames, np.uint32)
    first = np.empty(duplicates.n_frames, np.uint32)
    offsets = duplicates.guest_offsets.tolist()
    for low, high in pairwise(offsets):
        own = duplicates.canonical[low:high]
        lowest[own[::-1]] = np.arange(low, high, dtype=np.uint32)[::-1]  # the last one written stays
        first[low:high] = lowest[own]
    return first


def _label(own: Sequence[Region], addresses: NDArray[np.uint64]) -> tuple[NDArray[np.int64], list[str]]:
    """The region of each frame, as a number, and the names of the numbers."""
    names = {name: index for index, name in enumerate(dict.fromkeys([*(region.name for region in own), OUTSIDE]))}
    # An end of 2**64, which no uint64 holds, is as good one byte lower: no frame begins there.
    bounds = [bound for region in own for bound in (region.start, min(region.end, (1 << 64) - 1))]
    # Frames at which the regions begin and end; what lies between two regions is outside.
    inner = np.searchsorted(addresses, np.array(bounds, np.uint64))
    edges = np.concatenate(([0], inner, [len(addresses)]))
    owners = np.full(len(edges) - 1, names[OUTSIDE])
    owners[1::2] = [names[region.name] for region in own]
    return np.repeat(owners, np.diff(edges)), list(names)
