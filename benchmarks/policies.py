"""Measurements of the sharing policies: until all is shared, and what a pass costs when little has changed."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import ksm
from benchmarks.measure import Outcome
from benchmarks.pool import guest_names, seconds_of
from benchmarks.realram import FRAME, Bytes, NoRealMemory
from benchmarks.settings import Settings
from pagedup import find_duplicates
from pagedup.sharing import Dirty, FramePool

_NAME = 8
_GUESTS, _GUEST_PAGES = 50, 1 << 20  # of 4 GiB
_NAMES, _BREAKS = 20e6, 5e6  # a second
_WRITTEN = 0.01
_ROUNDS = 5


def policies(settings: Settings) -> Iterator[Outcome]:
    """The policy dirty, one thread: names of 50 guests, and the RAM of real guests."""
    yield from _names(settings)
    yield from _real(settings)


def policies_ksm(settings: Settings) -> Iterator[Outcome]:
    """The policy dirty, one thread, against the kernel's KSM at full speed until 99 % is merged, on the same pages."""
    if not ksm.KSM.exists():
        raise NoRealMemory("this kernel has no KSM")
    ratios, best = [], [float("inf"), float("inf")]
    with ksm.stepped() as kernel:
        for _ in range(min(settings.rounds, _ROUNDS)):
            memory = settings.real_anew()
            with _filled(memory) as pool:
                ours = seconds_of(partial(pool.scan, math.inf))
            theirs = kernel.merge_at_full_speed(memory)
            del memory
            ratios.append(theirs / ours)
            best = [min(best[0], ours), min(best[1], theirs)]
    note = f"best: {best[0]:.2f} s in a pool, {best[1]:.2f} s by KSM"
    what = "real RAM: KSM at full speed until 99 % is merged / first pass of dirty"
    yield Outcome("policies_ksm", what, ratios, 12, note=note)


def _names(settings: Settings) -> Iterator[Outcome]:
    n = settings.scaled(_GUEST_PAGES)
    first, second, breaks = [], [], []
    for turn in range(1 + max(3, min(settings.rounds, _ROUNDS))):
        settings.say("sharing the names of 50 guests")
        with FramePool(n * _GUESTS + n, _NAME, policy=Dirty()) as pool:
            everything = np.arange(n, dtype=np.uint32)
            for number in range(_GUESTS):
                pool.add_guest(n).write(everything, guest_names(n, number))
            seconds = seconds_of(partial(pool.scan, math.inf))
            first.append(n * _GUESTS / seconds / _NAMES)
            _write_some(pool, turn, lambda dice, k: dice.integers(1 << 50, 1 << 60, k, np.uint64))
            second.append(seconds / seconds_of(partial(pool.scan, math.inf)))
            guest, own = pool.guests[turn], guest_names(n, turn)
            shared = np.random.default_rng(turn).permutation(np.flatnonzero(own < 1 << 40).astype(np.uint32))
            before = pool.counts().cow_breaks
            seconds = seconds_of(partial(guest.write, shared, own[shared]))
            breaks.append((pool.counts().cow_breaks - before) / seconds / _BREAKS)
    note = f"{n * _GUESTS:,} names of {_GUESTS} guests: a half the same in all, a fifth zero"
    yield Outcome("policies", "names, first pass of dirty: pages a second / 20 million", first[1:], 1, note=note)
    yield Outcome("policies", "names, first pass / a pass after 1 % was written", second[1:], 30)
    yield Outcome("policies", "names: COW-breaking writes a second / 5 million", breaks[1:], 1)


def _real(settings: Settings) -> Iterator[Outcome]:
    first, second = [], []
    note = ""
    for turn in range(max(3, min(settings.rounds, _ROUNDS))):
        memory = settings.real_anew()
        finding = min(seconds_of(partial(find_duplicates, memory, threads=1)) for _ in range(2))
        distinct = find_duplicates(memory, threads=1).n_distinct
        with _filled(memory) as pool:
            del memory
            before = resource.getrusage(resource.RUSAGE_SELF)
            seconds = seconds_of(partial(pool.scan, math.inf))
            used = resource.getrusage(resource.RUSAGE_SELF)
            counts = pool.counts()
            note = (
                f"{counts.pages_present - counts.in_use:,} of {counts.pages_present:,} frames freed;"
                f" {used.ru_utime - before.ru_utime:.2f} s of CPU and {used.ru_stime - before.ru_stime:.2f} s in the"
                f" kernel, find_duplicates {finding:.2f} s"
            )
            if counts.in_use - counts.zero_frames != distinct:
                raise AssertionError(f"{counts} for {distinct} distinct pages")
            first.append(finding / seconds)
            _write_some(pool, turn, lambda dice, k: dice.integers(0, 256, (k, FRAME), np.uint8))
            second.append(seconds / seconds_of(partial(pool.scan, math.inf)))
    what = "real RAM, first pass of dirty, frames released: speed / find_duplicates, one thread each"
    yield Outcome("policies", what, first, 0.5, note=note)
    yield Outcome("policies", "real RAM, first pass / a pass after 1 % was written", second, 30)


def _write_some(pool: FramePool, seed: int, contents: Callable[[np.random.Generator, int], NDArray[Any]]) -> None:
    """Write to 1 % of each guest's pages, anywhere."""
    dice = np.random.default_rng(seed)
    for guest in pool.guests:
        gpns = dice.choice(guest.pages, int(guest.pages * _WRITTEN), replace=False).astype(np.uint32)
        guest.write(gpns, contents(dice, len(gpns)))


def _filled(memory: Bytes) -> FramePool:
    """A pool with one guest that holds all of it."""
    frames = memory.reshape(-1, FRAME)
    pool = FramePool(len(frames) + len(frames) // 50, FRAME, policy=Dirty())
    guest = pool.add_guest(len(frames))
    step = 1 << 16
    for at in range(0, len(frames), step):
        part = frames[at : at + step]
        guest.write(np.arange(at, at + len(part), dtype=np.uint32), part)
    return pool
