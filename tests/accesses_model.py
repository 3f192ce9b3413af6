"""TEMPORARY: what dedupcore.draw_accesses does, in NumPy."""

from typing import Any

import numpy as np

import dedupcore


def draw_accesses(key: int, first: int, working_set: Any, quantiles: Any, chance: int, gpns: Any, writes: Any) -> None:
    n = len(gpns)
    draws = np.empty(2 * n, np.uint64)
    dedupcore.random_numbers(key, draws, 2 * first)
    part = (draws[::2] >> np.uint64(48)).astype(np.int64)
    fraction = (draws[::2] & np.uint64((1 << 32) - 1)).astype(np.uint64)
    q = quantiles.astype(np.uint64)
    rank = q[part] + ((q[part + 1] - q[part]) * fraction >> np.uint64(32))
    gpns[:] = working_set[rank.astype(np.int64)]
    writes[:] = (draws[1::2] >> np.uint64(32)) < np.uint64(chance)
