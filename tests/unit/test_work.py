"""What a guest touches while it works: rates, Zipf's law, writes, drift, bursts, and that it repeats."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dedupcore import QUANTILES
from pagedup.host.fresh_names import FreshNames
from pagedup.host.page_use import Use
from pagedup.host.random_stream import RandomStream
from pagedup.host.scenario import Phase
from pagedup.host.work import Work
from pagedup.host.zipf import zipf_chances, zipf_quantiles
from pagedup.memory.layouts import NameKind, RegionKind
from pagedup.memory.layouts.names import GUEST_BITS, NUMBER_BITS, kind_bits
from tests.host_guests import OneGuest, of_sizes

SIZES = {"heap": 3000, "image_text": 800, "kernel_data": 500, "file_cache": 2000, "stack": 100, "free": 4000}


def started(**sizes: int) -> OneGuest:
    one = OneGuest(of_sizes(**(sizes or SIZES)))
    one.start()
    return one


def kinds_of(one: OneGuest, gpns: NDArray[np.uint32]) -> list[RegionKind]:
    layout = one.memory.layout
    return [layout.region_table[region].kind for region in layout.regions[gpns]]


# --- Zipf's law -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.8, 1.0, 1.7, 4.0])
@pytest.mark.parametrize("n", [1, 2, 7, 1000, 50_000, 65_536, 65_537, 300_000])
def test_quantiles_are_those_of_zipf(n: int, exponent: float) -> None:
    quantiles = zipf_quantiles(n, exponent).astype(np.int64)
    assert len(quantiles) == QUANTILES + 1 and quantiles[-1] == n and (np.diff(quantiles) >= 0).all()
    assert quantiles[0] == 0 and quantiles[-2] < n
    # Each part gives its chance to the ranks in it: all of it to one, if it begins and ends there.
    widths = np.maximum(np.diff(quantiles), 1)
    ends = np.zeros(n + 1)
    np.add.at(ends, quantiles[:-1], 1 / widths)
    np.add.at(ends, quantiles[:-1] + widths, -1 / widths)
    chances = np.cumsum(ends)[:-1] / QUANTILES
    assert chances.sum() == pytest.approx(1)
    expected = zipf_chances(n, exponent)
    few = expected[:1000] / expected[0]
    assert np.allclose(few, [rank**-exponent for rank in range(1, len(few) + 1)]) and expected.sum() == pytest.approx(1)
    assert np.abs(chances - expected).max() <= 2 / QUANTILES
    assert np.abs(np.cumsum(chances) - np.cumsum(expected)).max() <= 2 / QUANTILES


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.2])
def test_touches_fall_by_zipfs_law(exponent: float) -> None:
    """Chi-square with a fixed seed: the hottest 30 pages, and the others together by tens of ranks."""
    work = Work(started().memory, [Phase(working_set=0.1, zipf=exponent, drift=0.0, touches=40_000)], 5)
    gpns, _ = work.accesses(0, 5)
    ranked = work.working_set
    assert len(gpns) == 200_000 and len(ranked) == 640
    rank = np.zeros(work._memory.pages, np.int64)
    rank[ranked] = np.arange(len(ranked))
    begins = np.concatenate((np.arange(30), np.arange(30, 640, 10)))
    found = np.add.reduceat(np.bincount(rank[gpns], minlength=640), begins)
    expected = np.add.reduceat(zipf_chances(640, exponent), begins) * len(gpns)
    square, freedom = float(((found - expected) ** 2 / expected).sum()), len(begins) - 1
    assert square < freedom + 4 * (2 * freedom) ** 0.5


# --- rates, writes, repetition ----------------------------------------------------------------------------------------


@given(st.floats(0, 50), st.lists(st.floats(0.01, 30), min_size=1, max_size=20))
def test_as_many_touches_as_there_is_time_for(touches: float, ticks: list[float]) -> None:
    work = Work(FEW.memory, [Phase(touches=touches)], 1)
    total = sum(len(work.accesses(1.0, tick)[0]) for tick in ticks)
    assert abs(total - touches * sum(ticks)) <= 1 + 1e-6


FEW = started(heap=50, free=10)


@pytest.mark.parametrize(("share", "most"), [(0.0, 0), (0.3, 0.3), (0.6, 0.6), (1.0, 1.0)])
def test_the_share_of_writes(share: float, most: float) -> None:
    one = started()
    work = Work(one.memory, [Phase(working_set=0.2, writes=share, touches=10_000, drift=30.0)], 3)
    n = written = 0
    kinds = set()
    for tick in range(20):
        gpns, writes = work.accesses(tick * 10, 10)
        n, written = n + len(gpns), written + int(writes.sum())
        kinds |= set(kinds_of(one, gpns[writes]))
    assert not kinds & {RegionKind.IMAGE_TEXT, RegionKind.FILE_CACHE}
    if share < 1:
        assert written / n == pytest.approx(share, abs=0.005), "also after most of the working set has changed"
        assert work._to_written == pytest.approx(fresh_share(work), abs=1e-9)
    else:
        assert 0.7 < written / n < 0.99, "some can only be read"


def fresh_share(work: Work) -> float:
    chances = zipf_chances(len(work.working_set), work._phase.zipf)
    return float(chances[work._can_be_written(work.working_set)].sum())


def history(key: int, drift: float = 50.0) -> list[Any]:
    work = Work(started().memory, [Phase(drift=drift), Phase(start=0.01, working_set=0.3, burst="1 MiB")], key)
    return [[each.tolist() for each in work.accesses(tick * 10, 10)] for tick in range(8)]


def test_the_same_key_gives_the_same_accesses() -> None:
    assert history(1) == history(1) != history(2)


def test_a_guest_that_does_nothing() -> None:
    for phase in (Phase(touches=0.0), Phase(working_set=0.0)):
        gpns, writes = Work(started().memory, [phase], 1).accesses(0, 10)
        assert gpns.dtype == np.uint32 and writes.dtype == np.bool_ and len(gpns) == len(writes) == 0
    one = started(free=10)
    assert len(Work(one.memory, [Phase(burst="1 MiB")], 1).accesses(0, 10)[0]) == 0


# --- the working set --------------------------------------------------------------------------------------------------


def test_whom_it_is_made_of() -> None:
    one = started()
    work = Work(one.memory, [Phase(working_set=0.1)], 1)
    assert not len(work.working_set)
    work.accesses(0, 10)
    chosen = work.working_set
    assert len(chosen) == len(set(chosen.tolist())) == 640
    assert (one.memory.uses[chosen] <= Use.CACHED).all()
    hot = work.is_hot(np.arange(one.memory.pages, dtype=np.uint32))
    assert np.flatnonzero(hot).tolist() == sorted(chosen.tolist())
    shares = {kind: kinds_of(one, chosen).count(kind) / SIZES[kind.name.lower()] for kind in set(kinds_of(one, chosen))}
    assert shares[RegionKind.STACK] > 1.5 * shares[RegionKind.HEAP] > 6 * shares[RegionKind.FILE_CACHE] > 0


def test_all_that_is_in_use() -> None:
    one = started()
    work = Work(one.memory, [Phase(working_set=1.0, zipf=0.0, drift=100.0)], 1)
    for tick in range(5):
        work.accesses(tick, 10)
    assert sorted(work.working_set.tolist()) == [*range(6400)]


def test_what_is_paged_out_is_worked_with_too() -> None:
    one = started(heap=400, free=100)
    assert one.memory.inflate(400) == 400
    work = Work(one.memory, [Phase(working_set=1.0, zipf=0.0)], 1)
    work.accesses(0, 1)
    assert sorted(work.working_set.tolist()) == [*range(400)]


def test_it_grows_and_shrinks_with_the_phase() -> None:
    one = started()
    phases = [
        Phase(working_set=0.05, drift=0.0),
        Phase(start=1.0, working_set=0.1, drift=0.0),
        Phase(start=2.0, working_set=0.01, drift=0.0),
    ]
    work = Work(one.memory, phases, 1)
    sizes, sets = [], []
    for hour in (0.0, 0.999, 1.0, 1.5, 2.0, 7.0):
        work.accesses(hour * 3600, 1)
        sets.append(work.working_set.tolist())
        sizes.append(len(sets[-1]))
        assert work.is_hot(work.working_set).all() and work._hot.sum() == sizes[-1]
    assert sizes == [320, 320, 640, 640, 64, 64]
    assert sets[2][:320] == sets[0] and sets[4] == sets[0][:64], "the hottest stay"


@pytest.mark.parametrize("drift", [0.0, 0.5, 6.0])
def test_drift_exchanges_a_share_an_hour(drift: float) -> None:
    one = started(heap=60_000, file_cache=20_000, free=100)
    work = Work(one.memory, [Phase(working_set=0.1, drift=drift, touches=1.0)], 1)
    work.accesses(0, 0.0)
    before = work.working_set
    exchanged, earlier = 0, set(before.tolist())
    for tick in range(90):
        work.accesses(tick * 10.0, 10)
        now = set(work.working_set.tolist())
        assert len(now) == len(before) == 8000
        exchanged, earlier = exchanged + len(now - earlier), now
    after = work.working_set
    assert work._hot.sum() == 8000 and work.is_hot(after).all()
    due = drift * 8000 * 900 / 3600
    assert due - (1 + 8000 // 16) <= exchanged <= due
    moved = int((after[:4000] != before[:4000]).sum())
    assert (moved > 0.2 * min(due, 4000)) if drift else not moved, "ranks change, too"


# --- bursts -----------------------------------------------------------------------------------------------------------


def test_a_burst_touches_each_page_once() -> None:
    one = started()
    work = Work(one.memory, [Phase(touches=0.0), Phase(start=0.5, touches=0.0, burst="4 MiB", writes=0.5)], 1)
    assert len(work.accesses(1790, 10)[0]) == 0
    gpns, writes = work.accesses(1800, 10)
    assert len(gpns) == len(set(gpns.tolist())) == 1024
    assert (one.memory.uses[gpns] <= Use.CACHED).all()
    assert not set(kinds_of(one, gpns[writes])) & {RegionKind.IMAGE_TEXT, RegionKind.FILE_CACHE}
    assert writes.mean() == pytest.approx(0.5, abs=0.06)
    assert len(work.accesses(1810, 10)[0]) == 0, "once"
    assert len(Work(one.memory, [Phase(burst="1 GiB", touches=0.0)], 1).accesses(0, 10)[0]) == 6400


def test_a_burst_comes_before_the_rest() -> None:
    one = started()
    gpns, _ = Work(one.memory, [Phase(burst="40 KiB", touches=10.0)], 1).accesses(0, 10)
    alone, _ = Work(one.memory, [Phase(touches=10.0)], 1).accesses(0, 10)
    assert len(gpns) == 110 and gpns[10:].tolist() == alone.tolist()


def test_of_phases_that_were_slept_through_the_last_one_counts() -> None:
    phases = [Phase(burst="4 KiB", touches=0.0), Phase(start=1.0, burst="8 KiB", touches=0.0)]
    assert len(Work(started().memory, phases, 1).accesses(3600, 10)[0]) == 2


# --- what is drawn from, and names --------------------------------------------------------------------------------


def test_a_stream_goes_on() -> None:
    one, other = RandomStream(7), RandomStream(7)
    assert [*one.take(3), *one.take(0), *one.take(5)] == [*other.take(8)]
    assert RandomStream(8).take(2).tolist() != RandomStream(7).take(2).tolist()
    drawn = one.below(10, 10_000)
    assert drawn.min() == 0 and drawn.max() == 9 and np.bincount(drawn).min() > 850
    assert one.below(1, 5).tolist() == [0] * 5
    assert one.below(1 << 32, 1000).max() > 0.99 * 2**32


def test_fresh_names_are_new() -> None:
    one, other = FreshNames(0), FreshNames(1)
    names = np.concatenate([one.take(3), one.take(0), one.take(4), other.take(5)])
    assert names.dtype == np.uint64 and len(set(names.tolist())) == 12
    assert {int(name) >> 60 for name in names} == {NameKind.OWN}
    guests = {int(name) >> NUMBER_BITS & (1 << GUEST_BITS) - 1 for name in names}
    assert guests == {(1 << 20) - 1, (1 << 20) - 2}
    lowest = int(FreshNames((1 << 19) - 1).take(1)[0])
    assert lowest == kind_bits(NameKind.OWN) | 1 << 19 << NUMBER_BITS
    for guest in (-1, 1 << 19):
        with pytest.raises(ValueError, match="from 0 to 524,287"):
            FreshNames(guest)
    last = FreshNames(2)
    last._next = last._end - 2
    assert (last.take(2) < FreshNames(1).take(1)).all()
    with pytest.raises(OverflowError):
        last.take(1)
