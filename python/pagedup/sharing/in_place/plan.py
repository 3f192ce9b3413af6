"""Which pages are to show which stored copy, in as few mappings as can be, and which of them where these are too many.

Numbers alone: nothing here touches memory. Pages are numbered in the order of their addresses. A place is where a copy
is stored, counted in pages; places of different files are far apart. Neighbours at neighbouring places are one mapping.
"""

from __future__ import annotations

import mmap
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

_MAPPING_BYTES = 200  # that the kernel takes for a mapping
_ANONYMOUS = np.iinfo(np.int64).min  # the mark of a page that no file is mapped at


@dataclass(frozen=True, eq=False)
class Pages:
    """What there is, an item a page.

    Attributes:
        begins: the page is not joined with the one before, by address and by rights.
        beside: how many neighbours, 0 to 2, are joined with the page, but not listed: anonymous, and to stay so.
        canonical: the number of the first page of equal content.
        zero: its bytes are all zero.
        occupied: it has memory of its own.
        place: of the copy that is mapped there, -1 for none. A page that is occupied hides it.
    """

    begins: Mask
    beside: NDArray[np.int8]
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
    before = _mappings(now, pages)
    all_mappings = _mappings(then, pages) - before
    more = all_mappings
    left = 0
    if all_mappings > room:
        n_todo = int(np.count_nonzero(costs))
        chosen, more = _longest(first, end, now, then, pages, before + room)
        chosen = _worth_it(chosen, first, end, place, todo)
        done = _marked(n, first[chosen], end[chosen])
        more = _mappings(np.where(done, then, now), pages) - before
        zero &= free | done
        todo &= done
        left = n_todo - int(np.count_nonzero(todo | (zero & ~free)))
    # Of what is new, only what is done is stored, in the same order.
    new = np.flatnonzero(todo & (place >= NEW))[::-1]
    number = place[new] - NEW
    used = np.zeros(number.max(initial=-1) + 1, bool)
    used[number] = True
    compact = (np.cumsum(used) - 1)[number]
    first_of = np.zeros(np.count_nonzero(used), np.int64)
    first_of[compact] = new  # the last one written is the lowest
    final = np.full(n, -1, np.int64)
    final[todo] = place[todo]
    final[new] = NEW + compact
    return Plan(zero, final, first_of, more, all_mappings, left)


def runs(marked: Mask, values: Numbers, begins: Mask) -> tuple[Numbers, Numbers]:
    """First and end of each run of marked pages whose values ascend by one, within what is joined."""
    return _runs(marked, values - np.arange(len(values)), begins)


def stretches(marked: Mask, begins: Mask) -> tuple[Numbers, Numbers]:
    """First and end of each run of marked pages, within what is joined."""
    starts = begins.copy()
    starts[:1] = True
    starts[1:] |= marked[1:] != marked[:-1]
    first = np.flatnonzero(starts)
    end = np.append(first[1:], len(marked))
    return first[marked[first]], end[marked[first]]


def _places(pages: Pages, canonical: Numbers) -> tuple[Mask, Numbers]:
    """The pages whose content stands more than once, and the place of the copy that each page is to show."""
    n = len(canonical)
    there = np.flatnonzero(~pages.zero)
    copies = np.bincount(canonical[there], minlength=n)
    there = there[copies[canonical[there]] > 1]
    content = (np.cumsum(copies > 1) - 1)[canonical[there]]
    n_contents = int(np.count_nonzero(copies > 1))
    shown = pages.place[there]
    bases, lengths = _stored(content, np.where(pages.occupied[there], -1, shown), n_contents)
    turn, pages_in_rows, longest = _rows(there, content, pages.begins, n_contents)
    new = np.flatnonzero(bases < 0)
    # One copy more in a row is worth it as long as the mappings that it saves take as much memory.
    wanted = np.sqrt(pages_in_rows[new] * (_MAPPING_BYTES / mmap.PAGESIZE)).astype(np.int64)
    lengths[new] = np.clip(wanted, 1, np.maximum(longest[new], 1))
    rank = np.full(n_contents, -1, np.int64)
    rank[new] = np.arange(len(new))
    of_page = np.full(n, -1, np.int64)
    of_page[there] = rank[content]
    order = np.argsort(chained(of_page, pages.begins, len(new)))
    ends = np.cumsum(lengths[new[order]])
    bases[new[order]] = NEW + ends - lengths[new[order]]
    base, length = bases[content], lengths[content]
    stays = (shown >= base) & (shown < base + length)
    shared = np.zeros(n, bool)
    shared[there] = True
    place = np.full(n, -1, np.int64)
    place[there] = np.where(stays, shown, base + turn % length)
    return shared, place


