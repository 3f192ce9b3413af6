"""Pointer chases visit what they should, in pages of the size that they are reported for."""

import itertools
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cache_latency, host_pages, native, pointer_chase
from benchmarks.dependent_loads import LINE, Cycle, Timer, clock, link
from benchmarks.page_sizes import LARGE, SMALL, NotGiven, Pages
from benchmarks.pointer_chase import Chase

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")

pytestmark = pytest.mark.skipif(mmap.PAGESIZE != SMALL, reason="the kernel's pages are not of 4 KiB")
needs_thp = pytest.mark.skipif(
    not THP.exists() or "[never]" in THP.read_text(), reason="transparent huge pages are off in this kernel"
)


def followed(memory, start):
    """Offsets of all pointers from here on until it comes round again."""
    base, words = memory.ctypes.data, memory.view(np.int64)
    at = start - base
    found: list[int] = []
    while not found or at != found[0]:
        assert 0 <= at < memory.nbytes and len(found) < memory.nbytes // 8
        found.append(at)
        at = int(words[at // 8]) - base
    return found


@pytest.mark.parametrize("n", [1, 2, 3, 8, 1000])
def test_a_cycle_visits_each_place_once(n):
    memory = np.zeros(n * 64, np.uint8)
    cycle = link(memory, np.arange(n) * 64, np.random.default_rng(n))
    assert cycle.length == n
    assert sorted(followed(memory, cycle.start)) == list(range(0, n * 64, 64))


def test_the_order_is_random():
    memory = np.zeros(1 << 16, np.uint8)
    places, seeds = np.arange(0, 1 << 16, 64), (0, 0, 1)
    orders = [followed(memory, link(memory, places, np.random.default_rng(seed)).start) for seed in seeds]
    assert orders[0] == orders[1] != orders[2]
    steps = np.diff(orders[0])
    assert len(np.unique(np.abs(steps))) > 300 and np.count_nonzero(steps > 0) in range(400, 624)


def test_what_is_chased_is_what_stands_in_memory():
    memory = np.zeros(5 * 64, np.uint8)
    cycle = link(memory, np.arange(5) * 64, np.random.default_rng(0))
    order = followed(memory, cycle.start)
    assert native.chase(cycle.start, 8) - memory.ctypes.data == order[8 % 5]
    assert native.chase(cycle.start, 40) == cycle.start
    assert native.chase(cycle.start, 0) == cycle.start


def test_working_sets_visit_one_line_of_each_page_and_share_none(monkeypatch):
    cycles: list[Cycle] = []
    monkeypatch.setattr(pointer_chase, "Timer", cycles.append)
    memory = Pages(LARGE, SMALL).memory
    sizes = [64 << 10, 1 << 20, LARGE, 2 * LARGE]
    assert list(pointer_chase._timers(memory, sizes)) == [16, 256, 512]  # the last one does not fit
    visited = [followed(memory, cycle.start) for cycle in cycles]
    for size, places in zip(sizes, visited, strict=False):
        assert sorted(place // SMALL for place in places) == list(range(size // SMALL))
        assert all(place % LINE == 0 for place in places)
    everywhere = [place for places in visited for place in places]
    assert len(set(everywhere)) == len(everywhere)
    assert len({place % SMALL for place in visited[2]}) == SMALL // LINE


def test_a_timer_goes_round_a_cycle_that_is_shorter_than_a_call():
    memory = np.zeros(3 * 64, np.uint8)
    ns, cycles = Timer(link(memory, np.arange(3) * 64, np.random.default_rng(0)))()
    assert ns > 0 and cycles > 0 and clock() > 0
    assert native.add(80) == 80


def test_small_pages_are_small():
    pages = Pages(2 * LARGE, SMALL)
    assert pages.memory.ctypes.data % LARGE == 0 and pages.memory.nbytes == 2 * LARGE and not pages.memory.any()
    pages.check()


@needs_thp
def test_large_pages_are_large():
    pages = Pages(2 * LARGE, LARGE)
    assert pages.memory.ctypes.data % LARGE == 0 and pages.memory.nbytes == 2 * LARGE and not pages.memory.any()
    pages.check()


def test_neighbours_are_told_apart():
    all_small = [Pages(LARGE, SMALL) for _ in range(4)]
    for pages in all_small:
        pages.check()


def test_large_pages_that_are_not_given_are_refused(monkeypatch):
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", mmap.MADV_NOHUGEPAGE)
    with pytest.raises(NotGiven, match="in pages of 2048 KiB, but 4096 KiB are there, 0 of them"):
        Pages(2 * LARGE, LARGE)


@needs_thp
def test_small_pages_that_are_not_given_are_refused(monkeypatch):
    monkeypatch.setattr(mmap, "MADV_NOHUGEPAGE", mmap.MADV_HUGEPAGE)
    with pytest.raises(NotGiven, match="in pages of 4 KiB, but 4096 KiB are there, 4096 of them"):
        Pages(2 * LARGE, SMALL)


@needs_thp
def test_a_large_page_that_is_taken_back_is_noticed():
    pages = Pages(2 * LARGE, LARGE)
    from_start_of_area = pages.memory.ctypes.data - np.frombuffer(pages.area, np.uint8).ctypes.data
    pages.area.madvise(mmap.MADV_DONTNEED, from_start_of_area + LARGE, LARGE)
    with pytest.raises(NotGiven, match="2048 KiB are there"):
        pages.check()


def test_without_large_pages_the_process_is_told_so():
    script = """
import ctypes
from benchmarks.page_sizes import LARGE, NotGiven, Pages
PR_SET_THP_DISABLE = 41
assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
try:
    Pages(LARGE, LARGE)
except NotGiven:
    print("refused")
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_what_is_not_given_is_not_reported(monkeypatch, capsys):
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", mmap.MADV_NOHUGEPAGE)
    chases = pointer_chase.measure([64 << 10, 128 << 10], rounds=1)
    assert [(chase.pages, chase.page_size) for chase in chases] == [(16, SMALL), (32, SMALL)]
    assert "asked for 2048 KiB" in capsys.readouterr().err
    assert "not given" in list(pointer_chase.table(chases))[-1]


@needs_thp
def test_each_working_set_is_measured_in_either_size():
    chases = pointer_chase.measure([64 << 10, 4 << 20], rounds=1)
    assert sorted((chase.page_size, chase.pages) for chase in chases) == [
        (SMALL, 16),
        (SMALL, 1024),
        (LARGE, 16),
        (LARGE, 1024),
    ]
    assert all(chase.ns > 0 and chase.cycles > 0 for chase in chases)


def test_table():
    chases = [Chase(16, SMALL, 1.11, 4.04), Chase(16, LARGE, 1.1, 4.0), Chase(1 << 20, SMALL, 500.0, 1800.0)]
    assert list(pointer_chase.table(chases))[2:] == [
        "| 64 KiB | 1 KiB | 1.1 | 4 | 1.1 | 4 | 0.0 | 0 |",
        "| 4 GiB | 64 MiB | 500.0 | 1800 | not given |  |  |  |",
    ]


def test_working_sets_leave_half_of_the_memory(monkeypatch):
    monkeypatch.setattr(pointer_chase, "available_bytes", lambda: 5 << 30)
    sizes = pointer_chase.working_sets()
    assert sizes[0] == 64 << 10 and sizes[-1] == 1 << 30
    assert all(b == 2 * a for a, b in itertools.pairwise(sizes))
    monkeypatch.setattr(pointer_chase, "available_bytes", lambda: 100 << 30)
    assert pointer_chase.working_sets()[-1] == 4 << 30


def test_caches_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(cache_latency, "_CACHES", tmp_path)
    for n, cache in enumerate(["1 Data 32K", "1 Instruction 64K", "2 Unified 1024K", "3 Unified 32768K"]):
        (tmp_path / f"index{n}").mkdir()
        for name, value in zip(("level", "type", "size"), cache.split(), strict=True):
            (tmp_path / f"index{n}" / name).write_text(value + "\n")
    assert cache_latency.cache_sizes() == {"L1d": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}
    for file in (tmp_path / "index3").iterdir():
        file.unlink()
    (tmp_path / "index3").rmdir()
    with pytest.raises(RuntimeError, match="not of L1d, L2 and L3"):
        cache_latency.cache_sizes()


def test_each_cache_has_a_latency(monkeypatch):
    monkeypatch.setattr(cache_latency, "_ROUNDS", 1)
    caches = {"L1d": 32 << 10, "L2": 256 << 10, "L3": 1 << 20}
    assert list(cache_latency.latencies(caches)) == ["L1d", "L2", "L3", "memory"]


def test_lines_beyond_the_caches_are_far_apart(monkeypatch):
    cycles = []

    def linked(memory, places, dice):
        cycles.append(sorted(places))
        return link(memory, places, dice)

    monkeypatch.setattr(cache_latency, "link", linked)
    monkeypatch.setattr(cache_latency, "_ROUNDS", 1)
    cache_latency._driven_out(Pages(cache_latency._SPREAD, SMALL).memory, Pages(LARGE, SMALL).memory)
    of_the_tlb, timed = cycles
    assert len({place // SMALL % 32 for place in of_the_tlb}) == len(of_the_tlb) == 32
    assert len(timed) == 32 * 8 and {place // SMALL for place in timed} == {place // SMALL for place in of_the_tlb}
    assert min(np.diff(sorted(of_the_tlb + timed))) >= 4 * LINE


def test_the_model_is_told_what_is_chased_in_its_order(monkeypatch):
    cycles: list[Cycle] = []
    monkeypatch.setattr(pointer_chase, "Timer", cycles.append)
    memory = Pages(LARGE, SMALL).memory
    sizes = [64 << 10, 1 << 20, 2 * LARGE]  # the last one does not fit
    pointer_chase._timers(memory, sizes)
    told = pointer_chase.cycles_of(sizes)
    assert list(told) == [16, 256, 1024]
    assert [followed(memory, each.start) for each in cycles] == [list(told[16]), list(told[256])]


def test_what_l3_costs_after_a_while(monkeypatch):
    monkeypatch.setattr(cache_latency, "_ROUNDS", 1)
    after = cache_latency.l3_after({"L1d": 32 << 10, "L2": 256 << 10, "L3": 1 << 20})
    assert after(0.0) > 0 and after(1e-4) > 0


@needs_thp
def test_pages_of_the_tlb_probe_are_visited():
    assert host_pages._cycles(8) > 0
