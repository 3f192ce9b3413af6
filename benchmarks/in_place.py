"""Measurements of sharing in place, on the RAM of real guests: what memory is left, and how long it takes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import numpy as np

from benchmarks import ksm, native
from benchmarks.measure import Outcome
from benchmarks.realram import FRAME, Bytes, NoRealMemory
from benchmarks.settings import Settings
from pagedup import find_duplicates, share_in_place

_ROUNDS = 5  # each loads the dumps anew


def in_place(settings: Settings) -> Iterator[Outcome]:
    """Resident memory against the distinct contents; time against finding the duplicates, and of a second call."""
    resident, times, again, written = [], [], [], []
    rng = np.random.default_rng(0)
    note = ""
    for _ in range(min(settings.rounds, _ROUNDS)):
        memory = settings.real_anew()
        begin = time.perf_counter()
        found = find_duplicates(memory)
        finding = time.perf_counter() - begin
        distinct = found.n_distinct * FRAME
        before = memory.copy() if settings.quick else None
        begin = time.perf_counter()
        result = share_in_place([memory])
        sharing = time.perf_counter() - begin
        _check(memory, before)
        native.read(memory, settings.reader(memory))
        unused = result.reclaim()
        resident.append((_pss(memory) + unused) / distinct)
        times.append(sharing / finding)
        note = (
            f"{memory.nbytes / 1e9:.2f} GB in {sharing:.2f} s; {result.saved_bytes / 1e9:.2f} GB saved,"
            f" {result.huge_pages_split:,} huge pages split, {result.mappings:,} mappings,"
            f" {sum(left.bytes for left in result.left):,} bytes left"
        )
        again.append(_seconds(memory) / sharing)
        _check(memory, before)
        pages = memory.reshape(-1, FRAME)
        some = rng.choice(len(pages), len(pages) // 100, replace=False)
        pages[some, :64] = rng.integers(0, 256, (len(some), 64), np.uint8)
        if before is not None:
            before.reshape(-1, FRAME)[some, :64] = pages[some, :64]
        written.append(_seconds(memory) / sharing)
        _check(memory, before)
        del memory, result, found, before, pages
    yield Outcome("in_place", "real RAM shared in place: memory / its distinct pages", resident, 1.05, "at most", note)
    yield Outcome("in_place", "(for comparison: time / find_duplicates, two threads)", times)
    what = "real RAM shared in place a second time, nothing written: time / the first"
    yield Outcome("in_place", what, again, 1, "at most")
    yield Outcome("in_place", "real RAM, the same with 1 % of the pages written", written, 1, "at most")


def in_place_ksm(settings: Settings) -> Iterator[Outcome]:
    """Time against the kernel's KSM at full speed, until 99 % is merged, on the same memory."""
    if not ksm.KSM.exists():
        raise NoRealMemory("this kernel has no KSM")
    ratios = []
    best = [float("inf"), float("inf")]
    with ksm.stepped() as kernel:
        for _ in range(min(settings.rounds, _ROUNDS)):
            memory = settings.real_anew()
            begin = time.perf_counter()
            share_in_place([memory])
            ours = time.perf_counter() - begin
            del memory
            memory = settings.real_anew()
            theirs = kernel.merge_at_full_speed(memory)
            del memory
            ratios.append(theirs / ours)
            best = [min(best[0], ours), min(best[1], theirs)]
    yield Outcome(
        "in_place_ksm",
        "real RAM: KSM at full speed until 99 % is merged / shared in place",
        ratios,
        10,
        note=f"best: {best[0]:.2f} s in place, {best[1]:.2f} s by KSM",
    )


def _seconds(memory: Bytes) -> float:
    begin = time.perf_counter()
    share_in_place([memory])
    return time.perf_counter() - begin


def _check(memory: Bytes, before: Bytes | None) -> None:
    if before is not None and not np.array_equal(memory, before):
        raise AssertionError("sharing in place changed the memory")



def _pss(memory: Bytes) -> int:
    """Bytes of the mappings that the memory lies in, in proportion to their users."""
    start, end = memory.ctypes.data, memory.ctypes.data + memory.nbytes
    total, inside = 0, False
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            if match := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
                inside = int(match[1], 16) < end and int(match[2], 16) > start
            elif inside and line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
