"""Large pages of the frame pool: made at the first touch, written, shared whole, broken, rebuilt, looked into."""

import os
import re
from typing import Any

import numpy as np
import pytest

import dedupcore
from pagedup.sharing import Dirty, FramePool, Ksm, LargeHints, PoolGuest
from pagedup.sharing.frame_pool import ABSENT, LARGE_PAGE
from tests.processes import run_python, under_sanitizer

N = LARGE_PAGE


def whole(start: int = 1, pages: int = N) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Content names for so many pages, all different, none zero."""
    return np.arange(start, start + pages, dtype=np.uint64)


def held(guest: PoolGuest) -> Any:
    out = np.zeros(guest.pages, np.uint64)
    guest.read(np.arange(guest.pages), out)
    return out.tolist()


def two_equal(pool: FramePool) -> tuple[PoolGuest, PoolGuest]:
    """Two guests of one large page each, equal ones, that lie in block 0."""
    one, two = pool.add_guest(N, large_pages=True), pool.add_guest(N, large_pages=True)
    for guest in (one, two):
        guest.write(range(N), whole())
    pool.share_large()
    assert one.page_table.tolist() == two.page_table.tolist() == list(range(N))
    pool.check()
    return one, two


# --- the first touch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 64, 4096, 1 << 14])
def test_the_first_touch_makes_a_range_present(size: int) -> None:
    with FramePool(3 * N, size) as pool:
        guest = pool.add_guest(2 * N + 5, large_pages=True)
        assert guest.large.tolist() == [False, False]
        data = np.full((1, size), 7, np.uint8)
        guest.write([N + 3], data)
        assert guest.large.tolist() == [False, True]
        assert guest.page_table.tolist() == [ABSENT] * N + list(range(N)) + [ABSENT] * 5
        assert pool.memory[3].tobytes() == data.tobytes()
        assert not pool.memory[:3].any() and not pool.memory[4:N].any()
        guest.write([2 * N + 4, 2 * N], np.repeat(data, 2, axis=0))  # what is left behind the ranges is small
        assert guest.page_table[2 * N :].tolist() == [N + 1, ABSENT, ABSENT, ABSENT, N]
        counts = pool.counts()
        assert (counts.in_use, counts.pages_present, counts.first_touches) == (N + 2, N + 2, N + 2)
        assert (counts.large_pages, counts.large_breaks, counts.large_rebuilds) == (1, 0, 0)
        pool.check()


def test_other_guests_have_small_pages() -> None:
    with FramePool(2 * N, 8) as pool:
        guest = pool.add_guest(N)
        guest.write([5, 4], whole(1, 2))
        assert guest.page_table[[5, 4]].tolist() == [0, 1]
        assert guest.large.tolist() == [False]
        assert pool.counts()[-3:] == (0, 0, 0)


def test_the_lowest_block_is_taken() -> None:
    with FramePool(4 * N + 7, 8) as pool:
        small, large = pool.add_guest(3 * N), pool.add_guest(3 * N, large_pages=True)
        small.write(range(2 * N + 1), whole(1, 2 * N + 1))
        large.write([0], whole(1, 1))
        assert large.page_table[0] == 3 * N
        small.release(range(N, 2 * N))  # block 1
        small.release(range(N - 1))  # all of block 0 but its last frame
        pool.check()
        large.write([N], whole(1, 1))
        assert large.page_table[N] == N
        large.write([2 * N, 2 * N + 9], whole(1, 2))  # no block is free any more: two small pages, in the lowest frames
        assert large.large.tolist() == [True, True, False]
        assert large.page_table[[2 * N, 2 * N + 9]].tolist() == [0, 1]
        pool.check()


def test_many_blocks_come_and_go() -> None:
    """More blocks than a word of bits has, and than one of the words above it."""
    n = 64 * 65
    with FramePool(n * N, 8) as pool:
        guest = pool.add_guest(n * N, large_pages=True)
        firsts = np.arange(n, dtype=np.uint32) * N
        guest.write(firsts, whole(1, n))
        assert guest.large.all()
        assert guest.page_table[firsts].tolist() == firsts.tolist()
        pool.check()
        away = np.random.default_rng(1).permutation(n)[:300]
        guest.release((firsts[away][:, None] + np.arange(N, dtype=np.uint32)).reshape(-1))
        pool.check()
        guest.write(firsts[away], whole(1, 300))
        assert guest.page_table[firsts[away]].tolist() == (np.sort(away) * N).tolist()
        assert guest.large.all()
        pool.check()


@pytest.mark.parametrize("order", ["up", "down", "mixed"])
def test_large_pages_take_no_room_from_the_batch(order: str) -> None:
    """Exactly as many frames as pages: all are large. One page more elsewhere, and one range must be small."""
    with FramePool(3 * N, 8) as pool:
        guest, other = pool.add_guest(3 * N, large_pages=True), pool.add_guest(2)
        gpns = np.random.default_rng(2).permutation(3 * N) if order == "mixed" else np.arange(3 * N)
        gpns = gpns[::-1] if order == "down" else gpns
        guest.write(gpns, whole(1, 3 * N))
        assert guest.large.all()
        with pytest.raises(MemoryError):
            other.write([0], whole(1, 1))
        guest.release(range(3 * N))
        other.write([0], whole(1, 1))
        guest.write(gpns[gpns != 7], whole(1, 3 * N - 1))
        assert guest.large.tolist() == [False, True, True] if order == "up" else guest.large.sum() == 2
        pool.check()


def test_a_batch_that_fits_in_small_pages_is_written() -> None:
    with FramePool(2 * N, 8) as pool:
        guest = pool.add_guest(600 * N, large_pages=True)
        guest.write(np.arange(600) * N, whole(1, 600))  # a large page would take 511 more
        assert not guest.large.any()
        guest.release(np.arange(600) * N)
        guest.write(np.arange(513) * N, whole(1, 513))  # which are left now, once
        assert guest.large.nonzero()[0].tolist() == [0]
        assert pool.counts().in_use == 2 * N
        pool.check()


def test_a_write_that_is_refused_makes_no_large_page() -> None:
    with FramePool(N + 10, 8) as pool:
        guest = pool.add_guest(2 * N, large_pages=True)
        before = pool.counts()
        with pytest.raises(MemoryError, match="the pool is full"):
            guest.write(range(N + 11), whole(1, N + 11))
        with pytest.raises(ValueError, match="and so is"):
            guest.write([1, 0, 1], whole(1, 3))
        assert pool.counts() == before
        assert not guest.large.any()
        pool.check()


def test_a_range_that_was_touched_stays_small() -> None:
    with FramePool(4 * N, 8) as pool:
        guest = pool.add_guest(N, large_pages=True)
        guest.write([0], whole(1, 1))
        guest.release(range(1, N))
        guest.write([100], whole(2, 1))
        assert not guest.large.any()
        assert pool.counts().pages_present == 2
        guest.release([0, 100])
        guest.write([100], whole(2, 1))
        assert guest.large.all()  # nothing of it was left
        pool.check()


@pytest.mark.parametrize("capacity", [1, N - 1, N, N + 1, 64 * N, 64 * N + 1])
def test_the_last_block(capacity: int) -> None:
    """What is no whole block is never given as one."""
    with FramePool(capacity, 8) as pool:
        guest = pool.add_guest(70 * N, large_pages=True)
        for number in range(capacity // N):
            guest.write([number * N], whole(1, 1))
        assert guest.large.sum() == capacity // N
        pool.check()
        if capacity % N:
            guest.write([69 * N], whole(1, 1))
            assert guest.page_table[69 * N] == capacity // N * N
        assert guest.large.sum() == capacity // N
        pool.check()


# --- reading and writing -----------------------------------------------------------------------------------------


def test_it_is_written_in_place() -> None:
    with FramePool(2 * N, 8) as pool:
        guest = pool.add_guest(N, large_pages=True)
        guest.write(range(N), whole())
        table = guest.page_table.tolist()
        guest.write([5, 3], whole(7000, 2))
        assert guest.page_table.tolist() == table
        assert guest.large.all()
        assert held(guest)[3:6] == [7001, 5, 7000]
        assert pool.counts().cow_breaks == 0


def test_releasing_a_page_breaks_it() -> None:
    with FramePool(2 * N, 8) as pool:
        guest = pool.add_guest(N, large_pages=True)
        guest.write([0], whole(1, 1))
        guest.release([9])
        assert not guest.large.any()
        assert guest.page_table.tolist() == [*range(9), ABSENT, *range(10, N)]
        assert (pool.counts().large_breaks, pool.counts().large_pages) == (1, 0)
        pool.check()


# --- sharing -----------------------------------------------------------------------------------------------------


def test_its_pages_are_not_shared_until_it_is_broken() -> None:
    with FramePool(4 * N, 8) as pool:
        large, small = pool.add_guest(N, large_pages=True), pool.add_guest(N)
        large.write(range(N), whole() % 100)
        small.write(range(200), whole(1, 200) % 100)
        tables = large.page_table.tolist()
        pool.share()
        assert large.page_table.tolist() == tables
        assert pool.counts().in_use == N + 100  # the small ones among themselves
        assert (pool.counts().zero_frames, pool.counts().zero_pages) == (1, 2)  # the large page's are not known of
        into = int(small.page_table[0])
        assert large.merge([0], [into]).tolist() == [False]
        assert small.merge([0], [int(large.page_table[0])]).tolist() == [False]
        assert large.merge([0], [int(large.page_table[0])]).tolist() == [True]  # where it is already
        pool.check()
        before = held(large)
        large.break_large([0])
        assert large.page_table.tolist() == tables
        assert held(large) == before
        assert large.merge([0], [into]).tolist() == [True]
        pool.share()
        assert pool.counts().in_use == 100
        pool.check()


def test_equal_large_pages_are_stored_once() -> None:
    with FramePool(10 * N, 8) as pool:
        guests = [pool.add_guest(2 * N, large_pages=True, domain=domain) for domain in "aab"]
        for guest in guests:
            guest.write(range(2 * N), np.tile(whole(), 2))
        small = pool.add_guest(N, domain="a")
        small.write(range(N), whole())
        work = pool.share_large()
        assert (work.frames_signed, work.frames_compared) == (6, 4)
        assert [guest.page_table[::N].tolist() for guest in guests] == [[0, 0], [0, 0], [4 * N, 4 * N]]
        assert all(guest.large.all() for guest in guests)
        counts = pool.counts()
        assert (counts.in_use, counts.pages_merged, counts.pages_shared) == (3 * N, 4 * N, 2 * N)
        assert counts.large_pages == 6
        pool.check()
        assert pool.share_large().frames_compared == 0
        pool.share()  # not with the small pages, which hold the same
        assert pool.counts().in_use == 3 * N
        pool.check()


def test_one_byte_makes_them_differ() -> None:
    with FramePool(3 * N, 4096) as pool:
        guests = [pool.add_guest(N, large_pages=True) for _ in range(3)]
        for number, guest in enumerate(guests):
            page = np.zeros((1, 4096), np.uint8)
            page[0, 4001] = number // 2
            guest.write([N - 2], page)
        pool.share_large()
        assert [guest.page_table[0] for guest in guests] == [0, 0, 2 * N]
        assert pool.memory[N : 2 * N].max() == 0
        pool.check()


def test_zero_large_pages_are_equal() -> None:
    with FramePool(3 * N, 8) as pool:
        guest = pool.add_guest(3 * N, large_pages=True)
        guest.write(np.arange(3) * N, np.zeros(3, np.uint64))
        pool.share_large()
        counts = pool.counts()
        assert (counts.in_use, counts.pages_shared, counts.pages_sharing) == (N, N, 2 * N)
        assert (counts.zero_frames, counts.zero_pages) == (0, 0)  # these count small ones
        pool.check()


def test_a_write_to_a_shared_one_breaks_the_writers_alone() -> None:
    with FramePool(4 * N, 8) as pool:
        one, two = two_equal(pool)
        two.write([5], whole(9000, 1))
        assert one.large.all() and not two.large.any()
        assert two.page_table.tolist() == [*range(5), N, *range(6, N)]
        counts = pool.counts()
        assert (counts.in_use, counts.cow_breaks, counts.large_breaks) == (N + 1, 1, 1)
        assert held(one) == whole().tolist()
        assert held(two)[5] == 9000
        pool.check()
        # The other 511 are still in one's block: neither are they moved, nor is anything moved there.
        three = pool.add_guest(N)
        three.write(range(N), whole())
        pool.share()
        assert pool.counts().in_use == 2 * N + 1
        assert three.merge([7], [7]).tolist() == [False]
        assert two.merge([7], [int(three.page_table[7])]).tolist() == [True]  # away, it can be
        pool.check()
        # Nor may one write in place, not even to the page that it has alone: its one entry protects all of them.
        one.write([5], whole(9001, 1))
        assert not one.large.any()
        assert one.page_table.tolist() == list(range(N))
        assert pool.counts().cow_breaks == 1
        pool.check()


def test_the_last_one_writes_in_place_again() -> None:
    with FramePool(4 * N, 8) as pool:
        one, two = two_equal(pool)
        two.write(range(N), whole(5000))
        assert pool.counts().cow_breaks == N
        one.write([3], whole(6000, 1))
        assert one.large.all()
        assert pool.counts()[-2:] == (1, 0)
        pool.check()


def test_in_one_guest_too() -> None:
    with FramePool(4 * N, 8) as pool:
        guest = pool.add_guest(2 * N, large_pages=True)
        guest.write(range(2 * N), np.tile(whole(), 2))
        pool.share_large()
        guest.write([N + 1], whole(8000, 1))
        assert guest.large.tolist() == [True, False]
        assert held(guest) == [*whole().tolist(), 1, 8000, *whole(3, N - 2).tolist()]
        pool.check()


def test_small_pages_stay_when_a_block_moves() -> None:
    """A broken page's small pages keep their frames, whose large pages are moved to a lower block."""
    with FramePool(6 * N, 8) as pool:
        low, high, broken = (pool.add_guest(N, large_pages=True) for _ in range(3))
        low.write(range(N), whole(4000))
        high.write(range(N), whole())
        broken.write(range(N), whole())
        pool.share_large()
        broken.break_large([0])
        low.write(range(N), whole())
        broken.write([2], whole(77, 1))
        pool.share_large()
        assert (low.page_table[0], high.page_table[0]) == (0, 0)
        assert broken.page_table[:4].tolist() == [N, N + 1, 2 * N, N + 3]
        assert pool.counts().in_use == 2 * N
        pool.check()
        pool.share()  # their frames' block holds no large page any more, but the lower one does
        assert broken.page_table[0] == N
        pool.check()


