"""Stores the copies, maps them in the place of equal pages, and frees what these had."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from dedupcore import _dedupcore as engine
from pagedup.sharing.in_place.backing import Backing
from pagedup.sharing.in_place.look import FILE, HUGE
from pagedup.sharing.in_place.plan import NEW, runs, stretches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.sharing.in_place.look import Look
    from pagedup.sharing.in_place.plan import Mask, Numbers, Plan

_PAGE = mmap.PAGESIZE


class Done:
    """What was done.

    Attributes:
        zero: how many pages of zeros were given back.
        shared: how many pages that had memory show a copy now.
        split: how many huge pages were split.
        left: bytes that were to be replaced, but were not, by reason.
        files: the backings that the memory shows.
        gone: the pages that were given back or replaced here.
    """

    def __init__(self, seen: Look) -> None:
        self.zero = int(np.count_nonzero(seen.freed))
        self.shared = 0
        self.split = 0
        self.left: Counter[str] = Counter()
        self.files = list(seen.files)
        self.gone = np.zeros(seen.numbering.n, bool)

    def note(self, outcomes: NDArray[np.uint8], first: Numbers, end: Numbers) -> Mask:
        """The pages of these runs that were replaced; remembers what became of all."""
        if (outcomes == engine.LOST).any():
            raise MemoryError("the kernel took a part of an array and gave nothing for it; its content is lost")
        for outcome, why in (
            (engine.DIFFERS, "written during the call"),
            (engine.REFUSED, "refused by the kernel (no room for a mapping more)"),
        ):
            if n := int((end - first)[outcomes == outcome].sum()):
                self.left[why] += n * _PAGE
        good = outcomes == engine.REPLACED
        steps = np.zeros(len(self.gone) + 1, np.int8)
        np.add.at(steps, first[good], 1)
        np.add.at(steps, end[good], -1)
        replaced: Mask = np.cumsum(steps[:-1], dtype=np.int8) > 0
        self.gone |= replaced
        return replaced


def replace(seen: Look, planned: Plan, owners: Iterable[object]) -> Done:
    """Do what is planned. Raises OSError, before anything is replaced, when there is no memory for the copies."""
    done = Done(seen)
    new = _stored(seen, planned.store) if len(planned.store) else None
    if seen.freed.any() or planned.zero.any() or (planned.place >= 0).any():
        _keep_small(seen)
    if planned.zero.any():
        _zero(seen, planned.zero, done)
    for number, file in enumerate(done.files):
        _map(seen, planned.place, number * FILE, file, owners, done)
    if new is not None:
        done.files.append(new)
        _map(seen, planned.place, NEW, new, owners, done)
    done.split = _split(seen, done.gone)
    return done


def _stored(seen: Look, store: Numbers) -> Backing:
    """A file with these pages, in this order."""
    new = Backing(len(store) * _PAGE)
    breaks = np.concatenate(([True], (store[1:] != store[:-1] + 1) | seen.pages.begins[store[1:]]))
    first = np.flatnonzero(breaks)
    sizes = np.diff(np.append(first, len(store))) * _PAGE
    assert new.file is not None
    addresses, _ = seen.where(store[first])
    engine.in_place_store(new.file.fd, addresses, (first * _PAGE).astype(np.uint64), sizes.astype(np.uint64))
    return new


def _keep_small(seen: Look) -> None:
    """Have no huge pages made of the memory any more: khugepaged would fill its holes with zeros."""
    starts, ends = seen.whole.starts[~seen.shows], seen.whole.ends[~seen.shows]
    engine.in_place_keep_small(starts.astype(np.uint64), (ends - starts).astype(np.uint64))


def _zero(seen: Look, zero: Mask, done: Done) -> None:
    """Give pages of zeros back that are in the place of others, or were refused before."""
    shows = seen.pages.place >= 0
    # In parts of a huge page at most, so that little can be written between the look at it and its end.
    block = seen.numbering.addresses(np.arange(len(zero))) // HUGE
    cuts = (np.diff(block, prepend=-1) != 0) | np.diff(shows, prepend=shows[:1])
    first, end = stretches(zero, seen.pages.begins | cuts)
    addresses, protections = seen.where(first)
    outcomes = np.full(len(first), engine.REFUSED, np.uint8)
    sizes = ((end - first) * _PAGE).astype(np.uint64)
    engine.in_place_zero(addresses, sizes, shows[first].astype(np.uint8), protections, outcomes)
    done.zero += int(np.count_nonzero(done.note(outcomes, first, end)))


def _map(seen: Look, place: Numbers, base: int, file: Backing, owners: Iterable[object], done: Done) -> None:
    """Map the pages of one file, whose places begin at `base`."""
    first, end = runs((place >= base) & (place < base + FILE), place, seen.pages.begins)
    if not len(first) or file.file is None:
        return
    addresses, protections = seen.where(first)
    outcomes = np.full(len(first), engine.REFUSED, np.uint8)
    offsets, sizes = (place[first] - base) * _PAGE, (end - first) * _PAGE
    with mmap.mmap(file.file.fd, file.size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as stored:
        engine.in_place_map(
            file.file.fd,
            stored,
            addresses,
            offsets.astype(np.uint64),
            sizes.astype(np.uint64),
            protections,
            outcomes,
        )
    file.live_as_long_as(owners)
    done.shared += int(np.count_nonzero(seen.pages.occupied & done.note(outcomes, first, end)))


def _split(seen: Look, gone: Mask) -> int:
    """Split the huge pages of which a part is gone, as it is freed only then; how many there were."""
    first, end = stretches(seen.freed, np.zeros(seen.whole.n, bool))
    # Of the huge pages in a run only the first and the last can be left in part.
    freed = np.concatenate((seen.whole.addresses(first), seen.whole.addresses(end - 1)))
    replaced = seen.numbering.addresses(np.flatnonzero(gone))
    changed = np.sort(np.concatenate((freed, replaced)) // HUGE) * HUGE
    changed = changed[np.diff(changed, prepend=-1) != 0]
    was_huge = np.isin(changed, seen.huge)
    # It takes a page that is still there.
    kept = seen.numbering.addresses(np.flatnonzero(seen.pages.occupied & (seen.pages.place < 0) & ~gone))
    kept = np.append(kept, np.iinfo(np.int64).max)
    pages = kept[np.searchsorted(kept, changed)]
    there = pages < changed + HUGE
    chosen = pages[there].tolist()
    low, high = seen.whole.pages_up_to(changed), seen.whole.pages_up_to(changed + HUGE)
    for i in np.flatnonzero(was_huge & ~there & (high - low < HUGE // _PAGE)).tolist():
        # One that is none of the arrays'.
        ours = set(seen.whole.addresses(np.arange(low[i], high[i])).tolist())
        chosen.append(next(at for at in range(int(changed[i]), int(changed[i]) + HUGE, _PAGE) if at not in ours))
        there[i] = True
    engine.in_place_split(np.array(chosen, np.uint64), _PAGE)
    return int(np.count_nonzero(was_huge & there))
