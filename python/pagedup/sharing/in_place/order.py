"""In which order to store contents, so that neighbours in memory are neighbours there as often as can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

_ROUNDS = 3  # more save hardly a mapping


def chained(content: Numbers, begins: NDArray[np.bool_], n: int) -> Numbers:
    """The place, 0 to n - 1, of each of n contents. `content`: its number for each page, -1: of none.

    What most often follows another content in memory is put behind it, the most frequent pairs first: each such pair
    saves a mapping wherever it stands. Contents of no pair keep their order.
    """
    here, there = content[:-1], content[1:]
    pairs = np.flatnonzero((here >= 0) & (there >= 0) & (here != there) & ~begins[1:])
    key, count = np.unique(here[pairs] * n + there[pairs], return_counts=True)
    order = np.argsort(-count, kind="stable")
    before, behind, count = key[order] // max(n, 1), key[order] % max(n, 1), count[order]
    follows = np.full(n, -1, np.int64)  # the content that each is put behind
    leads = np.full(n, -1, np.int64)
    rank = np.arange(n)  # higher for what is put behind another more often
    for _ in range(_ROUNDS):
        open_pairs = (leads[before] < 0) & (follows[behind] < 0)
        before, behind, count = before[open_pairs], behind[open_pairs], count[open_pairs]
        if not len(before):
            break
        # The pairs that are the most frequent ones for both of their contents.
        best = _first_of_each(before, n) & _first_of_each(behind, n)
        leads[before[best]] = behind[best]
        follows[behind[best]] = before[best]
        rank[behind[best]] = count[best] * n + behind[best]
        cut = _weakest_of_rings(follows, rank)
        leads[follows[cut]] = -1
        follows[cut] = -1
    head, distance = _heads(follows)
    places = np.empty(n, np.int64)
    places[np.lexsort((distance, head))] = np.arange(n)
    return places


def _first_of_each(values: Numbers, n: int) -> NDArray[np.bool_]:
    seen = np.empty(n, np.int64)
    numbers = np.arange(len(values))
    seen[values[::-1]] = numbers[::-1]  # the last one written is the first
    first: NDArray[np.bool_] = seen[values] == numbers
    return first


def _weakest_of_rings(follows: Numbers, rank: Numbers) -> Numbers:
    """Of each ring of contents, that of the lowest rank; there is one of a rank."""
    n = len(follows)
    jump = np.where(follows >= 0, follows, np.arange(n))
    lowest = rank.copy()
    for _ in range(max(1, n - 1).bit_length()):
        lowest = np.minimum(lowest, lowest[jump])
        jump = jump[jump]
    # From a content of a ring no jump leads to the first of a chain.
    weakest: Numbers = np.flatnonzero((follows[jump] >= 0) & (lowest == rank))
    return weakest


def _heads(follows: Numbers) -> tuple[Numbers, Numbers]:
    """The first content of the chain that each is in, and how far it is behind that."""
    n = len(follows)
    jump = np.where(follows >= 0, follows, np.arange(n))
    distance = (follows >= 0).astype(np.int64)
    for _ in range(max(1, n - 1).bit_length()):
        distance = distance + distance[jump]
        jump = jump[jump]
    return jump, distance