# --- breaking and rebuilding -------------------------------------------------------------------------------------


def test_rebuilt_where_it_lies() -> None:
    with FramePool(N, 8) as pool:  # there is no room to copy it
        guest = pool.add_guest(N, large_pages=True)
        guest.write(range(N), whole())
        guest.break_large([0])
        assert guest.rebuild_large([0]).tolist() == [True]
        assert guest.page_table.tolist() == list(range(N))
        assert pool.counts()[-3:] == (1, 1, 1)
        pool.check()


def test_rebuilt_in_another_block() -> None:
    with FramePool(4 * N, 8) as pool:
        guest = pool.add_guest(N)
        guest.write(np.arange(N)[::-1], whole())
        before = held(guest)
        assert guest.rebuild_large([0]).tolist() == [True]
        assert guest.page_table.tolist() == list(range(N, 2 * N))
        assert held(guest) == before
        assert pool.counts().in_use == N
        pool.check()


@pytest.mark.parametrize(("most", "rebuilt"), [(0, False), (9, False), (10, True), (512, True)])
def test_how_many_shared_pages_it_may_have(most: int, rebuilt: bool) -> None:
    with FramePool(4 * N, 8) as pool:
        guest, other = pool.add_guest(N), pool.add_guest(4)
        guest.write(range(N), np.concatenate([whole(1, 3), np.full(6, 3, np.uint64), whole(100, N - 9)]))
        other.write(range(4), np.array([1, 2, 300, 8], np.uint64))
        pool.share()  # pages 0, 1, the seven from 2 on, and the one that holds 300: ten
        before = held(guest), pool.counts()
        assert guest.rebuild_large([0], max_shared_pages=most).tolist() == [rebuilt]
        assert guest.large.tolist() == [rebuilt]
        assert held(guest) == before[0]
        assert (pool.counts() == before[1]) == (not rebuilt)
        if rebuilt:
            assert pool.counts().in_use == N + 4
        pool.check()


