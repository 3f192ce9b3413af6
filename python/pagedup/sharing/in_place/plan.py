"""Which pages are to show which stored copy, in as few mappings as can be, and which of them where these are too many.

Numbers alone: nothing here touches memory. Pages are numbered in the order of their addresses. A place is where a copy
is stored, counted in pages; places of different files are far apart. Neighbours at neighbouring places are one mapping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pagedup.sharing.in_place.order import chained

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Numbers = NDArray[np.int64]

NEW = 1 << 60
"""The first place of what is not stored yet."""

_NOWHERE = np.iinfo(np.int64).max
_ANONYMOUS = -1  # the mark of a page that no file is mapped at


@dataclass(frozen=True, eq=False)
class Pages:
    """What there is, an item a page.

    Attributes:
        begins: the page is not joined with the one before, by address or by rights.
        canonical: the number of the first page of equal content.
        zero: its bytes are all zero.
        occupied: it has memory of its own.
        place: of the copy that is mapped there, -1 for none. A page that is occupied hides it.
    """

    begins: Mask
    canonical: NDArray[np.uint32]
    zero: Mask
    occupied: Mask
    place: Numbers


@dataclass(frozen=True, eq=False)
class Plan:
    """What to do.

    Attributes:
        zero: pages to give back to the kernel, an item a page.
        place: of the copy that a page is to show, -1: it stays as it is. An item a page.
        store: the pages to be stored at NEW, NEW + 1 and so on.
        more_mappings: mappings that this makes.
        all_mappings: mappings that it would make, were all done.
        left: how many pages are not done, for want of mappings.
    """

    zero: Mask
    place: Numbers
    store: Numbers
    more_mappings: int
    all_mappings: int
    left: int


def plan(pages: Pages, room: int) -> Plan:
    """Share all that is equal; where that takes more than `room` more mappings, the longest runs."""
    n = len(pages.begins)
    numbers = np.arange(n, dtype=np.int64)
    canonical = pages.canonical.astype(np.int64)
    now = np.where(pages.place >= 0, pages.place - numbers, _ANONYMOUS)
    zero = pages.zero & pages.occupied
    shared, place = _places(pages, canonical)
    todo = shared & (pages.occupied | (pages.place != place))
    # In memory that never was replaced, zeros take no mapping.
    free = zero & (pages.place < 0)
    costs = todo | (zero & ~free)
    then = np.where(todo, place - numbers, np.where(zero, _ANONYMOUS, now))
    first, end = _runs(costs, then, pages.begins)
    before = _mappings(now, pages.begins)
    all_mappings = _mappings(then, pages.begins) - before
    more = all_mappings
    left = 0
    if all_mappings > room:
        n_todo = int(np.count_nonzero(costs))
        chosen, more = _longest(first, end, now, then, pages.begins, before + room)
        chosen = _worth_it(chosen, first, end, canonical, place, todo)
        done = _marked(n, first[chosen], end[chosen])
        more = _mappings(np.where(done, then, now), pages.begins) - before
        zero &= free | done
        todo &= done
        left = n_todo - int(np.count_nonzero(todo | (zero & ~free)))
    # Of what is new, only what is done is stored, in the same order.
    wanted = np.unique(place[todo & (place >= NEW)])
    first_of = np.zeros(len(wanted), np.int64)
    new = np.flatnonzero(todo & (place >= NEW))[::-1]
    compact = np.searchsorted(wanted, place[new])
    first_of[compact] = new  # the last one written is the lowest
    final = np.full(n, -1, np.int64)
    final[todo] = place[todo]
    final[new] = NEW + compact
    return Plan(zero, final, first_of, more, all_mappings, left)


def runs(marked: Mask, values: Numbers, begins: Mask) -> tuple[Numbers, Numbers]:
    """First and end of each run of marked pages whose values ascend by one, within what is joined."""
    return _runs(marked, values - np.arange(len(values)), begins)


def _places(pages: Pages, canonical: Numbers) -> tuple[Mask, Numbers]:
    """The pages whose content stands more than once, and the place of each page's content."""
    n = len(canonical)
    copies = np.bincount(canonical[~pages.zero], minlength=n)
    shared = ~pages.zero & (copies[canonical] > 1)
    place_of = np.full(n, _NOWHERE, np.int64)
    stored = np.flatnonzero(shared & (pages.place >= 0) & ~pages.occupied)
    np.minimum.at(place_of, canonical[stored], pages.place[stored])
    new = np.flatnonzero((copies > 1) & (place_of == _NOWHERE))
    rank = np.full(n + 1, -1, np.int64)
    rank[new] = np.arange(len(new))
    of_page = np.where(shared, rank[np.where(shared, canonical, n)], -1)
    place_of[new] = NEW + chained(of_page, pages.begins, len(new))
    return shared, np.where(shared, place_of[canonical], -1)


def _runs(marked: Mask, marks: Numbers, begins: Mask) -> tuple[Numbers, Numbers]:
    starts = begins.copy()
    starts[:1] = True
    starts[1:] |= (marks[1:] != marks[:-1]) | (marked[1:] != marked[:-1])
    first = np.flatnonzero(starts)
    end = np.append(first[1:], len(marked))
    return first[marked[first]], end[marked[first]]


def _mappings(marks: Numbers, begins: Mask) -> int:
    """How many mappings it takes, but for a number that stays the same."""
    return int(np.count_nonzero((marks[1:] != marks[:-1]) & ~begins[1:]))


def _longest(
    first: Numbers, end: Numbers, now: Numbers, then: Numbers, begins: Mask, limit: int
) -> tuple[Numbers, int]:
    """The longest runs that `limit` mappings allow, and how many mappings that takes."""
    order = np.argsort(first - end, kind="stable")
    fits, fails, taken = 0, len(order), 0
    while fits < fails - 1:
        middle = (fits + fails) // 2
        some = order[:middle]
        needed = _mappings(np.where(_marked(len(now), first[some], end[some]), then, now), begins)
        if needed <= limit:
            fits, taken = middle, needed
        else:
            fails = middle
    return order[:fits], taken


def _worth_it(chosen: Numbers, first: Numbers, end: Numbers, canonical: Numbers, place: Numbers, todo: Mask) -> Numbers:
    """Less the runs that would free nothing, as all their contents would be stored for one page each."""
    n = len(canonical)
    for _ in range(3):
        done = _marked(n, first[chosen], end[chosen])
        copies = np.bincount(canonical[done & todo], minlength=n)
        useful = done & ((copies[canonical] > 1) | (place < NEW))
        total = np.concatenate((np.zeros(1, np.int64), np.cumsum(useful)))
        worth: Mask = np.not_equal(total[end[chosen]], total[first[chosen]])
        if worth.all():
            break
        chosen = chosen[worth]
    return chosen


def _marked(n: int, first: Numbers, end: Numbers) -> Mask:
    marks = np.zeros(n + 1, np.int8)
    marks[first] += 1  # no two runs begin, nor end, at one page
    marks[end] -= 1
    return np.cumsum(marks[:-1], dtype=np.int8) > 0
