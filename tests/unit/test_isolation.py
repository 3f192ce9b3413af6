"""Keeping guests apart: the classes of domains from those without, against the engine's own answer for each domain."""

from collections.abc import Hashable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pagedup
from pagedup.sharing import Isolation, isolation_cost, split_by_node
from tests import brute_force
from tests.property.memories import Case, cases


@settings(max_examples=200)
@given(cases([8, 16, 512], max_frames=24), st.data())
def test_isolating_is_finding_with_domains(case: Case, data: st.DataObject) -> None:
    domains = data.draw(st.lists(st.sampled_from("abc"), min_size=len(case.guests), max_size=len(case.guests)))
    together = pagedup.find_duplicates(case.memory(), frame_size=case.frame_size, threads=case.threads)
    apart = together.isolate(domains)
    snapshot = brute_force.snapshot([guest.extents for guest in case.guests], case.frame_size, domains)
    brute_force.check(apart, snapshot)
    brute_force.check(apart.coarsen(2), snapshot.coarse(2))
    engine = pagedup.find_duplicates(case.memory(), frame_size=case.frame_size, domains=domains)
    assert np.array_equal(apart.canonical, engine.canonical)
    assert apart.zero_canonicals() == engine.zero_canonicals()
    summary, shared = pagedup.summarize(engine), pagedup.summarize(together)
    assert isolation_cost(together, domains) == Isolation(
        case.frame_size, len(set(domains)), shared.saved_nonzero, summary.saved_nonzero
    )
    assert isolation_cost(together) == Isolation(
        case.frame_size, len(case.guests), shared.saved_nonzero, shared.saved_within_guests
    )


@pytest.mark.parametrize("domains", [[], ["a"], ["a", "b", "c"]])
def test_one_domain_a_guest(domains: list[Hashable]) -> None:
    found = pagedup.find_duplicates([bytes(8), bytes(8)], frame_size=8)
    with pytest.raises(ValueError, match=rf"domains has {len(domains)} values for 2 guests; it must have one a guest"):
        isolation_cost(found, domains)


def test_only_once() -> None:
    found = pagedup.find_duplicates([bytes(8), bytes(8)], frame_size=8, domains="ab")
    with pytest.raises(ValueError, match="in several domains already"):
        found.isolate("ab")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-2, 3)), max_size=60))
def test_memory_nodes_against_sets(frames: list[tuple[int, int]]) -> None:
    found = pagedup.find_duplicates(np.array([name for name, _ in frames], np.uint64), frame_size=8)
    saving = split_by_node(found, np.array([node for _, node in frames], np.int16))
    known = [(name, node) for name, node in frames if name and node >= 0]
    assert saving.saved_across_nodes == len(known) - len({name for name, _ in known})
    assert saving.saved_within_nodes == len(known) - len(set(known))
    assert saving.unknown == sum(node < 0 for _, node in frames)
    assert saving.nodes == len({node for _, node in frames if node >= 0})
    assert saving.page_size == 8


def test_one_node_a_frame() -> None:
    found = pagedup.find_duplicates(bytes(16), frame_size=8)
    with pytest.raises(ValueError, match=r"nodes has the shape \(3,\) for 2 frames; it must be \(2,\)"):
        split_by_node(found, np.zeros(3, np.int16))
