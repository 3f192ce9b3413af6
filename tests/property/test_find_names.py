"""Grouping by name against a dict, and against the bytes that the names stand for."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagedup import find_duplicates, summarize, summarize_guests
from pagedup.guests import Texture, materialize
from pagedup.memory.extent import Extent
from pagedup.memory.layouts import ABSENT, Layout
from pagedup.sharing import find_duplicate_names, summarize_layout_regions
from tests import brute_force
from tests.layouts import PAGE, layouts, make

# Few, so that most have duplicates; some of one family, which textures make alike.
NAMES = st.sampled_from([0, ABSENT, 1, 2, 0x101, 1 << 60, (1 << 60) + 1, (15 << 60) - 1, ABSENT - 1])
several = st.lists(layouts(NAMES, 12), max_size=4)


def snapshot(guests: list[Layout], domains: Any) -> brute_force.Snapshot:
    """Each page as the 8 bytes of its name, where brute force expects its bytes."""
    frames = []
    for guest, layout in enumerate(guests):
        numbers = [page for first, length in layout.runs.tolist() for page in range(first, first + length)]
        frames += [
            brute_force.Frame(guest, page * PAGE, name.to_bytes(8, "little"))
            for page, name in zip(numbers, layout.names.tolist(), strict=True)
            if name != ABSENT
        ]
    return brute_force.Snapshot(PAGE, tuple(frames), tuple(domains or [0] * len(guests)), len(frames) * PAGE)


@settings(max_examples=200)
@given(several, st.data())
def test_all_that_is_said_is_what_brute_force_says(guests: list[Layout], data: st.DataObject) -> None:
    domains = data.draw(st.none() | st.lists(st.sampled_from("ab"), min_size=len(guests), max_size=len(guests)))
    found = find_duplicate_names(guests, domains=domains, threads=data.draw(st.integers(1, 3)))
    expected = snapshot(guests, domains)
    brute_force.check(found, expected)
    for factor in (2, 4, 8):
        brute_force.check(found.coarsen(factor), expected.coarse(factor))


@settings(max_examples=50)
@given(several, st.data())
def test_isolated_afterwards_or_from_the_first(guests: list[Layout], data: st.DataObject) -> None:
    domains = data.draw(st.lists(st.sampled_from("ab"), min_size=len(guests), max_size=len(guests)))
    brute_force.check(find_duplicate_names(guests).isolate(domains), snapshot(guests, domains))


@settings(max_examples=80)
@given(several, st.sampled_from(Texture))
def test_names_and_bytes_give_the_same_classes(guests: list[Layout], texture: Texture) -> None:
    """Names as frames of 8 bytes, and the bytes of the pages, with what is absent left out."""
    memory = []
    for layout in guests:
        pages = materialize(layout, texture=texture)
        numbers = [page for first, length in layout.runs.tolist() for page in range(first, first + length)]
        memory.append(
            [
                Extent(number * PAGE, pages[index].data)
                for index, (number, there) in enumerate(zip(numbers, layout.present.tolist(), strict=True))
                if there
            ]
        )
    named, read = find_duplicate_names(guests), find_duplicates(memory, frame_size=PAGE) if memory else None
    if read is None:
        assert named.n_frames == 0
        return
    assert named.canonical.tolist() == read.canonical.tolist()
    assert named.zero.tolist() == read.zero.tolist()
    assert named.addresses.tolist() == read.addresses.tolist()
    assert summarize(named) == summarize(read)
    assert summarize_guests(named) == summarize_guests(read)
    for factor in (2, 512):
        assert summarize(named.coarsen(factor)) == summarize(read.coarsen(factor))


@settings(max_examples=100)
@given(several, st.sampled_from([1, 2, 4]))
def test_regions_page_by_page(guests: list[Layout], factor: int) -> None:
    found = find_duplicate_names(guests).coarsen(factor)
    rows = summarize_layout_regions(found, guests)
    counted: dict[str, list[Any]] = {}
    offsets = found.guest_offsets.tolist()
    seen: set[tuple[int, int]] = set()
    copies = np.bincount(found.canonical, minlength=found.n_frames)
    for guest, layout in enumerate(guests):
        numbers = [page for first, length in layout.runs.tolist() for page in range(first, first + length)]
        region_of = {
            number * PAGE: str(layout.region_table[region])
            for number, region in zip(numbers, layout.regions.tolist(), strict=True)
        }
        for frame in range(offsets[guest], offsets[guest + 1]):
            row = counted.setdefault(region_of[int(found.addresses[frame])], [set(), 0, 0, 0, 0, 0])
            row[0].add(guest)
            row[1] += 1
            canonical = int(found.canonical[frame])
            if found.zero[frame]:
                row[2] += 1
            elif copies[canonical] == 1:
                row[3] += 1
            elif (guest, canonical) in seen:
                row[4] += 1
            elif canonical != frame:
                row[5] += 1
            seen.add((guest, canonical))
    assert {
        (row.name, row.guests, row.pages, row.zero, row.unique, row.saved_within, row.saved_across) for row in rows
    } == {(name, len(row[0]), *row[1:]) for name, row in counted.items()}
    saved = [row.saved_within + row.saved_across for row in rows]
    assert saved == sorted(saved, reverse=True)


def test_large_pages_only_where_all_is_present() -> None:
    names = np.ones(4 * 512, np.uint64)
    whole = find_duplicate_names([make(names)]).coarsen(512)
    assert (whole.n_frames, whole.excluded_bytes) == (4, 0)
    names[700] = ABSENT
    torn = find_duplicate_names([make(names)]).coarsen(512)
    assert torn.addresses.tolist() == [0, 2 << 21, 3 << 21]
    assert torn.excluded_bytes == 511 * PAGE  # what is absent is no memory
    shifted = find_duplicate_names([make(names, [[1, 2048]])]).coarsen(512)
    assert shifted.addresses.tolist() == [2 << 21, 3 << 21]
    joined = find_duplicate_names([make(np.ones(512), [[512, 100], [612, 412]])]).coarsen(512)
    assert joined.addresses.tolist() == [1 << 21]


def test_absent_pages_are_not_equal_to_one_another() -> None:
    found = find_duplicate_names([make([ABSENT, ABSENT, 5]), make([ABSENT, 5])])
    assert (found.n_frames, found.n_distinct, found.canonical.tolist()) == (2, 1, [0, 0])
    assert find_duplicate_names([make([ABSENT] * 3)]).n_frames == 0


def test_layouts_that_were_named_apart() -> None:
    with pytest.raises(ValueError, match="b and a were named apart"):
        find_duplicate_names([make([1], name="a"), make([1], name="b", space="other")])


def test_regions_need_one_layout_a_guest() -> None:
    found = find_duplicate_names([make([1]), make([2])])
    with pytest.raises(ValueError, match="there are 1 layouts for 2 guests"):
        summarize_layout_regions(found, [make([1])])
    assert find_duplicate_names([]).n_frames == 0
