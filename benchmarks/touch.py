"""Measurements of guests' accesses: how many a second are applied to a pool, with faults and a sharing policy."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Outcome
from benchmarks.settings import Settings
from pagedup.sharing import Esx, FramePool, Ksm
from pagedup.sharing.policies import Policy

_ACCESSES = 30e6  # a second
_GUESTS, _GUEST_PAGES = 50, 1 << 20  # of 4 GiB
_WORKING_SET, _PRESENT = 100_000, 80_000  # pages of each guest, anywhere in it; those of them that it has at first
_BATCH = 20_000  # accesses of a guest, before it is the next one's turn
_WRITES = 0.3
_EXPONENT = 1.0  # of the Zipf law


def touch(settings: Settings) -> Iterator[Outcome]:
    """Accesses of 50 guests to content names, a thread: reads, writes, first touches and COW breaks."""
    for policy in (Ksm(), Esx(cpu_ghz=40, share_force_salting=0)):
        settings.say(f"accesses under {type(policy).__name__}")
        rates, faults = _rates(policy, settings)
        yield Outcome(
            "touch",
            f"accesses applied, under {type(policy).__name__}: a second / 30 million",
            rates,
            1,
            note=f"Zipf, 30 % writes; {100 * faults:.1f} % get a frame: first touches and COW breaks",
        )


def _rates(policy: Policy, settings: Settings) -> tuple[list[float], float]:
    n, size = settings.scaled(_GUEST_PAGES), settings.scaled(_WORKING_SET)
    dice = np.random.default_rng(1)
    working_sets = [dice.permutation(n)[:size].astype(np.uint32) for _ in range(_GUESTS)]
    data = np.arange(1, _BATCH + 1, dtype=np.uint64) << np.uint64(20)
    rates, faults, rounds = [], 0, 1 + max(3, min(settings.rounds, 9))
    with FramePool(_GUESTS * size + n, 8, policy=policy) as pool:
        for number, pages in enumerate(working_sets):
            present = pages[: settings.scaled(_PRESENT)]
            pool.add_guest(n).write(present, _names(present, number, dice))
        for _ in range(rounds):
            for _ in range(3):
                pool.scan(math.inf)
            pool.scan_counts()  # what the scanner has put off until a page is written is not the writes' time
            drawn = [_accesses(pages, dice) for pages in working_sets]
            seconds = 0.0
            for which in dice.permutation(_GUESTS).tolist():
                gpns, writes = drawn[which]
                names = data[: np.count_nonzero(writes)]
                begin = time.perf_counter()
                came_to = pool.guests[which].touch(gpns, writes, names)
                seconds += time.perf_counter() - begin
                faults += came_to.first_touches + came_to.cow_breaks
                if came_to.done != _BATCH:
                    raise AssertionError("an access was not done")
            rates.append(_GUESTS * _BATCH / seconds / _ACCESSES)
    return rates[1:], faults / (rounds * _GUESTS * _BATCH)


def _names(gpns: NDArray[np.uint32], number: int, dice: np.random.Generator) -> NDArray[np.uint64]:
    """A half of them the same as in other guests."""
    names = gpns.astype(np.uint64) % np.uint64(5000) + np.uint64(1)
    own = dice.random(len(gpns)) < 0.5
    names[own] = gpns[own] + np.uint64((number + 1) << 32)
    return names


def _accesses(
    working_set: NDArray[np.uint32], dice: np.random.Generator
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """A batch of one guest: pages by the Zipf law, hottest first, and which accesses are writes."""
    chances = np.arange(1, len(working_set) + 1, dtype=np.float64) ** -_EXPONENT
    ends = np.cumsum(chances) / chances.sum()
    ranks = np.minimum(np.searchsorted(ends, dice.random(_BATCH)), len(working_set) - 1)
    return working_set[ranks], dice.random(_BATCH) < _WRITES
