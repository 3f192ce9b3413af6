"""Sharing in place, whatever happens in between: the bytes are those of a plain copy, and no page too many is held."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pagedup
from pagedup.sharing.in_place.order import chained
from pagedup.sharing.in_place.plan import NEW, Pages, plan
from tests.in_place_memory import PAGE, guarded, held

COUNT = 40

CONTENTS = st.lists(st.integers(0, 6), min_size=COUNT, max_size=COUNT)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, COUNT - 1), st.integers(0, 6)),
        st.tuples(st.just("poke"), st.integers(0, COUNT * PAGE - 1), st.integers(0, 255)),
        st.tuples(st.just("share"), st.integers(0, COUNT - 1), st.integers(1, COUNT)),
        st.tuples(st.just("reclaim"), st.integers(0, 9), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(CONTENTS, STEPS)
def test_beside_a_plain_copy(contents, steps):
    array = guarded(COUNT * PAGE)
    pages = array.reshape(COUNT, PAGE)
    for i, content in enumerate(contents):
        pages[i] = content
    model = array.copy()
    results = [pagedup.share_in_place([array])]
    assert np.array_equal(array, model)
    assert held(array) <= len(set(contents) - {0})
    for step, at, value in steps:
        if step == "write":
            pages[at] = value
            model.reshape(COUNT, PAGE)[at] = value
        elif step == "poke":
            array[at] = model[at] = value
        elif step == "share":
            results.append(pagedup.share_in_place([pages[at : at + value]]))
            assert results[-1].left == ()
        else:
            results[at % len(results)].reclaim()
        assert np.array_equal(array, model)
    pagedup.share_in_place([array])
    for result in results:
        result.reclaim()
    assert np.array_equal(array, model)
    distinct = {page.tobytes() for page in model.reshape(COUNT, PAGE)} - {bytes(PAGE)}
    assert held(array) <= len(distinct)


def mappings(places, kinds):
    """How many mappings show these places, -1 for anonymous memory, counted one by one."""
    count, before = 0, None
    for i, (place, kind) in enumerate(zip(places, kinds, strict=True)):
        if kind == "gap":
            count, before = count + (before != "anonymous"), "anonymous"
        mark = "anonymous" if place < 0 else place - i
        if kind != "joined" or mark == "anonymous":
            before = before if kind != "apart" and mark == before == "anonymous" else None
        count, before = count + (mark != before), mark
    return count


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from(["joined", "joined", "gap", "apart"]), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 60),
    st.sampled_from([200, 1 << 15]),
)
def test_plans(cells, room, mapping_bytes):
    """Every page is to show its own content, within the room, and no copy is stored for one page alone."""
    n = len(cells)
    content = np.array([cell[0] for cell in cells])
    canonical = np.array([int(np.flatnonzero(content == c)[0]) for c in content], np.uint32)
    kinds = [cell[1] for cell in cells]
    gap = np.array([kind == "gap" for kind in kinds])
    begins = gap | np.array([kind == "apart" for kind in kinds])
    begins[0] = True
    beside = gap.astype(np.int8)
    beside[:-1] += gap[1:]
    zero = content == 0
    # Some show a stored copy: content c at place 2 c.
    shows = np.array([cell[2] for cell in cells]) & ~zero
    pages = Pages(begins, beside, canonical, zero, ~shows, np.where(shows, 2 * content, -1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pagedup.sharing.in_place.plan._MAPPING_BYTES", mapping_bytes)
        planned = plan(pages, room)
    assert planned.more_mappings <= max(room, 0)
    assert planned.more_mappings <= max(planned.all_mappings, room)
    place = planned.place
    assert not (planned.zero & ~zero).any() and not ((place >= 0) & zero).any()
    stored = content[planned.store]
    if mapping_bytes == 200:
        assert len(set(stored.tolist())) == len(stored)
    new = place >= NEW
    assert np.array_equal(stored[place[new] - NEW], content[new])
    old = (place >= 0) & ~new
    assert np.array_equal(place[old], 2 * content[old])
    assert np.array_equal(np.unique(place[new] - NEW), np.arange(len(stored)))
    then = np.where(place >= 0, place, np.where(planned.zero, -1, pages.place))
    assert planned.more_mappings == mappings(then.tolist(), kinds) - mappings(pages.place.tolist(), kinds)
    if not planned.left:
        shown = np.where(place >= 0, place, pages.place)
        for c in set(content.tolist()) - {0}:
            of = content == c
            if np.count_nonzero(of) > 1:
                copies = len(set(shown[of].tolist()))
                in_a_row = copies == np.ptp(shown[of]) + 1 <= np.count_nonzero(of)
                assert copies == 1 or (mapping_bytes > 200 and in_a_row)
        assert planned.zero.sum() == zero.sum()
    assert len(place) == n


@given(st.lists(st.integers(-1, 9), max_size=80), st.data())
def test_orders_are_permutations(content, data):
    begins = np.array(data.draw(st.lists(st.booleans(), min_size=len(content), max_size=len(content))), bool)
    places = chained(np.array(content, np.int64), begins, 10)
    assert sorted(places.tolist()) == list(range(10))


def test_neighbours_are_stored_as_neighbours():
    content = np.array([3, 1, 2, -1, 3, 1, 0, -1, 1, 2, 3, 1, 2], np.int64)
    begins = np.zeros(len(content), bool)
    places = chained(content, begins, 4)
    assert places[1] == places[3] + 1 and places[2] == places[1] + 1
