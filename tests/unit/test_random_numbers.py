"""Random numbers by their position: the right ones, in any order, and no pattern that a layout would show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import dedupcore
from tests import simulated_guests

WORDS = st.integers(0, 2**64 - 1)


def numbers(key: int, n: int, first: int = 0) -> NDArray[np.uint64]:
    out = np.zeros(n, np.uint64)
    dedupcore.random_numbers(key, out, first)
    return out


def test_the_oracle_is_split_mix() -> None:
    """The vectors that implementations of SplitMix64 are checked with: seed 1234567."""
    assert simulated_guests.split_mix(1234567, 5) == [
        *(6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821)
    ]


def test_known_answers() -> None:
    """They never change: layouts depend on them."""
    assert numbers(0, 2).tolist() == [12035550249420947055, 12935080325729570654]
    assert numbers(2**64 - 1, 2, 2**64 - 1).tolist() == [4922461756044938104, 6755974106381971767]


@given(WORDS, WORDS, st.integers(0, 20))
def test_against_the_oracle(key: int, first: int, n: int) -> None:
    expected = [simulated_guests.random(key, (first + i) % 2**64) for i in range(n)]
    assert numbers(key, n, first).tolist() == expected


@given(WORDS, st.integers(0, 2**63), st.integers(1, 50), st.data())
def test_any_part_of_a_stream_is_the_same(key: int, first: int, n: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, n - 1))
    assert numbers(key, n, first)[start:].tolist() == numbers(key, n - start, first + start).tolist()


@pytest.mark.parametrize(
    "keys", [range(64), range(0, 64 << 32, 1 << 32), [i * simulated_guests.WEYL for i in range(64)]]
)
def test_streams_of_close_keys_have_nothing_in_common(keys: range | list[int]) -> None:
    """Not even shifted: of 2^18 numbers in 2^64, two that are equal by chance come once in 2^29 runs."""
    streams = np.concatenate([numbers(key % 2**64, 4096) for key in keys])
    assert len(np.unique(streams)) == len(streams)


@pytest.mark.parametrize("shift", [0, 24, 32, 56])
def test_all_values_are_as_likely(shift: int) -> None:
    """Chi squared of a byte's 256 values has mean 255 and deviation 22.6; six of these are allowed."""
    n = 1 << 20
    for drawn in (numbers(7, n), np.concatenate([numbers(key, 64) for key in range(n // 64)])):
        counts = np.bincount((drawn >> np.uint64(shift)).astype(np.uint8), minlength=256)
        assert abs(((counts - n / 256) ** 2).sum() / (n / 256) - 255) < 6 * 22.6


@pytest.mark.parametrize("bit", range(64))
def test_every_bit_of_key_and_number_counts(bit: int) -> None:
    """Changing one changes each bit of the result in half of all cases, within six deviations."""
    n = 1024
    for key_step, step in ((1 << bit, 0), (0, 1 << bit)):
        changed = [numbers(i, 1, 3 * i)[0] ^ numbers(i ^ key_step, 1, 3 * i ^ step)[0] for i in range(n)]
        flips = np.unpackbits(np.array(changed, np.uint64).view(np.uint8).reshape(n, 8), axis=1).mean(axis=0)
        assert np.abs(flips - 0.5).max() < 6 * 0.5 / n**0.5
