"""The engine's TLB beside a slow model, over geometries, mixtures of page sizes and traces."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import dedupcore
from tests.tlb_model import Model

RANGES = 1026  # two whole pages of 1 GiB, and a bit
LINES = [0, 64, 4032, 4095]


@st.composite
def cache_sizes(draw: st.DrawFn, most_sets: int = 3) -> tuple[int, int]:
    """Entries and ways: of no entries, direct mapped, set associative, fully associative."""
    ways = draw(st.integers(1, 5))
    return draw(st.sampled_from([0, 1, 1, 1])) * ways << draw(st.integers(0, most_sets)), ways


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    """Few caches, so that they are often shared by what is of different kinds."""
    n = draw(st.integers(1, 7))
    which = st.integers(-1, n - 1)
    three = st.tuples(which, which, which)
    return {
        "caches": draw(st.lists(cache_sizes(), min_size=n, max_size=n)),
        "l1": draw(three),
        "l2": draw(three),
        "l2_as": (0, draw(st.integers(0, 1)), draw(st.integers(0, 2))),
        "walk": draw(three),
        "nested": draw(which),
        "host_walk": draw(three),
        "data": draw(st.one_of(st.just([(0, 1)] * 3), st.tuples(cache_sizes(8), cache_sizes(9), cache_sizes(9)))),
    }


@st.composite
def page_sizes(draw: st.DrawFn) -> list[int]:
    """Of each range: mixtures of small and large pages, with whole pages of 1 GiB."""
    sizes = np.asarray(draw(st.lists(st.integers(0, 1), min_size=7, max_size=7)), np.uint8)
    made = np.resize(sizes, RANGES)
    for gib in range(2):
        if draw(st.booleans()):
            made[gib * 512 : (gib + 1) * 512] = 2
    return [int(size) for size in made]


@st.composite
def traces(draw: st.DrawFn) -> list[int]:
    """Addresses: some pages again and again, neighbours, and any."""
    pages = st.one_of(
        st.integers(0, 12),
        st.integers(0, RANGES - 1).map(lambda n: n << 9),
        st.integers(0, (RANGES << 9) - 1),
    )
    few = draw(st.lists(pages, min_size=1, max_size=12))
    order = draw(st.lists(st.tuples(st.integers(0, len(few) - 1), st.sampled_from(LINES)), max_size=200))
    return [(few[which] << 12) + offset for which, offset in order]


def counted(model: Model) -> dict[str, Any]:
    lengths = {"references": 2, "references_found": 4, "data_found": 4}
    names = [name for name in dedupcore.TlbCounts._fields if name != "nested_hits"]
    each: dict[str, Any] = {name: tuple(model.counts[name, i] for i in range(lengths.get(name, 3))) for name in names}
    return each | {"nested_hits": model.counts["nested_hits", 0]}


@settings(max_examples=300, deadline=None)
@given(
    geometry=geometries(),
    sizes=page_sizes(),
    host=st.one_of(st.none(), page_sizes()),
    table_size=st.integers(0, 2),
    batches=st.lists(traces(), min_size=1, max_size=3),
    again=st.booleans(),
)
def test_counts_are_those_of_the_model(
    geometry: dict[str, Any],
    sizes: list[int],
    host: list[int] | None,
    table_size: int,
    batches: list[list[int]],
    again: bool,
) -> None:
    tlb, model = dedupcore.Tlb(**geometry), Model(**geometry)
    host_sizes = None if host is None else np.array(host, np.uint8)
    for i, batch in enumerate(batches):
        if i == 0 or again:
            tlb.map(np.array(sizes, np.uint8), host_sizes, table_size)
            model.map(sizes, host, table_size)
        tlb.access(np.array(batch, np.uint64))
        model.access(batch)
        assert tlb.count()._asdict() == counted(model)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.floats(0, 2),
    ways=st.sampled_from([1, 4, 24, 72]),
    sets=st.sampled_from([1, 8]),
    host=st.sampled_from([None, 0, 1]),
)
def test_long_traces_through_caches_as_large_as_real_ones(
    seed: int, exponent: float, ways: int, sets: int, host: int | None
) -> None:
    geometry: dict[str, Any] = {
        "caches": [(ways * sets, ways), (96, 6), (16, 16)],
        "l1": (0, 0, 0),
        "l2": (1, 1, 1),
        "l2_as": (0, 1, 1),
        "walk": (1, 2, 2),
        "nested": 2,
        "host_walk": (1, 2, 2),
        "data": [(64, 8), (512, 8), (0, 1)],
    }
    dice = np.random.default_rng(seed)
    pages = np.minimum((64 * 512) ** (dice.random(3000) ** (1 + exponent)), 64 * 512 - 1).astype(np.uint64)
    addresses = (pages << np.uint64(12)) + dice.integers(0, 4096, len(pages)).astype(np.uint64)
    sizes = dice.integers(0, 2, 64).astype(np.uint8)
    host_sizes = None if host is None else np.full(64, host, np.uint8)
    tlb, model = dedupcore.Tlb(**geometry), Model(**geometry)
    tlb.map(sizes, host_sizes, 0)
    model.map([int(size) for size in sizes], None if host is None else [host] * 64, 0)
    tlb.access(addresses)
    model.access([int(address) for address in addresses])
    assert tlb.count()._asdict() == counted(model)
