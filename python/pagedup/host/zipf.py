"""Zipf's law, as dedupcore.draw_accesses takes a distribution of ranks."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from dedupcore import QUANTILES

if TYPE_CHECKING:
    from numpy.typing import NDArray


@lru_cache(maxsize=64)
def zipf_chances(n: int, exponent: float) -> NDArray[np.float64]:
    """Float64 ndarray (n,), read-only: the probability of each rank, as (rank + 1) to the power of -exponent."""
    chances = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    chances /= chances.sum()
    chances.flags.writeable = False
    return chances


@lru_cache(maxsize=64)
def zipf_quantiles(n: int, exponent: float) -> NDArray[np.uint32]:
    """Uint32 ndarray (QUANTILES + 1,), read-only: the ranks at which each part of the probability ends, from 0 to n.

    So the probability of a rank is that of `zipf_chances` within 2 / QUANTILES: ranks that stand in one part with
    others are all as likely as each other there.
    """
    ends = np.cumsum(zipf_chances(n, exponent))
    quantiles = np.searchsorted(ends, np.arange(QUANTILES + 1) / QUANTILES, side="right").astype(np.uint32)
    np.minimum(quantiles, n - 1, out=quantiles)
    quantiles[-1] = n
    quantiles.flags.writeable = False
    return quantiles
