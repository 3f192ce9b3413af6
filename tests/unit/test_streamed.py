"""Frames that stream by: their hashes, and whether they are equal to others that are kept."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dedupcore
from tests.collisions import key_words, swapped

SIZES = [8, 16, 32, 64, 128, 256, 512, 4096, 8192]


@pytest.fixture(autouse=True)
def known_key() -> Iterator[None]:
    dedupcore.set_key(7)
    yield
    dedupcore.set_key(None)


def hashes_of(frames: bytes | memoryview, size: int) -> list[int]:
    found = np.zeros(len(frames) // size, np.uint64)
    dedupcore.hash_frames(frames, size, found)
    return found.tolist()


@given(st.data())
def test_equal_hashes_are_of_equal_frames(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(SIZES))
    contents = [bytes(size), *(data.draw(st.binary(min_size=size, max_size=size)) for _ in range(2))]
    place, bit = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 7))
    contents.append(contents[1][:place] + bytes([contents[1][place] ^ 1 << bit]) + contents[1][place + 1 :])
    frames = [contents[i] for i in data.draw(st.lists(st.integers(0, 3), max_size=12))]
    shift = data.draw(st.integers(0, 9))  # any alignment
    found = hashes_of(memoryview(bytes(shift) + b"".join(frames))[shift:], size)
    assert len(found) == len(frames)
    for frame, mine in zip(frames, found, strict=True):
        assert (mine == 0) == (not any(frame))
        for other, its in zip(frames, found, strict=True):
            assert (mine == its) == (frame == other)


def test_a_key_of_the_callers_own() -> None:
    frames = np.random.default_rng(3).integers(0, 256, 9 * 64, np.uint8)
    frames[64:128] = 0
    mine, again, other = (np.zeros(9, np.uint64) for _ in range(3))
    dedupcore.hash_frames(frames, 64, mine, 8)
    dedupcore.hash_frames(frames, 64, other, 9)
    assert (mine != other).sum() == (mine != hashes_of(frames.data, 64)).sum() == 8  # all but the zero frame
    dedupcore.set_key(8)
    assert hashes_of(frames.data, 64) == mine.tolist()
    dedupcore.set_key(10)
    dedupcore.hash_frames(frames, 64, again, 8)
    assert (again == mine).all()


@pytest.mark.parametrize("rung", ["", "all", "avx2"])
def test_hashes_are_the_same_on_every_rung(rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(3).integers(0, 256, (9, 4096), np.uint8)
    frames[4] = 0
    frames[5, :-1] = 0
    expected = hashes_of(frames.tobytes(), 4096)
    monkeypatch.setenv("DEDUPCORE_DISABLE_CPU", rung)
    assert hashes_of(frames.tobytes(), 4096) == expected
    same = np.full(9, 7, np.uint8)
    dedupcore.match_frames(
        frames.reshape(-1), 4096, frames.reshape(-1), np.arange(9, dtype=np.uint32)[::-1].copy(), same
    )
    assert same.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_another_key_gives_other_hashes() -> None:
    before = hashes_of(b"a" * 4096, 4096)
    dedupcore.set_key(8)
    assert hashes_of(b"a" * 4096, 4096) != before


def test_unequal_frames_may_share_a_hash() -> None:
    """What luck alone brings about elsewhere: it is forced here, with the key known."""
    frame = os.urandom(4096)
    other = swapped(frame, 160, key_words(7), 0)
    assert len(set(hashes_of(frame + other, 4096))) == 1
    same = np.full(2, 7, np.uint8)
    dedupcore.match_frames(frame + other, 4096, frame, np.zeros(2, np.uint32), same)
    assert same.tolist() == [1, 0]


@given(st.data())
def test_matching_is_comparing(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(SIZES))
    original = data.draw(st.binary(min_size=size, max_size=size))
    place = data.draw(st.integers(0, size - 1))
    contents = [original, original[:place] + bytes([original[place] ^ 1]) + original[place + 1 :], bytes(size)]
    frames = data.draw(st.lists(st.integers(0, 2), max_size=9))
    places = data.draw(st.lists(st.integers(0, 2), min_size=len(frames), max_size=len(frames)))
    same = np.full(len(frames), 7, np.uint8)
    dedupcore.match_frames(
        b"".join(contents[i] for i in frames), size, b"".join(contents), np.array(places, np.uint32), same
    )
    assert same.tolist() == [contents[i] == contents[j] for i, j in zip(frames, places, strict=True)]


@pytest.mark.parametrize(
    ("n_bytes", "size", "n"), [(8, 8, 2), (17, 8, 2), (8, 0, 0), (8, 0, 1), (24, 24, 1), (4, 4, 1)]
)
def test_frames_that_do_not_fit(n_bytes: int, size: int, n: int) -> None:
    with pytest.raises(ValueError, match=r"bytes|range"):
        dedupcore.hash_frames(bytes(n_bytes), size, np.zeros(n, np.uint64))
    with pytest.raises(ValueError, match=r"bytes|range"):
        dedupcore.match_frames(bytes(n_bytes), size, bytes(64), np.zeros(n, np.uint32), np.zeros(n, np.uint8))


@pytest.mark.parametrize("places", [[0], [0, 1, 0], [0, 2], [0, (1 << 32) - 1]])
def test_places_that_do_not_fit(places: list[int]) -> None:
    same = np.full(2, 7, np.uint8)
    with pytest.raises(ValueError, match="place"):
        dedupcore.match_frames(bytes(16), 8, bytes(23), np.array(places, np.uint32), same)
    assert same.tolist() == [7, 7]


def test_no_frames() -> None:
    dedupcore.hash_frames(b"", 8, np.zeros(0, np.uint64))
    dedupcore.match_frames(b"", 8, b"", np.zeros(0, np.uint32), np.zeros(0, np.uint8))
