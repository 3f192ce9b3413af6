"""The numbers behind the pictures of a scan: what lies where in each guest, and which guests hold the same."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.sharing.duplicates import Duplicates

_MAX_GUESTS = 32
"""So many strips, or rows and columns, can still be read on a page of paper; and each has a bit of a uint32."""
_CELLS = 480  # of a strip: two dots of a screen each, in the width of a page
_CHUNK = 1 << 20  # frames looked at once: bounds the memory of the steps between


class Kind(IntEnum):
    """What a page is to the others. Each page is of one kind, the first that fits."""

    ZERO = 0
    ACROSS = 1
    """Not zero, and another guest of its domain holds the same."""
    WITHIN = 2
    """Not zero, and only its own guest holds the same, more than once."""
    UNIQUE = 3


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """One guest's memory in the order of its addresses, cut into cells of equally many pages (give or take one).

    Attributes:
        guest: its number.
        kinds: int64 ndarray (n_cells, 4): how many pages of each Kind lie in a cell; no cell is empty.
        jumps: int64 ndarray (n_jumps,), ascending: cells in which, or before which, the addresses leave out a hole.
            Of several holes in one cell there is one.
        first_address, last_address: of the first and the last page, in bytes.
    """

    guest: int
    kinds: NDArray[np.int64]
    jumps: NDArray[np.int64]
    first_address: int
    last_address: int


@dataclass(frozen=True, slots=True, eq=False)
class MemoryMap:
    """The strips of the guests with most pages, in the guests' order; `left_out` counts the other guests."""

    page_size: int
    strips: tuple[Strip, ...]
    left_out: int


@dataclass(frozen=True, slots=True, eq=False)
class GuestMatrix:
    """Who holds what others hold.

    Attributes:
        page_size: bytes.
        guests: the numbers of the guests shown, ascending: those with most pages that others hold, too.
        pages: int64 ndarray (len(guests), len(guests)): how many non-zero pages of the row's guest have a content that
            the column's guest, of the same domain, holds; on the diagonal all its non-zero pages.
        left_out: how many guests are not shown.
    """

    page_size: int
    guests: tuple[int, ...]
    pages: NDArray[np.int64]
    left_out: int


def memory_map(duplicates: Duplicates, *, cells: int = _CELLS) -> MemoryMap:
    """What kind of page lies where. Takes one byte a page of the largest guest, beside what `counts` takes.

    Guests without a page have no strip. Raises ValueError when `cells`, the most that a strip has, is below 1.
    """
    if cells < 1:
        raise ValueError(f"cells is {cells}; it must be 1 or more")
    frames = duplicates.counts().frames
    chosen = [guest for guest in _largest(frames) if frames[guest]]
    strips = tuple(_strip(duplicates, guest, cells) for guest in chosen)
    return MemoryMap(duplicates.frame_size, strips, duplicates.runs.n_guests - len(chosen))


def guest_matrix(duplicates: Duplicates) -> GuestMatrix:
    """Which guests hold the same pages. Takes four bytes a page while it runs, beside what `counts` takes."""
    chosen = _largest(duplicates.counts().shared_across)
    holders = _holders(duplicates, chosen)
    pages = np.empty((len(chosen), len(chosen)), np.int64)
    for row, guest in enumerate(chosen):
        pages[row] = _pages_held(duplicates, guest, holders)[: len(chosen)]
    return GuestMatrix(duplicates.frame_size, tuple(chosen), pages, duplicates.runs.n_guests - len(chosen))


def _largest(amounts: NDArray[np.int64]) -> list[int]:
    """The guests with most, at most _MAX_GUESTS, of equally many the first; ascending."""
    order = np.argsort(-amounts, kind="stable")[:_MAX_GUESTS]
    return sorted(order.tolist())


def _strip(duplicates: Duplicates, guest: int, cells: int) -> Strip:
    begin, end = duplicates.guest_offsets[guest : guest + 2].tolist()
    kinds = _kinds(duplicates, guest)
    n_cells = min(cells, end - begin)
    starts = np.arange(n_cells, dtype=np.int64) * (end - begin) // n_cells
    counted = np.stack([np.add.reduceat(kinds == kind, starts, dtype=np.int64) for kind in Kind], axis=1)
    frame_runs = duplicates.runs
    own = slice(*np.searchsorted(frame_runs.guest, (guest, guest + 1)).tolist())
    address, length, first = frame_runs.address[own], frame_runs.length[own], frame_runs.first[own]
    after = address + length.astype(np.uint64) * np.uint64(frame_runs.frame_size)
    holes = first[1:][address[1:] != after[:-1]] - begin
    jumps = np.unique(np.searchsorted(starts, holes, side="right") - 1)
    last = int(address[-1]) + (int(length[-1]) - 1) * frame_runs.frame_size
    return Strip(guest, counted, jumps, int(address[0]), last)


def _kinds(duplicates: Duplicates, guest: int) -> NDArray[np.uint8]:
    """The kind of each page of the guest."""
    counts, zero = duplicates.counts(), duplicates.zero_canonicals()[guest]
    begin, end = duplicates.guest_offsets[guest : guest + 2].tolist()
    kinds = np.full(end - begin, Kind.UNIQUE, np.uint8)
    for at in range(begin, end, _CHUNK):
        own = duplicates.canonical[at : min(at + _CHUNK, end)]
        part = kinds[at - begin : at - begin + len(own)]
        part[counts.copies[own] > 1] = Kind.WITHIN
        part[counts.owners[own] > 1] = Kind.ACROSS
        if zero is not None:
            part[own == zero] = Kind.ZERO
    return kinds


def _holders(duplicates: Duplicates, chosen: list[int]) -> NDArray[np.uint32]:
    """For each canonical frame that is not zero, bit b tells whether chosen[b] holds its content."""
    holders = np.zeros(duplicates.n_frames, np.uint32)
    for bit, guest in enumerate(chosen):
        begin, end = duplicates.guest_offsets[guest : guest + 2].tolist()
        for at in range(begin, end, _CHUNK):
            own = duplicates.canonical[at : min(at + _CHUNK, end)]
            holders[own] = holders[own] | np.uint32(1 << bit)
    for zero in duplicates.zero_canonicals():
        if zero is not None:
            holders[zero] = 0
    return holders


def _pages_held(duplicates: Duplicates, guest: int, holders: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Int64 ndarray (32,): for each bit, how many pages of the guest have it set."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)
    held = np.zeros((4, 8), np.int64)
    begin, end = duplicates.guest_offsets[guest : guest + 2].tolist()
    for at in range(begin, end, _CHUNK):
        # By the values of each byte, not by bits: one pass for eight guests. The machine is little-endian (setup.py).
        octets = holders[duplicates.canonical[at : min(at + _CHUNK, end)]].view(np.uint8).reshape(-1, 4)
        for octet in range(4):
            held[octet] += np.bincount(octets[:, octet], minlength=256) @ bits
    return held.reshape(32)
