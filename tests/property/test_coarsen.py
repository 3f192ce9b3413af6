"""Larger frames from the classes of smaller ones, against brute force on the bytes and against a scan of their own."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pagedup import Duplicates, find_duplicates, summarize
from tests import brute_force
from tests.property.memories import Case, cases, rung

FACTORS = [1, 2, 4, 8, 64]


def call(case: Case) -> Duplicates:
    with rung(case.rung):
        return find_duplicates(case.memory(), frame_size=case.frame_size, domains=case.domains, threads=case.threads)


@settings(max_examples=200)
@given(cases([8, 16, 512, 1024], max_frames=24), st.sampled_from(FACTORS))
def test_coarse_frames_are_those_of_brute_force(case: Case, factor: int) -> None:
    snapshot = brute_force.snapshot([guest.extents for guest in case.guests], case.frame_size, case.domains)
    found = call(case)
    brute_force.check(found.coarsen(factor), snapshot.coarse(factor))
    brute_force.check(found, snapshot)  # it left its source alone


@settings(max_examples=80)
@given(cases([8, 512], max_frames=40), st.lists(st.sampled_from([1, 2, 4]), min_size=2, max_size=3))
def test_steps_are_as_good_as_a_leap(case: Case, steps: list[int]) -> None:
    found = call(case)
    leap, walk = found.coarsen(int(np.prod(steps))), found
    for step in steps:
        walk = walk.coarsen(step)
    assert walk.canonical.tolist() == leap.canonical.tolist()
    assert walk.addresses.tolist() == leap.addresses.tolist()
    assert walk.guest_offsets.tolist() == leap.guest_offsets.tolist()
    assert summarize(walk) == summarize(leap)


@settings(max_examples=5)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 511)), min_size=1, max_size=6), st.data())
def test_coarse_frames_are_those_of_a_direct_scan(frames: list[tuple[int, int]], data: Any) -> None:
    """Frames of 2 MiB that are zero, or noise, and differ in no more than one of their small frames."""
    memory = np.zeros((len(frames), 512, 4096), np.uint8)
    for large, (base, small) in zip(memory, frames, strict=True):
        if base:
            large[:] = np.random.default_rng(base).integers(0, 256, large.shape, np.uint8)
        large[small % 3, small] ^= small % 2
    direct = find_duplicates(memory.reshape(-1), frame_size=2 << 20)
    coarse = find_duplicates(memory.reshape(-1), threads=data.draw(st.integers(1, 3))).coarsen(512)
    assert coarse.canonical.tolist() == direct.canonical.tolist()
    assert coarse.zero.tolist() == direct.zero.tolist()
    assert summarize(coarse) == summarize(direct)