def test_absent_pages_become_zero_pages() -> None:
    with FramePool(4 * N, 8) as pool:
        guest = pool.add_guest(2 * N)
        guest.write([7, 300], whole(1, 2))
        assert guest.rebuild_large([0, 1]).tolist() == [True, False], "nothing of the other one was ever touched"
        assert guest.page_table[0] == N  # block 0 was not free then
        assert held(guest)[:N] == [0] * 7 + [1] + [0] * 292 + [2] + [0] * (N - 301)
        assert (pool.counts().first_touches, pool.counts().pages_present) == (N, N)
        pool.check()


def test_no_free_block() -> None:
    with FramePool(2 * N + 100, 8) as pool:
        guest, filler = pool.add_guest(2 * N), pool.add_guest(1)
        guest.write(np.arange(N)[::-1], whole())
        filler.write([0], whole(1, 1))  # in block 1
        before = pool.counts(), guest.page_table.tolist()
        assert guest.rebuild_large([0]).tolist() == [False]
        assert (pool.counts(), guest.page_table.tolist()) == before
        filler.release([0])
        guest.write(np.arange(N, N + 100), whole(1, 100))
        guest.release([0])
        assert guest.rebuild_large([0, 1]).tolist() == [False, False]
        pool.check()


def test_one_after_the_other_in_one_free_block() -> None:
    """What the first one leaves is what the next one takes."""
    with FramePool(4 * N, 8) as pool:
        guest = pool.add_guest(3 * N)
        guest.write(np.arange(3 * N)[::-1], whole(1, 3 * N))
        before = held(guest)
        assert guest.rebuild_large([2, 0, 1]).all()
        assert guest.page_table[::N].tolist() == [0, 2 * N, 3 * N]
        assert held(guest) == before
        pool.check()