def _stored(content: Numbers, shown: Numbers, n: int) -> tuple[Numbers, Numbers]:
    """Where each of n contents is stored already, -1: nowhere, and how many copies stand there in a row; the most.

    shown: the place of the stored copy that each page shows, -1: none.
    """
    some = np.flatnonzero(shown >= 0)
    places, first = np.unique(shown[some], return_index=True)
    of = content[some[first]]
    starts = np.ones(len(of), bool)
    starts[1:] = (places[1:] != places[:-1] + 1) | (of[1:] != of[:-1])
    starts = np.flatnonzero(starts)
    lengths = np.diff(np.append(starts, len(places)))
    order = np.lexsort((-starts, lengths))  # the best of each content is the last one written
    bases, counts = np.full(n, -1, np.int64), np.ones(n, np.int64)
    bases[of[starts[order]]] = places[starts[order]]
    counts[of[starts[order]]] = lengths[order]
    return bases, counts


def _rows(there: Numbers, content: Numbers, begins: Mask, n: int) -> tuple[Numbers, Numbers, Numbers]:
    """Where neighbours hold the same content: how many such are before each page; and for each of n contents how
    many pages stand in such rows, and the longest row. there: the numbers of the pages, ascending.
    """
    starts = np.ones(len(there), bool)
    starts[1:] = (content[1:] != content[:-1]) | (there[1:] != there[:-1] + 1) | begins[there[1:]]
    first = np.flatnonzero(starts)
    sizes = np.diff(np.append(first, len(there)))
    turn = np.arange(len(there)) - np.repeat(first, sizes)
    rows = sizes > 1
    of, sizes = content[first[rows]], sizes[rows]
    longest = np.zeros(n, np.int64)
    np.maximum.at(longest, of, sizes)
    return turn, np.bincount(of, weights=sizes, minlength=n).astype(np.int64), longest


def _runs(marked: Mask, marks: Numbers, begins: Mask) -> tuple[Numbers, Numbers]:
    apart = begins.copy()
    apart[1:] |= marks[1:] != marks[:-1]
    return stretches(marked, apart)


def _mappings(marks: Numbers, pages: Pages) -> int:
    """How many mappings it takes, but for a number that stays the same."""
    between = np.count_nonzero((marks[1:] != marks[:-1]) & ~pages.begins[1:])
    return int(between + pages.beside[marks != _ANONYMOUS].sum(dtype=np.int64))


def _longest(
    first: Numbers, end: Numbers, now: Numbers, then: Numbers, pages: Pages, limit: int
) -> tuple[Numbers, int]:
    """The longest runs that `limit` mappings allow, and how many mappings that takes."""
    order = np.argsort(first - end, kind="stable")
    fits, fails, taken = 0, len(order), 0
    while fits < fails - 1:
        middle = (fits + fails) // 2
        some = order[:middle]
        needed = _mappings(np.where(_marked(len(now), first[some], end[some]), then, now), pages)
        if needed <= limit:
            fits, taken = middle, needed
        else:
            fails = middle
    return order[:fits], taken


def _worth_it(chosen: Numbers, first: Numbers, end: Numbers, place: Numbers, todo: Mask) -> Numbers:
    """Less the runs that would free nothing, as all that they show would be stored for one page each."""
    new = todo & (place >= NEW)
    number = np.where(new, place - NEW, 0)
    for _ in range(3):
        done = _marked(len(place), first[chosen], end[chosen])
        copies = np.bincount(number[done & new], minlength=1)
        useful = done & (~new | (copies[np.where(done & new, number, 0)] > 1))
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
