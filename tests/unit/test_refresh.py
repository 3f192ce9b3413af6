"""A second look at frames: what differs is found, and taken over."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dedupcore


@given(st.data())
def test_finds_and_replaces_what_differs(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1, 8, 100, 512]))
    n = data.draw(st.integers(0, 12))
    old = np.frombuffer(data.draw(st.binary(min_size=n * size, max_size=n * size)), np.uint8).reshape(n, size).copy()
    order = data.draw(st.permutations(range(n)))
    now = old[list(order)].copy() if n else old.copy()
    differing = data.draw(st.sets(st.integers(0, n - 1))) if n else set()
    for i in differing:
        now[i, data.draw(st.integers(0, size - 1))] ^= data.draw(st.integers(1, 255))
    expected = old.copy()
    for i, place in enumerate(order):
        expected[place] = now[i]
    changed = np.zeros(n, np.uint8)
    offsets = np.array(order, np.uint64) * np.uint64(size)
    assert dedupcore.refresh(old.reshape(-1), offsets, now.reshape(-1), size, changed) == len(differing)
    assert set(np.flatnonzero(changed).tolist()) == differing
    assert np.array_equal(old, expected)


def test_marks_are_kept() -> None:
    changed = np.array([1, 0], np.uint8)
    assert dedupcore.refresh(np.zeros(8, np.uint8), np.array([0, 4], np.uint64), np.zeros(8, np.uint8), 4, changed) == 0
    assert changed.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("offset", "n_now", "n_changed", "frame_size"),
    [
        *((5, 4, 1, 4), (1 << 63, 4, 1, 4), ((1 << 64) - 4, 4, 1, 4)),
        *((0, 3, 1, 4), (0, 4, 2, 4), (0, 4, 1, 0), (0, 9, 1, 9)),
    ],
)
def test_sizes_that_do_not_fit(offset: int, n_now: int, n_changed: int, frame_size: int) -> None:
    with pytest.raises(ValueError, match=r"bytes"):
        dedupcore.refresh(
            np.zeros(8, np.uint8),
            np.array([offset], np.uint64),
            np.zeros(n_now, np.uint8),
            frame_size,
            np.zeros(n_changed, np.uint8),
        )


def test_last_place_that_fits() -> None:
    memory = np.zeros(8, np.uint8)
    changed = np.zeros(1, np.uint8)
    assert dedupcore.refresh(memory, np.array([4], np.uint64), np.ones(4, np.uint8), 4, changed) == 1
    assert memory.tolist() == [0] * 4 + [1] * 4