def test_it_joins_the_one_that_it_was_broken_from() -> None:
    with FramePool(4 * N, 8) as pool:
        one, two = two_equal(pool)
        two.break_large([0])
        pool.share()
        assert two.rebuild_large([0]).tolist() == [True]
        assert pool.counts().in_use == N
        assert pool.counts()[-3:] == (2, 1, 1)
        pool.check()
        two.break_large([0])
        one.break_large([0])  # then there is none to join, and all its pages are shared
        assert two.rebuild_large([0]).tolist() == [False]
        assert two.rebuild_large([0], max_shared_pages=512).tolist() == [True]
        assert two.page_table[0] == N
        assert one.rebuild_large([0]).tolist() == [True]  # what was left is its own
        assert one.page_table[0] == 0
        pool.share_large()
        assert pool.counts().in_use == N
        pool.check()


def test_zero_frames_do_not_become_part_of_one() -> None:
    with FramePool(2 * N, 8) as pool:
        guest = pool.add_guest(N, large_pages=True)
        guest.write([1], whole(1, 1))
        guest.break_large([0])
        guest.write(range(1, N), whole(1, N - 1))  # page 0 is zero
        pool.share()
        assert pool.counts().zero_frames == 1
        assert guest.rebuild_large([0]).tolist() == [True]
        assert (pool.counts().zero_frames, pool.counts().pages_unshared) == (0, N)
        pool.check()


