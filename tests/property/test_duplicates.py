"""find_duplicates against a dict of bytes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dedupcore
import pagedup
from pagedup import Duplicates, find_duplicates
from tests import brute_force
from tests.property.memories import RUNGS, Case, alphabet, as_unaligned_view, cases, contents, rung

SMALL = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]


def call(case: Case, **changed: Any) -> Duplicates:
    options = {"frame_size": case.frame_size, "domains": case.domains, "threads": case.threads, **changed}
    with rung(case.rung):
        return find_duplicates(case.memory(), **options)


def expected(case: Case) -> brute_force.Snapshot:
    return brute_force.snapshot([guest.extents for guest in case.guests], case.frame_size, case.domains)


@settings(max_examples=300)
@given(cases(SMALL, max_frames=12))
def test_all_that_is_said_is_what_brute_force_says(case: Case) -> None:
    brute_force.check(call(case), expected(case))


@settings(max_examples=25)
@given(cases([65536, 2 << 20], max_frames=2, max_guests=3))
def test_large_frames(case: Case) -> None:
    brute_force.check(call(case), expected(case))


@settings(max_examples=60)
@given(cases(SMALL, max_frames=12))
def test_work_depends_on_neither_threads_nor_rung(case: Case) -> None:
    dedupcore.set_key(7)
    try:
        found = []
        for threads in (1, 2, 4):
            for disabled in RUNGS:
                with rung(disabled):
                    one = find_duplicates(
                        case.memory(), frame_size=case.frame_size, domains=case.domains, threads=threads
                    )
                found.append((one.work, one.canonical.tolist()))
        assert all(one == found[0] for one in found)
    finally:
        dedupcore.set_key(None)


@pytest.mark.usefixtures("seeded")
@settings(max_examples=100)
@given(st.data())
def test_work_is_exactly_what_must_be_done(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([*SMALL, 65536]))
    some = data.draw(alphabet(size))
    numbers = data.draw(st.lists(st.integers(0, len(some) - 1), max_size=40))
    memory = b"".join(some[number] for number in numbers)
    with rung(data.draw(st.sampled_from(RUNGS))):
        found = find_duplicates(
            as_unaligned_view(memory), frame_size=size, threads=data.draw(st.integers(1, 3), label="threads")
        )
    assert found.work == brute_force.work(memory, size)
    assert found.work.frames_not_read <= found.n_distinct


@settings(max_examples=60)
@given(st.sampled_from(SMALL[3:]), st.data())
def test_one_changed_byte_makes_a_frame_distinct(size: int, data: st.DataObject) -> None:
    """Any byte of any content: both a frame's own copies and the changed one are told apart."""
    content = data.draw(contents(size))
    changed = bytearray(content)
    changed[data.draw(st.integers(0, size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    memory = [content, bytes(changed), content, bytes(changed)]
    with rung(data.draw(st.sampled_from(RUNGS))):
        found = find_duplicates(b"".join(memory), frame_size=size, threads=1)
    assert found.canonical.tolist() == [0, 1, 0, 1]


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("size", [512, 1024, 4096, 8192])
@pytest.mark.parametrize("base", [0, 0xAB])
@pytest.mark.parametrize("disabled", RUNGS)
def test_every_byte_of_a_frame_counts(size: int, base: int, disabled: str) -> None:
    """All frames that differ from one in a single byte, twice each: none is overlooked, none is taken for another."""
    step = size // 512
    once = np.full((1 + size // step, size), base, np.uint8)
    for row in range(1, len(once)):
        once[row, (row - 1) * step + row % step] ^= 0x10
    with rung(disabled):
        found = find_duplicates(np.concatenate((once, once)), frame_size=size)
    assert found.canonical.tolist() == [*range(len(once))] * 2
    assert found.n_zero == (2 if base == 0 else 0)
    assert found.work == brute_force.work(2 * once.tobytes(), size)


@settings(max_examples=30)
@given(cases([8, 512, 4096], max_frames=12), st.randoms(use_true_random=False))
def test_order_of_guests_only_renumbers(case: Case, random: Any) -> None:
    order = list(range(len(case.guests)))
    random.shuffle(order)
    shuffled = Case(
        case.frame_size,
        [case.guests[g] for g in order],
        None if case.domains is None else [case.domains[g] for g in order],
        case.threads,
        case.rung,
    )
    assert pagedup.summarize(call(case)) == pagedup.summarize(call(shuffled))
