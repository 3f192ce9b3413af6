"""Placement, names and bytes of simulated guests against an oracle in plain Python."""

from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import dedupcore
from tests import simulated_guests

KEYS = st.integers(0, 2**64 - 1)
EDGES = [0, 1, 2, 3, 511, 512, 1023, 1024, 1025, 2047, 2048, 2049]
ALWAYS = 1 << 32


class Memory(NamedTuple):
    """What place is asked for."""

    n_pages: int
    counts: list[int]
    max_orders: list[int]
    fixed: list[int]


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    """Regions that fit, in a memory that they may fill: some at fixed places, in any order."""
    sizes = st.one_of(st.sampled_from(EDGES), st.integers(0, 3000))
    pieces = draw(st.lists(st.tuples(sizes, st.sampled_from(["fixed", "placed", "free"])), max_size=8))
    first, regions = 0, []
    for size, kind in pieces:
        if kind != "free":
            regions.append((size, draw(st.integers(0, 10)), first if kind == "fixed" else -1))
        first += size
    regions = draw(st.permutations(regions))
    return Memory(first, [r[0] for r in regions], [r[1] for r in regions], [r[2] for r in regions])


def place(key: int, memory: Memory, split: int) -> list[int]:
    places = np.zeros(sum(memory.counts), np.uint32)
    dedupcore.place(
        key,
        memory.n_pages,
        split / ALWAYS,
        np.array(memory.counts, np.int64),
        np.array(memory.max_orders, np.uint8),
        np.array(memory.fixed, np.int64),
        places,
    )
    return places.tolist()


@settings(max_examples=150)
@given(KEYS, memories(), st.one_of(st.sampled_from([0, 1, ALWAYS // 2, ALWAYS - 1, ALWAYS]), st.integers(0, ALWAYS)))
def test_places_are_those_of_a_buddy_allocator(key: int, memory: Memory, split: int) -> None:
    places = place(key, memory, split)
    assert len(set(places)) == len(places)
    assert all(page < memory.n_pages for page in places)
    assert places == simulated_guests.place(key, memory.n_pages, split, *memory[1:])


@settings(max_examples=150)
@given(st.data())
def test_names_are_those_of_a_loop(data: st.DataObject) -> None:
    n_pages = data.draw(st.integers(0, 40))
    places = data.draw(st.lists(st.integers(0, max(n_pages - 1, 0)), unique=True, max_size=n_pages))
    n_variables = data.draw(st.integers(1, 5))
    values = data.draw(st.lists(KEYS, min_size=n_variables, max_size=n_variables))
    some = st.one_of(st.sampled_from([0, 1, 2**32 - 1]), st.integers(0, 2**32 - 1))
    chances = data.draw(st.lists(some, min_size=n_variables, max_size=n_variables))
    names = data.draw(st.lists(KEYS, min_size=len(places), max_size=len(places)))
    variables = data.draw(st.lists(st.integers(0, n_variables - 1), min_size=len(places), max_size=len(places)))
    own, key = data.draw(KEYS), data.draw(KEYS)
    regions = list(range(len(places)))
    out_names, out_regions = np.full(n_pages, 9, np.uint64), np.full(n_pages, 9, np.uint8)
    dedupcore.name_pages(
        np.array(places, np.uint32),
        np.array(names, np.uint64),
        np.array(variables, np.uint16),
        np.array(regions, np.uint8),
        np.array(values, np.uint64),
        np.array(chances, np.uint32),
        own,
        key,
        out_names,
        out_regions,
    )
    expected_names, expected_regions = [9] * n_pages, [9] * n_pages
    for i, page in enumerate(places):
        diverged = simulated_guests.random(key, i) >> 32 < chances[variables[i]]
        expected_names[page] = own | i if diverged else names[i] | values[variables[i]]
        expected_regions[page] = regions[i]
    assert out_names.tolist() == expected_names
    assert out_regions.tolist() == expected_regions


@settings(max_examples=150)
@given(
    st.lists(st.one_of(KEYS, st.integers(0, 600), st.integers(2**63, 2**63 + 600)), max_size=40),
    st.sampled_from([64, 128, 256, 4096]),
    st.integers(0, 4),
)
def test_bytes_and_names_are_equal_alike(names: list[int], size: int, texture: int) -> None:
    """find_duplicates says the same of both; and every name can be read back from its bytes."""
    array = np.array(names, np.uint64)
    frames = np.full(len(names) * size, 0xA5, np.uint8)
    dedupcore.materialize(array, frames, size, texture)
    assert [simulated_guests.read_name(frames[at : at + size].tobytes()) for at in range(0, len(frames), size)] == names
    of_names, of_bytes = np.zeros(len(names), np.uint32), np.zeros(len(names), np.uint32)
    found = [
        dedupcore.find_duplicates([(buffer, 0, len(names))], canonical, frame_size=frame_size)[:4]
        for buffer, canonical, frame_size in ((array, of_names, 8), (frames, of_bytes, size))
    ]
    assert found[0] == found[1]
    assert np.array_equal(of_names, of_bytes)