# --- hints -------------------------------------------------------------------------------------------------------


def test_hints_break_nothing() -> None:
    with FramePool(8 * N, 8) as pool:
        one = pool.add_guest(2 * N + 3, large_pages=True, domain="a")
        other = pool.add_guest(N, large_pages=True, domain="b")
        small = pool.add_guest(10, domain="a")
        names = whole(1, 2 * N)
        names[:20] = 0
        names[20:24] = 700  # equal among themselves, and to page 699 of the other range
        one.write(range(2 * N), names)
        other.write(range(N), whole(100))  # equal to much, but in another domain
        small.write(range(10), np.array([*range(300, 309), 0], np.uint64))
        before = pool.counts(), one.page_table.tolist()
        hints = pool.large_hints()
        assert (pool.counts(), one.page_table.tolist()) == before
        assert isinstance(hints, LargeHints)
        assert [column.tolist() for column in hints] == [[0, 0, 1], [0, 1, 0], [20, 0, 0], [4 + 9, 1, 0]]
        assert [str(column.dtype) for column in hints] == ["uint32", "uint32", "uint16", "uint16"]
        # They come true.
        one.break_large([0])
        pool.share()
        assert int((np.bincount(one.page_table[:N])[one.page_table[:N]] > 1).sum()) == 24
        pool.check()


