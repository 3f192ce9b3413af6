"""Zipf's law, as dedupcore.draw_accesses takes a distribution of ranks."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = 1 << 16
"""Parts of equal probability that quantiles divide a distribution in."""


@lru_cache(maxsize=64)
def zipf_chances(n: int, exponent: float) -> NDArray[np.float64]:
    """Float64 ndarray (n,), read-only: the probability of each rank, as (rank + 1) to the power of -exponent."""
    chances = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    chances /= chances.sum()
    chances.flags.writeable = False
    return chances


@lru_cache(maxsize=64)
def zipf_quantiles(n: int, exponent: float) -> NDArray[np.uint32]:
    """Uint32 ndarray (PARTS + 1,), read-only: item k is the rank at which the first k / PARTS of the probability ends.

    The last item is n. So the probability of each rank is that of `zipf_chances` within 2 / PARTS: ranks that stand in
    one part with others are all as likely as each other there.
    """
    ends = np.cumsum(zipf_chances(n, exponent))
    quantiles = np.searchsorted(ends, np.arange(PARTS + 1) / PARTS, side="right").astype(np.uint32)
    np.minimum(quantiles, n - 1, out=quantiles)
    quantiles[-1] = n
    quantiles.flags.writeable = False
    return quantiles
