"""Sharing policies: their settings, simulated time, what each shares when, and what it would have cost."""

import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import dedupcore
from pagedup.sharing import Dirty, Esx, FramePool, Ksm, PoolGuest
from pagedup.sharing.policies import Policy

ALL = [Dirty(), Ksm(), Esx(cpu_ghz=40)]


def filled(pool: FramePool, names: Any, domain: Any = None) -> PoolGuest:
    guest = pool.add_guest(len(names), domain=domain)
    guest.write(np.arange(len(names)), np.array(names, np.uint64))
    return guest


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ksm(pages_to_scan=0), "pages_to_scan is 0; it must be 1"),
        (lambda: Dirty(pages_to_scan=2**32), "pages_to_scan is 4294967296"),
        (lambda: Ksm(sleep_millisecs=0), "sleep_millisecs is 0; it must be more than 0"),
        (lambda: Dirty(sleep_millisecs=math.nan), "sleep_millisecs is nan"),
        (lambda: Ksm(max_page_sharing=1), "max_page_sharing is 1; it must be 2"),
        (lambda: Esx(cpu_ghz=0), "cpu_ghz is 0; it must be more than 0"),
        (lambda: Esx(cpu_ghz=1, share_rate_max=math.inf), "share_rate_max is inf"),
        (lambda: Esx(cpu_ghz=1, share_force_salting=3), "share_force_salting is 3; it can be 0, 1 or 2"),
        (lambda: Esx(cpu_ghz=1, seed=-1), "seed is -1; it must be 0 to"),
    ],
)
def test_settings_out_of_range(make: Callable[[], Policy], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_without_a_policy_nothing_is_shared() -> None:
    """As on Hyper-V."""
    with FramePool(10, 8) as pool:
        filled(pool, [1, 1, 0])
        with pytest.raises(ValueError, match=r"no policy: give it one when it is made, such as policy=Ksm\(\)"):
            pool.scan(1)
        with pytest.raises(ValueError, match="no policy"):
            pool.scan_counts()
        assert pool.counts().in_use == 3


@pytest.mark.parametrize("policy", ALL, ids=repr)
def test_a_policy_shares_alone(policy: Policy) -> None:
    with FramePool(1024, 8, policy=policy) as pool:
        guest = filled(pool, [1, 1])
        before = pool.counts()
        with pytest.raises(ValueError, match="shares by its policy"):
            pool.share()
        with pytest.raises(ValueError, match="shares by its policy"):
            pool.share_large()
        with pytest.raises(ValueError, match="shares by its policy"):
            guest.merge([1], guest.page_table[:1])
        assert pool.counts() == before
        pool.check()


@pytest.mark.parametrize("policy", ALL, ids=repr)
@pytest.mark.parametrize("seconds", [-1, math.nan, -math.inf])
def test_no_time(policy: Policy, seconds: float) -> None:
    with FramePool(10, 8, policy=policy) as pool, pytest.raises(ValueError, match=r"seconds is .*; it must be 0"):
        pool.scan(seconds)


@pytest.mark.parametrize("policy", ALL, ids=repr)
def test_closed(policy: Policy) -> None:
    pool = FramePool(10, 8, policy=policy)
    filled(pool, [1, 1])
    pool.close()
    for call in (lambda: pool.scan(math.inf), pool.scan_counts):
        with pytest.raises(ValueError, match="the pool is closed"):
            call()


@pytest.mark.parametrize("policy", ALL, ids=repr)
def test_no_guests(policy: Policy) -> None:
    with FramePool(10, 8, policy=policy) as pool:
        pool.scan(math.inf)
        pool.scan(100)
        assert pool.counts().in_use == 0
        pool.check()


# --- simulated time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Ksm(smart_scan=False), Dirty()], ids=repr)
def test_pages_a_second(policy: Policy) -> None:
    """100 pages each 20 ms."""
    with FramePool(20_000, 8, policy=policy) as pool:
        filled(pool, np.arange(1, 20_001))
        pool.scan(0)
        assert pool.scan_counts().pages_scanned == 0
        pool.scan(0.019)
        assert pool.scan_counts().pages_scanned == 0
        pool.scan(0.001)
        assert pool.scan_counts().pages_scanned == 100
        for _ in range(100):
            pool.scan(0.01)
        assert pool.scan_counts().pages_scanned == 5100
        pool.scan(1.5)
        assert pool.scan_counts().pages_scanned == 12_600


@pytest.mark.parametrize("policy", [Ksm(smart_scan=False), Dirty()], ids=repr)
def test_another_pace(policy: Any) -> None:
    """As ksmtuned changes it: from the last time that it woke up on, which was 10 ms ago."""
    with FramePool(20_000, 8, policy=policy) as pool:
        filled(pool, np.arange(1, 20_001))
        pool.scan(0.03)
        pool.retune(replace(policy, pages_to_scan=7, sleep_millisecs=15))
        pool.scan(0.004)
        assert pool.scan_counts().pages_scanned == 100
        pool.scan(0.001)
        assert pool.scan_counts().pages_scanned == 107
        pool.scan(0.15)
        assert pool.scan_counts().pages_scanned == 177
        pool.retune(policy)
        pool.scan(0.02)
        assert pool.scan_counts().pages_scanned == 277


def test_another_pace_of_esx() -> None:
    with FramePool(7200, 8, policy=Esx(cpu_ghz=40)) as pool:
        filled(pool, np.arange(1, 7201))
        pool.scan(10)
        assert pool.scan_counts().pages_scanned == 20
        pool.retune(Esx(cpu_ghz=40, share_scan_time=1))
        pool.scan(10)
        assert pool.scan_counts().pages_scanned == 20 + 1200


def test_another_pace_is_all_that_can_change() -> None:
    with FramePool(10, 8, policy=Ksm()) as pool:
        with pytest.raises(ValueError, match=r"smart_scan is False; it must be True, as the pool's: others can"):
            pool.retune(Ksm(smart_scan=False))
        with pytest.raises(ValueError, match=r"the policy is Dirty\(.*; it must be a Ksm, as the pool's"):
            pool.retune(Dirty())
    with FramePool(10, 8) as pool, pytest.raises(ValueError, match="no policy"):
        pool.retune(Ksm())


def test_ksm_sleeps_at_the_end_of_a_pass() -> None:
    """What a wake-up has left of its pages at the end is lost; one that used all of them does not see the end."""
    policy = Ksm(pages_to_scan=4, sleep_millisecs=1000)
    with FramePool(10, 8, policy=policy) as pool:
        filled(pool, range(1, 9))
        seen = []
        for _ in range(6):
            pool.scan(1)
            seen.append((pool.scan_counts().pages_scanned, pool.scan_counts().full_scans))
        assert seen == [(4, 0), (8, 0), (8, 1), (12, 1), (16, 1), (16, 2)]


@pytest.mark.parametrize("policy", [Ksm(), Esx(cpu_ghz=40), Dirty()], ids=repr)
def test_the_same_again(policy: Policy) -> None:
    """The same calls, the same frames, whatever the process's secret key."""
    tables = []
    for key in range(2):
        dedupcore.set_key(key)
        dice = np.random.default_rng(1)
        with FramePool(4000, 8, policy=policy) as pool:
            guests = [filled(pool, dice.integers(0, 500, 1000)) for _ in range(3)]
            for _ in range(20):
                pool.scan(50)
                guests[1].write(dice.permutation(1000)[:100], dice.integers(0, 500, 100).astype(np.uint64))
            tables.append([guest.page_table.tolist() for guest in guests])
    dedupcore.set_key(None)
    assert tables[0] == tables[1]


@pytest.mark.parametrize("policy", [Ksm(sleep_millisecs=1e-4), Esx(cpu_ghz=1e9, share_rate_max=1e9)], ids=repr)
def test_a_signal_ends_a_long_scan(policy: Policy) -> None:
    class Rings(Exception):
        pass

    def ring(*_: Any) -> None:
        raise Rings

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with FramePool(1 << 20, 8, policy=policy) as pool:
            filled(pool, np.arange(1 << 20))
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            begin = time.monotonic()
            with pytest.raises(Rings):
                pool.scan(1e9)
            assert time.monotonic() - begin < 30
            pool.check()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_others_come_in_between() -> None:
    """A scan that is long lets other threads write and read meanwhile."""
    with FramePool(1 << 17, 8, policy=Ksm(pages_to_scan=1000, sleep_millisecs=1)) as pool:
        guest = filled(pool, np.arange(1 << 17))
        scanner = threading.Thread(target=lambda: pool.scan(100))
        scanner.start()
        written = 0
        out = np.zeros(1, np.uint64)
        while scanner.is_alive():
            written += 1
            guest.write([5], np.array([written], np.uint64))
            guest.read([5], out)
            assert out[0] == written
        scanner.join()
        assert written > 3
        pool.check()


# --- what is shared when ---------------------------------------------------------------------------------------------


def test_ksm_shares_nothing_before_its_second_pass() -> None:
    with FramePool(10, 8, policy=Ksm()) as pool:
        guest = filled(pool, [7, 7, 8])
        pool.scan(math.inf)
        counts = pool.scan_counts()
        assert (counts.pages_volatile, counts.pages_shared, counts.full_scans) == (3, 0, 1)
        pool.scan(math.inf)
        counts = pool.scan_counts()
        assert (counts.pages_shared, counts.pages_sharing, counts.pages_unshared, counts.pages_volatile) == (1, 1, 1, 0)
        assert counts.general_profit == 4096 - 3 * 64
        guest.write([0], np.array([9], np.uint64))  # a stable frame stays stable with one page left
        guest.write([2], np.array([7], np.uint64))
        pool.scan(math.inf)
        assert pool.scan_counts().pages_shared == 1
        pool.scan(math.inf)  # a new copy of it is volatile for one pass, too
        assert pool.scan_counts()[:4] == (1, 1, 1, 0)
        assert pool.counts().cow_breaks == 1
        guest.write([1, 2], np.array([7, 7], np.uint64))  # and is copied on write by the last one, too
        assert pool.counts().cow_breaks == 3
        pool.check()


def test_ksm_checksums_what_is_not_shared() -> None:
    """What KSM would have spent: it reads every page that it visits and that is none of its own, in each pass."""
    with FramePool(100, 8, policy=Ksm(smart_scan=False)) as pool:
        filled(pool, [1] * 10 + list(range(2, 52)))
        for _ in range(5):
            pool.scan(math.inf)
        counts = pool.scan_counts()
        assert counts.pages_scanned == 5 * 60
        assert counts.pages_checksummed == 2 * 10 + 5 * 50
        assert counts.stable_searches == 10 + 4 * 50
        assert counts.unstable_searches == 2 + 4 * 50  # the second of the ten made the frame; the others found it
        pool.check()


def test_max_page_sharing() -> None:
    with FramePool(100, 8, policy=Ksm(max_page_sharing=3, smart_scan=False)) as pool:
        guest = filled(pool, [1] * 8)
        pool.scan(math.inf)
        pool.scan(math.inf)
        assert pool.scan_counts()[:4] == (3, 5, 0, 0)
        assert np.unique(guest.page_table, return_counts=True)[1].tolist() == [3, 3, 2]
        guest.write([0], np.array([2], np.uint64))  # and there is room again in one that was full
        guest.write([7], np.array([3], np.uint64))
        for _ in range(3):
            pool.scan(math.inf)
        guest.write([7], np.array([1], np.uint64))
        for _ in range(3):
            pool.scan(math.inf)
        assert pool.scan_counts()[:4] == (3, 4, 1, 0)
        pool.check()


@pytest.mark.parametrize("frame_size", [8, 4096])
def test_zero_pages(frame_size: int) -> None:
    data = np.zeros((6, frame_size), np.uint8)
    data[5, -1] = 1
    for policy, zero in [(Ksm(), 0), (Ksm(use_zero_pages=True), 5), (Dirty(), 5)]:
        with FramePool(10, frame_size, policy=policy) as pool:
            pool.add_guest(6).write(np.arange(6), data)
            for _ in range(3):
                pool.scan(math.inf)
            assert pool.counts().in_use == 2
            assert pool.counts().zero_pages == zero
            pool.check()


def test_smart_scan_skips_by_age() -> None:
    """Visits 0 to 3, 5, 8, 13 and then each ninth: measured at the kernel, see tests/oracle."""
    with FramePool(10, 8, policy=Ksm()) as pool:
        filled(pool, [1, 2])
        scanned = []
        for _ in range(50):
            before = pool.scan_counts().pages_scanned
            pool.scan(math.inf)
            if pool.scan_counts().pages_scanned > before:
                scanned.append(pool.scan_counts().full_scans - 1)
        assert scanned == [0, 1, 2, 3, 5, 8, 13, 22, 31, 40, 49]
        assert pool.scan_counts().pages_skipped == 2 * (50 - 11)


def test_dirty_looks_at_what_was_written_and_nothing_else() -> None:
    with FramePool(5000, 8, policy=Dirty()) as pool:
        guest = filled(pool, np.arange(1, 3001))
        pool.scan(math.inf)
        assert pool.scan_counts().pages_scanned == 3000
        pool.scan(math.inf)
        assert pool.scan_counts().pages_scanned == 3000
        guest.write([10, 2000], np.array([55, 55], np.uint64))
        assert pool.scan_counts().pages_dirty == 2
        pool.scan(math.inf)
        counts = pool.scan_counts()
        assert (counts.pages_scanned, counts.pages_dirty) == (3002, 0)
        assert (counts.pages_shared, counts.pages_sharing) == (1, 2)  # with page 54


@pytest.mark.parametrize(
    ("salting", "frames"),
    [(0, 1), (1, 3), (2, 4)],
)
def test_salting(salting: int, frames: int) -> None:
    """Guests without a salt are one domain, or with 2 each its own."""
    with FramePool(10, 8, policy=Esx(cpu_ghz=40, share_force_salting=salting)) as pool:
        for domain in (None, None, "a", "a", "b"):
            filled(pool, [1, 1], domain)
        pool.scan(math.inf)
        assert pool.counts().in_use == frames
        pool.check()


@pytest.mark.parametrize("policy", [Dirty(), Ksm(), *(Esx(cpu_ghz=40, seed=seed) for seed in range(8))], ids=repr)
def test_a_page_written_as_it_was_that_another_finds_first(policy: Policy) -> None:
    """It is not moved a second time, to where it is."""
    with FramePool(10, 8, policy=policy) as pool:
        guest = pool.add_guest(2)
        for gpns in ([1], [0, 1]):
            guest.write(gpns, np.full(len(gpns), 7, np.uint64))
            for _ in range(3):
                pool.scan(math.inf)
        counts = pool.counts()
        assert (counts.in_use, counts.pages_merged) == (1, 1)
        pool.check()


# --- large pages -----------------------------------------------------------------------------------------------------


def large(pool: FramePool, names: Any) -> PoolGuest:
    guest = pool.add_guest(512, large_pages=True)
    guest.write(np.arange(512), np.array(names, np.uint64))
    assert guest.large.all()
    return guest


def test_ksm_breaks_large_pages_at_a_match() -> None:
    with FramePool(2048, 8, policy=Ksm()) as pool:
        guests = [large(pool, np.arange(512) + start) for start in (1, 10_000, 511)]
        for _ in range(2):
            pool.scan(math.inf)
        assert [bool(guest.large[0]) for guest in guests] == [False, True, False]
        assert pool.counts().large_breaks == 2
        assert pool.scan_counts().pages_sharing == 2
        pool.check()


def test_esx_hints_in_large_pages_and_shares_when_they_are_broken() -> None:
    with FramePool(2048, 8, policy=Esx(cpu_ghz=40, share_force_salting=0)) as pool:
        guests = [large(pool, np.arange(512) + start) for start in (1, 1)]
        for _ in range(2):
            pool.scan(math.inf)
        assert all(guest.large.all() for guest in guests)
        counts = pool.scan_counts()
        assert (counts.cow_hints, counts.shared) == (1024, 0)
        guests[0].break_large([0])
        assert pool.scan_counts().shared == 0  # the others are in a large page still
        guests[1].break_large([0])
        assert pool.scan_counts().shared == 1024  # at once, without a scan
        assert pool.counts().in_use == 512
        pool.check()