def test_hints_of_large_pages_that_are_shared_whole() -> None:
    """Stored once already: what another frame holds counts, not another large page in the same ones."""
    with FramePool(4 * N, 8) as pool:
        two_equal(pool)
        assert [column.tolist() for column in pool.large_hints()] == [[0, 1], [0, 0], [0, 0], [0, 0]]


def test_hints_of_none() -> None:
    with FramePool(4 * N, 8) as pool:
        assert [len(column) for column in pool.large_hints()] == [0] * 4
        pool.add_guest(N).write([0], whole(1, 1))
        assert [len(column) for column in pool.large_hints()] == [0] * 4


# --- policies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Dirty(), Ksm(max_page_sharing=1 << 20), Ksm(use_zero_pages=True)])
def test_policies_break_them_at_a_match(policy: Any) -> None:
    with FramePool(8 * N, 8, policy=policy) as pool:

        def scan() -> int:
            for _ in range(4):
                pool.scan(float("inf"))
                pool.check()
            return pool.counts().in_use

        one, two = pool.add_guest(2 * N, large_pages=True), pool.add_guest(2 * N, large_pages=True)
        other = pool.add_guest(N, large_pages=True)
        for guest in (one, two):
            guest.write(range(2 * N), np.concatenate([whole(1, N), np.zeros(20, np.uint64), whole(2, N - 20)]))
        other.write(range(N), whole(20000, N))
        assert scan() == N + 1 + N
        assert not one.large.any() and not two.large.any() and other.large.all()
        assert pool.counts().large_breaks == 4
        with pytest.raises(ValueError, match="the pool shares by its policy"):
            pool.share_large()
        two.write([3, N + 300], whole(9000, 2))
        two.release([N + 19])
        assert one.rebuild_large([1], max_shared_pages=N).tolist() == [True]
        assert two.rebuild_large([1]).tolist() == [False]
        pool.check()
        assert two.rebuild_large([1], max_shared_pages=N).tolist() == [True]
        pool.check()
        assert scan() == N + 1 + 2 + N
        one.write(range(2 * N), whole(7000, 2 * N))
        for guest in (one, two, other):
            guest.release(range(guest.pages))
        assert scan() == 0


