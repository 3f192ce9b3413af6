"""Accesses drawn by the engine, beside a model that draws them one by one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dedupcore
from dedupcore import QUANTILES
from tests.simulated_guests import MASK, random

ALWAYS = 1 << 32


def zipf(n: int, exponent: float) -> Any:
    """The quantiles of a Zipf law over n ranks."""
    ends = np.cumsum(np.arange(1, n + 1, dtype=np.float64) ** -exponent)
    return np.searchsorted(ends / ends[-1], np.arange(QUANTILES + 1) / QUANTILES, side="left").astype(np.uint32)


def draw(key: int, first: int, working_set: Any, quantiles: Any, chance: int, n: int) -> tuple[Any, Any]:
    gpns, writes = np.full(n, 7, np.uint32), np.full(n, 7, np.uint8)
    dedupcore.draw_accesses(key, first, working_set, quantiles, chance, gpns, writes)
    return gpns, writes


def modelled(key: int, i: int, working_set: Any, quantiles: Any, chance: int) -> tuple[int, bool]:
    """Access number i."""
    drawn = random(key, i)
    k, part = drawn >> 48, drawn >> 32 & 0xFFFF
    low, high = int(quantiles[k]), int(quantiles[k + 1])
    rank = low + (high - low) * part // 65536
    return int(working_set[min(rank, len(working_set) - 1)]), drawn % 2**32 < chance


@given(
    key=st.integers(0, MASK),
    first=st.integers(0, MASK - 300),
    n=st.integers(1, 5000),
    exponent=st.sampled_from([0.0, 0.5, 1.0, 1.3, 4.0]),
    chance=st.sampled_from([0, 1, ALWAYS // 3, ALWAYS - 1, ALWAYS]),
)
def test_each_is_that_of_the_model(key: int, first: int, n: int, exponent: float, chance: int) -> None:
    working_set = np.random.default_rng(n).permutation(1 << 20)[:n].astype(np.uint32)
    quantiles = zipf(n, exponent)
    gpns, writes = draw(key, first, working_set, quantiles, chance, 100)
    expected = [modelled(key, first + i, working_set, quantiles, chance) for i in range(100)]
    assert list(zip(gpns.tolist(), writes.astype(np.bool_).tolist(), strict=True)) == expected
    part = draw(key, first + 40, working_set, quantiles, chance, 20)
    assert part[0].tolist() == gpns[40:60].tolist(), "where a batch begins is nothing to them"


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 1.5])
def test_the_law_is_followed(exponent: float) -> None:
    n, draws = 1000, 2_000_000
    gpns, writes = draw(5, 0, np.arange(n, dtype=np.uint32), zipf(n, exponent), ALWAYS * 3 // 10, draws)
    chances = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    expected = draws * chances / chances.sum()
    found = np.bincount(gpns, minlength=n)
    # A quantile that ends within a rank gives all of itself to one side.
    assert (np.abs(found - expected) < 6 * np.sqrt(expected) + draws / QUANTILES).all()
    assert abs(writes.mean() - 0.3) < 0.002
    hot = writes[gpns < 10].mean()
    assert abs(hot - 0.3) < 0.01, "which page it is has nothing to do with whether it is written"


def test_what_lies_beyond_is_the_last_page() -> None:
    """Quantiles that are not what they must be lead to wrong pages, and nowhere else."""
    working_set = np.array([11, 12, 13], np.uint32)
    for quantiles in (
        np.full(QUANTILES + 1, 2**32 - 1, np.uint32),
        np.arange(QUANTILES + 1, dtype=np.uint32)[::-1].copy(),
        np.tile(np.array([2**32 - 1, 0], np.uint32), QUANTILES // 2 + 1)[: QUANTILES + 1].copy(),
    ):
        gpns, _ = draw(1, 0, working_set, quantiles, 0, 10_000)
        assert set(gpns.tolist()) <= {11, 12, 13}


def test_what_is_refused() -> None:
    pages, quantiles, flags = np.zeros(3, np.uint32), np.zeros(QUANTILES + 1, np.uint32), np.zeros(3, np.uint8)
    for arguments, message in [
        ((pages[:0], quantiles, 0, pages, flags), "working_set has 0 pages"),
        ((pages, quantiles[1:].copy(), 0, pages, flags), "quantiles has 65536 items; it must have 65537"),
        ((pages, quantiles, ALWAYS + 1, pages, flags), "write_chance is 4294967297; it must"),
        ((pages, quantiles, 0, pages, flags[1:]), "writes has 2 items, but gpns 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            dedupcore.draw_accesses(1, 0, *arguments)
    dedupcore.draw_accesses(1, 0, pages, quantiles, 0, pages[:0], flags[:0])
