"""What the memory holds, page by page. Zeros are given back to the kernel where they are seen."""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from dedupcore import _dedupcore as engine
from pagedup.sharing.in_place.backing import Backing, near, own_pagemap, written
from pagedup.sharing.in_place.numbering import Numbering
from pagedup.sharing.in_place.plan import Pages, stretches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.live.pagemap import Pagemap
    from pagedup.sharing.in_place.plan import Mask, Numbers
    from pagedup.sharing.in_place.suitable import Piece

FILE = 1 << 40
"""Pages; what places of different files are apart."""

_PAGE = mmap.PAGESIZE


def _huge_page() -> int:
    try:
        with open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "rb") as file:
            return int(file.read())
    except OSError:
        return 2 << 20


HUGE = _huge_page()
"""Bytes of a huge page."""


@dataclass(frozen=True, eq=False)
class Look:
    """What there is.

    Attributes:
        whole: numbers all pages.
        shows: which of its ranges are mappings of a file.
        freed: those that were of zeros and have been given back, an item a page.
        numbering: numbers the pages in memory that are left, as `pages` does.
        pages: what is in these.
        protections: PROT_* of each range of these.
        files: the backings that some of them show; a place is FILE * its number here + the page in it.
        huge: multiples of HUGE at which huge pages were mapped; where the kernel does not tell, may have been.
    """

    whole: Numbering
    shows: Mask
    freed: Mask
    numbering: Numbering
    pages: Pages
    protections: NDArray[np.uint8]
    files: list[Backing]
    huge: Numbers

    def where(self, numbers: Numbers) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """Addresses of pages, and their rights."""
        protections = self.protections[self.numbering.ranges_of(numbers)]
        return self.numbering.addresses(numbers).astype(np.uint64), protections


def look(found: Sequence[Piece]) -> Look:
    """Look at these pieces. Raises OSError and MemoryError, when nothing but pages of zeros was changed."""
    whole = Numbering([piece.start for piece in found], [piece.end for piece in found])
    files = list({id(piece.backing): piece.backing for piece in found if piece.backing is not None}.values())
    number = {id(file): i for i, file in enumerate(files)}
    places = [-1 if p.backing is None else number[id(p.backing)] * FILE + p.offset // _PAGE for p in found]
    shows = np.array([piece.backing is not None for piece in found], bool)
    protections = np.array([piece.protection for piece in found], np.uint8)
    with own_pagemap() as pagemap:
        occupied = written(pagemap, whole)
        huge = _huge_pages(pagemap, whole)
    cut = np.zeros(whole.n, bool)  # where pieces begin
    cut[whole.firsts] = True
    freed = _free_zeros(whole, cut, occupied & ~whole.spread(shows))
    left = whole.spread(shows) | (occupied & ~freed)
    first, end = stretches(left, cut)
    of = whole.ranges_of(first)
    starts = whole.addresses(first)
    numbering = Numbering(starts, starts + (end - first) * _PAGE)
    of_range = np.array(places, np.int64)[of] + first - whole.firsts[of] - numbering.firsts
    place = np.where(numbering.spread(shows[of]), numbering.spread(of_range) + np.arange(numbering.n), -1)
    begins, beside = _neighbours(whole, protections, left, numbering)
    canonical, zero = _group(numbering, begins)
    pages = Pages(begins, beside, canonical, zero, occupied[left], place)
    return Look(whole, shows, freed, numbering, pages, protections[of], files, huge)


def _neighbours(
    whole: Numbering, protections: NDArray[np.uint8], left: Mask, numbering: Numbering
) -> tuple[Mask, NDArray[np.int8]]:
    """What Pages tells as begins and as beside; numbering: of the pages that are left."""
    apart = (whole.starts[1:] != whole.ends[:-1]) | (protections[1:] != protections[:-1])
    edges = np.concatenate(([0], whole.firsts[1:][apart], [whole.n]))  # where what is joined begins and ends
    first, end = whole.pages_up_to(numbering.starts), whole.pages_up_to(numbering.ends)
    before, after = ~np.isin(first, edges), ~np.isin(end, edges)  # whether there is a neighbour
    before_is_left, after_is_left = left[first - 1], np.append(left, False)[end]
    begins = np.zeros(numbering.n, bool)
    begins[numbering.firsts] = ~(before & before_is_left)
    beside = np.zeros(numbering.n, np.int8)
    beside[numbering.firsts] += before & ~before_is_left
    beside[numbering.firsts + numbering.counts - 1] += after & ~after_is_left
    return begins, beside


def _free_zeros(numbering: Numbering, cut: Mask, some: Mask) -> Mask:
    """Of these pages, in anonymous memory, those of zeros, which have been given back."""
    first, end = stretches(some, cut)
    freed = np.zeros(np.count_nonzero(some), bool)
    addresses, sizes = numbering.addresses(first).astype(np.uint64), ((end - first) * _PAGE).astype(np.uint64)
    engine.in_place_free_zeros(addresses, sizes, _PAGE, freed.view(np.uint8))
    all_freed = np.zeros(len(some), bool)
    all_freed[some] = freed
    return all_freed


def _group(numbering: Numbering, begins: Mask) -> tuple[NDArray[np.uint32], Mask]:
    """The first page of equal content of each page, and which are zero."""
    first = np.flatnonzero(begins)
    counts = np.diff(np.append(first, numbering.n))
    spans = [
        ((ctypes.c_uint8 * (count * _PAGE)).from_address(address), 0, count)
        for address, count in zip(numbering.addresses(first).tolist(), counts.tolist(), strict=True)
    ]
    canonical = np.empty(numbering.n, np.uint32)
    found = dedupcore.find_duplicates(spans, canonical, frame_size=_PAGE, threads=dedupcore.available_threads())
    if found.zero_canonical is None:
        return canonical, np.zeros(numbering.n, bool)
    return canonical, canonical == found.zero_canonical


def _huge_pages(pagemap: Pagemap, numbering: Numbering) -> Numbers:
    """Where huge pages are mapped; before Linux 6.7, where they may be."""
    found = [np.empty((0, 2), np.int64)]
    for low, high in near(numbering):
        told = pagemap.huge_pages(low, high)
        if told is None:
            with open("/proc/self/smaps_rollup", "rb") as file:
                some = re.search(rb"^AnonHugePages: +[1-9]", file.read(), re.MULTILINE)
            found = [np.stack((numbering.starts, numbering.ends), axis=1)] if some else found[:1]
            break
        found.append(told[:, :2].astype(np.int64))
    # A range may begin or end in a huge page.
    parts = [np.arange(start // HUGE * HUGE, end, HUGE) for start, end in np.concatenate(found).tolist()]
    return np.concatenate([np.empty(0, np.int64), *parts])