@pytest.mark.parametrize("policy", [Dirty(), Ksm()])
def test_what_a_policy_knows_of_the_pages_of_a_new_one(policy: Any) -> None:
    """Rebuilt in place, of frames that were shared once, or could have been."""
    with FramePool(4 * N, 8, policy=policy) as pool:
        guest, other = pool.add_guest(N, large_pages=True), pool.add_guest(N)
        guest.write(range(N), whole())
        guest.break_large([0])
        for _ in range(3):
            pool.scan(float("inf"))
        other.write(range(5), whole(1, 5))
        for _ in range(3):
            pool.scan(float("inf"))
        assert pool.counts().pages_sharing == 5
        other.release(range(5))
        pool.check()
        assert guest.rebuild_large([0]).tolist() == [True]
        assert guest.page_table.tolist() == list(range(N))
        pool.check()
        other.write(range(5), whole(1, 5))
        for _ in range(3):
            pool.scan(float("inf"))
        assert pool.counts().pages_sharing == 5
        assert not guest.large.any()
        guest.write(range(N), whole())
        pool.check()


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["break_large", "rebuild_large"])
@pytest.mark.parametrize(
    ("ranges", "error", "message"),
    [
        ([3], ValueError, r"ranges\[0\] is 3; there are 3 ranges of 512 pages, 0 to 2"),
        ([0, -1], ValueError, r"ranges\[1\] is -1"),
        ([0, 0], ValueError, r"ranges\[1\] is 0, and so is ranges\[0\]; each can be there once"),
        ([[0]], ValueError, "ranges has 2 dimensions"),
        ([0.5], TypeError, "ranges has the dtype float64"),
        ([0, 2], ValueError, r"ranges\[1\] is 2, which is (no large page|a large page already)"),
    ],
)
def test_wrong_ranges(call: str, ranges: Any, error: type[Exception], message: str) -> None:
    with FramePool(8 * N, 8) as pool:
        guest = pool.add_guest(3 * N + 5, large_pages=True)
        guest.write(range(3 * N + 5), whole(1, 3 * N + 5))
        guest.break_large([0, 2] if call == "rebuild_large" else [2])
        if call == "rebuild_large":
            guest.rebuild_large([2])
        before = pool.counts(), guest.page_table.tolist(), guest.large.tolist()
        with pytest.raises(error, match=message):
            getattr(guest, call)(ranges)
        assert (pool.counts(), guest.page_table.tolist(), guest.large.tolist()) == before
        pool.check()


def test_no_ranges_at_all() -> None:
    with FramePool(N, 8) as pool:
        guest = pool.add_guest(N - 1, large_pages=True)
        assert guest.large.shape == (0,)
        guest.break_large([])
        assert guest.rebuild_large([]).tolist() == []
        with pytest.raises(ValueError, match=r"ranges\[0\] is 0; there are 0 ranges of 512 pages$"):
            guest.break_large([0])
        guest.write([0], whole(1, 1))
        assert pool.counts().in_use == 1


@pytest.mark.parametrize("most", [-1, 513, 2**40])
def test_a_number_of_shared_pages_that_cannot_be(most: int) -> None:
    with FramePool(N, 8) as pool:
        guest = pool.add_guest(N)
        with pytest.raises(ValueError, match=f"max_shared_pages is {most}; it must be from 0 to 512"):
            guest.rebuild_large([0], max_shared_pages=most)
        with pytest.raises(TypeError):
            guest.rebuild_large([0], max_shared_pages=0.5)  # type: ignore[arg-type]


def test_frames_that_are_too_large() -> None:
    with FramePool(N, 1 << 22) as pool:
        with pytest.raises(ValueError, match="there are large pages of frames of at most 2097152 bytes"):
            pool.add_guest(N, large_pages=True)
        assert pool.guests == ()
        guest = pool.add_guest(N)
        assert guest.large.shape == (0,)
        with pytest.raises(ValueError, match=r"ranges\[0\] is 0; there are 0 ranges"):
            guest.rebuild_large([0])
        assert len(pool.large_hints().guest) == 0
        pool.check()
    with FramePool(N, 1 << 21) as pool:  # large pages of 1 GiB
        guest = pool.add_guest(N, large_pages=True)
        guest.write([0], np.ones((1, 1 << 21), np.uint8))
        assert guest.large.all()


def test_a_closed_pool() -> None:
    pool = FramePool(N, 8)
    guest = pool.add_guest(N, large_pages=True)
    guest.write([0], whole(1, 1))
    large = guest.large
    assert not large.flags.writeable
    pool.close()
    for call in (
        lambda: guest.break_large([0]),
        lambda: guest.rebuild_large([0]),
        lambda: guest.large,
        pool.share_large,
        pool.large_hints,
        lambda: pool.add_guest(1, large_pages=True),
    ):
        with pytest.raises(ValueError, match="the pool is closed"):
            call()
    assert large.tolist() == [True]


