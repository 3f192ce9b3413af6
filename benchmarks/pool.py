"""Measurements of the frame pool: writes that break sharing, and exact sharing itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Outcome
from benchmarks.settings import Settings
from pagedup import find_duplicates
from pagedup.sharing import FramePool

_BREAKS, _SHARED = 5e6, 20e6  # a second
_GUESTS = 8
_NAME, _PAGE = 8, 4096


def pool(settings: Settings) -> Iterator[Outcome]:
    """A frame pool, one thread: COW breaks of content names, sharing of names, sharing of pages of bytes."""
    breaks, sharings, against_snapshot, page_sharings = [], [], [], []
    n = settings.scaled(2 << 20)
    names = [guest_names(n, guest) for guest in range(_GUESTS)]
    whole = np.concatenate(names)
    for turn in range(1 + max(3, min(settings.rounds, 9))):
        own = names[turn % _GUESTS]
        shared = np.flatnonzero(own < 1 << 40).astype(np.uint32)  # nearly all: few pages are so in one guest alone
        np.random.default_rng(turn).shuffle(shared)
        with FramePool(2 * n * _GUESTS, _NAME) as made:
            for held in names:
                made.add_guest(n).write(np.arange(n, dtype=np.uint32), held)
            snapshot = seconds_of(partial(find_duplicates, whole, frame_size=_NAME, threads=1))
            seconds = seconds_of(made.share)
            sharings.append(n * _GUESTS / seconds / _SHARED)
            against_snapshot.append(snapshot / seconds)
            seconds = seconds_of(partial(made.guests[turn % _GUESTS].write, shared, own[shared]))
            breaks.append(made.counts().cow_breaks / seconds / _BREAKS)
            if made.counts().cow_breaks < 0.95 * len(shared):
                raise AssertionError("what was written was not shared")
        page_sharings.append(_pages(settings.scaled(1 << 18), turn))
    note = f"{n * _GUESTS:,} names of {_GUESTS} guests"
    yield Outcome("pool", "COW-breaking writes of names in any order: a second / 5 million", breaks[1:], 1, note=note)
    yield Outcome("pool", "sharing names: pages a second / 20 million", sharings[1:], note=note)
    yield Outcome("pool", "sharing names: speed / find_duplicates of them", against_snapshot[1:], note=note)
    yield Outcome(
        "pool",
        "sharing pages of 4 KiB, frames released: speed / find_duplicates of them",
        page_sharings[1:],
        note="made up, 20 % zero and 30 % duplicates in runs of 16; one thread each",
    )


def guest_names(n: int, guest: int) -> NDArray[np.uint64]:
    """A guest: half of it the same everywhere, a fifth zero, the rest its own."""
    dice = np.random.default_rng(guest)
    made = np.arange(1, n + 1, dtype=np.uint64)
    kind = np.repeat(dice.random(n // 16), 16)  # in runs, as memory is
    made[kind < 0.3] += np.uint64((guest + 1) << 40)
    made[kind > 0.8] = 0
    return made


def _pages(n: int, seed: int) -> float:
    """How fast sharing pages of bytes is against a snapshot of them."""
    dice = np.random.default_rng(seed)
    data = np.full((n, _PAGE), 0x5A, np.uint8)
    data[:, :8] = np.arange(1, n + 1, dtype=np.uint64).view(np.uint8).reshape(n, 8)
    kind = np.repeat(dice.random(n // 16), 16)
    data[kind < 0.2] = 0
    copies = np.flatnonzero(kind > 0.7)
    data[copies, :8] = data[copies % 4096, :8]
    with FramePool(n, _PAGE) as made:
        made.add_guest(n).write(np.arange(n), data)
        snapshot = seconds_of(partial(find_duplicates, data, frame_size=_PAGE, threads=1))
        return snapshot / seconds_of(made.share)


def seconds_of(call: Callable[[], object]) -> float:
    """How long the call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