def test_the_binding_checks_for_itself() -> None:
    pool = dedupcore.Pool(N, 8)
    one, none = np.zeros(1, np.uint32), np.zeros(0, np.uint8)
    for call, message in [
        (lambda: pool.break_large(0, one), "the pool has no guest 0"),
        (lambda: pool.rebuild_large(0, one, 0, np.zeros(1, np.uint8)), "the pool has no guest 0"),
        (lambda: pool.rebuild_large(0, one, 0, none), "rebuilt has 0 items, but ranges 1"),
        (lambda: pool.large(0), "the pool has no guest 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    pool.add_guest(N, 0)
    with pytest.raises(ValueError, match="the guest has fewer ranges"):
        pool.break_large(0, one + 1)
    pool.check()


# --- memory ------------------------------------------------------------------------------------------------------

RESIDENT = """
import re
from pathlib import Path
import numpy as np
from pagedup.sharing import FramePool

n, blocks, frame_size = 512, 24, 4096
pool = FramePool(3 * blocks * n, frame_size)
one, two = (pool.add_guest(blocks * n, large_pages=True) for _ in range(2))
at = pool.memory.ctypes.data

def resident():
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = at <= int(match[1], 16) < at + 3 * blocks * n * frame_size
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
    return total

def close_to_stored(when, frames):
    stored = pool.counts().in_use * frame_size
    assert pool.counts().in_use == frames, (when, pool.counts())
    assert abs(resident() - stored) <= 0.03 * stored, (when, resident(), stored)
    pool.check()

one.write([3], np.ones((1, frame_size), np.uint8))
assert pool.counts().in_use == n and resident() == frame_size, "what was not written takes no memory"
data = np.ones((blocks * n, frame_size), np.uint8)
data[:, :8] = np.arange(blocks * n, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
for guest in (one, two):
    guest.write(np.arange(blocks * n), data)
close_to_stored("written", 2 * blocks * n)
pool.share_large()
close_to_stored("shared whole", blocks * n)
two.write(np.arange(blocks) * n, np.zeros((blocks, frame_size), np.uint8))
close_to_stored("broken", blocks * (n + 1))
assert not two.large.any() and one.large.all()
assert two.rebuild_large(np.arange(blocks), max_shared_pages=n).all()
close_to_stored("rebuilt", 2 * blocks * n)
two.break_large(np.arange(blocks // 2))
two.release(np.arange(blocks // 2 * n))
close_to_stored("released", 3 * blocks // 2 * n)
one.release(np.arange(blocks * n))
two.release(np.arange(blocks * n))
assert resident() == 0, resident()
print("fine")
"""


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
@pytest.mark.skipif(os.sysconf("SC_PAGESIZE") != 4096, reason="frames of 4096 bytes are pages only where pages are")
def test_resident_memory_is_what_is_stored() -> None:
    done = run_python(RESIDENT)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


BOOKKEEPING = """
import re, sys
from pathlib import Path
import numpy as np
from pagedup.sharing import FramePool

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

n = 16 << 20
pool = FramePool(2 * n, 8)
chunk = np.arange(1 << 16, dtype=np.uint32)
names = np.arange(1 << 16, dtype=np.uint64)
pool.add_guest(1 << 16).write(chunk, names)
start = resident()
guest = pool.add_guest(n, large_pages=sys.argv[1] == "large")
untouched = resident() - start
for first in range(0, n, 1 << 16):
    guest.write(chunk + np.uint32(first), names + np.uint64(first))
assert guest.large.all() == (sys.argv[1] == "large")
print(untouched / n, (resident() - start) / n - 8)
"""


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
def test_bookkeeping() -> None:
    """Large pages add less than 0.2 bytes a page."""
    sizes = []
    for kind in ("small", "large"):
        done = run_python(BOOKKEEPING, kind)
        assert done.returncode == 0, done.stderr
        sizes.append([float(number) for number in re.findall(r"[\d.]+", done.stdout)])
    assert sizes[1][0] < sizes[0][0] + 0.2
    assert sizes[1][1] < sizes[0][1] + 0.2
