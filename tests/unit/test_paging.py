"""Accesses, paging out and in, the limit, victims: what they do, what they refuse, and where they end."""

from typing import Any

import numpy as np
import pytest

import dedupcore
from pagedup.sharing import FramePool, Ksm, PoolGuest
from pagedup.sharing.frame_pool import ABSENT, ACCESSED_BY_GUEST, ACCESSED_BY_HOST, LARGE_PAGE, OUT, Touched
from tests.unit.test_frame_pool import WRONG, held, pages

BOTH = ACCESSED_BY_HOST | ACCESSED_BY_GUEST


def names(*numbers: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(numbers, np.uint64)


def is_write(*flags: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.array(flags, np.bool_)


def paged_out(guest: PoolGuest, gpns: list[int], size: int = 64) -> Any:
    out = np.full((len(gpns), size), 0xEE, np.uint8)
    guest.page_out(gpns, out)
    return out


# --- accesses ----------------------------------------------------------------------------------------------------


def test_accesses_come_in_order() -> None:
    with FramePool(8, 64) as pool:
        guest = pool.add_guest(6)
        assert guest.touch([1, 1, 3, 1, 5], is_write(1, 0, 1, 1, 0), pages(7, 8, 9)) == Touched(5, 2, 0)
        assert held(guest) == [0, 9, 0, 8, 0, 0]
        assert guest.marks.tolist() == [0, BOTH, 0, BOTH, 0, BOTH]
        assert guest.page_table[5] == ABSENT, "a read gives no memory"
        assert guest.touch([2, 2]) == guest.touch([2, 2], is_write(0, 0)) == Touched(2, 0, 0)
        assert guest.touch([]) == guest.touch([], is_write(), pages()) == Touched(0, 0, 0)
        assert pool.counts().first_touches == 2
        pool.check()


def test_only_a_touch_is_an_access() -> None:
    with FramePool(8, 64) as pool:
        guest = pool.add_guest(4)
        guest.write([0, 1], pages(1, 2))
        held(guest)
        assert not guest.marks.any()
        guest.touch([0])
        paged_out(guest, [0])
        guest.page_in([0], pages(1))
        assert guest.marks.tolist() == [BOTH, 0, 0, 0], "paging sets no mark, and clears none"
        guest.release([0])
        assert guest.marks[0] == BOTH


@pytest.mark.parametrize("before", [0, 1, 62, 63, 64, 65, 127, 128, 129, 200])
@pytest.mark.parametrize("write", [False, True])
def test_it_stops_before_a_page_that_is_out(before: int, write: bool) -> None:
    """At each place in the turns that the engine takes."""
    with FramePool(300, 8) as pool:
        guest = pool.add_guest(300)
        guest.write([299], names(5))
        paged_out(guest, [299], 8)
        gpns = [*range(before), 299, *range(before, 250)]
        writes = np.ones(len(gpns), np.bool_)
        writes[before] = write
        done = guest.touch(gpns, writes, np.arange(1, 251 + write, dtype=np.uint64))
        assert done == Touched(before, before, 0)
        assert np.flatnonzero(guest.page_table != ABSENT).tolist() == list(range(before))
        assert np.flatnonzero(guest.marks & ACCESSED_BY_GUEST).tolist() == list(range(before))
        out = np.zeros(before, np.uint64)
        guest.read(range(before), out)
        assert out.tolist() == list(range(1, before + 1))
        pool.check()


@pytest.mark.parametrize("limit", [0, 1, 63, 64, 65, 130, 200])
def test_it_stops_before_a_frame_that_is_not_there(limit: int) -> None:
    with FramePool(300, 8) as pool:
        guest = pool.add_guest(300)
        pool.limit = limit
        gpns = np.repeat(np.arange(250), 2)  # a first touch, and a write in place
        done = guest.touch(gpns, np.ones(500, np.bool_), np.arange(1, 501, dtype=np.uint64))
        assert done == Touched(min(2 * limit, 500), min(limit, 250), 0)
        assert (guest.marks != 0).sum() == limit
        pool.check()


def test_a_copy_on_write_needs_a_frame_and_the_last_page_none() -> None:
    with FramePool(4, 64) as pool:
        guest = pool.add_guest(4)
        guest.write(range(4), pages(1, 1, 1, 2))
        pool.share()
        pool.limit = 3
        assert guest.touch([0, 1, 2], is_write(1, 1, 1), pages(3, 4, 5)) == Touched(1, 0, 1)
        pool.limit = 4
        assert guest.touch([1, 2], is_write(1, 1), pages(4, 5)) == Touched(2, 0, 1)
        assert held(guest) == [3, 4, 5, 2]
        pool.check()


def test_large_pages_are_touched_whole_and_kept_whole() -> None:
    with FramePool(2 * LARGE_PAGE, 8) as pool:
        one, two = (pool.add_guest(LARGE_PAGE, large_pages=True) for _ in range(2))
        assert one.touch([7, 8], is_write(1, 1), names(1, 2)) == Touched(2, LARGE_PAGE, 0)
        assert two.touch([7, 8], is_write(1, 1), names(1, 2)) == Touched(2, LARGE_PAGE, 0)
        assert one.large.all() and pool.counts().large_pages == 2
        pool.share_large()
        pool.limit = LARGE_PAGE
        assert two.touch([7], is_write(1), names(3)).done == 0
        assert two.large.all(), "what cannot be done breaks nothing"
        pool.limit = LARGE_PAGE + 1
        assert two.touch([7], is_write(1), names(3)) == Touched(1, 0, 1)
        assert not two.large.any() and one.large.all()
        pool.check()


def test_a_large_first_touch_keeps_to_the_limit() -> None:
    for limit, large in [(LARGE_PAGE - 1, False), (LARGE_PAGE, True)]:
        with FramePool(4 * LARGE_PAGE, 8) as pool:
            pool.limit = limit
            touched, written = (pool.add_guest(LARGE_PAGE, large_pages=True) for _ in range(2))
            assert touched.touch([3], is_write(1), names(1)) == Touched(1, LARGE_PAGE if large else 1, 0)
            assert touched.large[0] == large
            pool.limit = pool.counts().in_use + limit
            written.write([3], names(1))
            assert written.large[0] == large
            pool.check()


def test_no_large_page_is_made_around_a_page_that_is_out() -> None:
    with FramePool(4 * LARGE_PAGE, 8) as pool:
        guest = pool.add_guest(2 * LARGE_PAGE, large_pages=True)
        guest.touch([0, LARGE_PAGE], is_write(1, 1), names(1, 2))
        out = np.zeros(LARGE_PAGE, np.uint64)
        guest.page_out(range(LARGE_PAGE), out)
        assert out[0] == 1 and guest.large.tolist() == [False, True]
        guest.forget(range(5, LARGE_PAGE))
        assert guest.touch([9], is_write(1), names(3)) == Touched(1, 1, 0)
        guest.release([9])
        guest.write([9], names(3))
        assert not guest.large[0] and guest.out == 5
        assert guest.rebuild_large([0], max_shared_pages=LARGE_PAGE).tolist() == [False]
        guest.forget(range(5))
        assert guest.rebuild_large([0], max_shared_pages=LARGE_PAGE).tolist() == [True]
        pool.check()


# --- paging ------------------------------------------------------------------------------------------------------


def test_out_and_in() -> None:
    with FramePool(3, 64) as pool:
        guest, other = pool.add_guest(4), pool.add_guest(2)
        guest.write([0, 1, 2], pages(5, 6, 7))
        assert paged_out(guest, [2, 0])[:, 0].tolist() == [7, 5]
        assert (guest.out, pool.counts().in_use, guest.marks.tolist()) == (2, 1, [OUT, 0, OUT, 0])
        other.write([0, 1], pages(1, 2))
        with pytest.raises(MemoryError, match="paging in 2 pages takes more than the frames that are free, of 3"):
            guest.page_in([0, 2], pages(5, 7))
        assert guest.out == 2
        other.release([0, 1])
        guest.page_in([0, 2], pages(5, 7))
        assert (held(guest), guest.out, pool.counts().in_use) == ([5, 6, 7, 0], 0, 3)
        assert pool.counts().first_touches == 5, "paging in is none"
        assert pool.counts().pages_released == 2, "paging out is no release"
        paged_out(guest, [1])
        guest.forget([1])
        assert (held(guest), guest.out) == ([5, 0, 7, 0], 0)
        pool.check()


def test_a_shared_page_goes_and_comes_back_alone() -> None:
    with FramePool(4, 64) as pool:
        one, two = pool.add_guest(1), pool.add_guest(1)
        for guest in (one, two):
            guest.write([0], pages(9))
        pool.share()
        assert paged_out(one, [0])[0, 0] == 9
        assert (held(two), pool.counts().in_use) == ([9], 1)
        one.page_in([0], pages(9))
        assert (held(one), pool.counts().in_use, pool.counts().pages_shared) == ([9], 2, 0)
        pool.check()


def test_a_policy_takes_a_page_that_came_back_for_a_written_one() -> None:
    with FramePool(8, 8, policy=Ksm()) as pool:
        guest = pool.add_guest(3)
        guest.write([0, 1], names(4, 4))
        for _ in range(3):
            pool.scan(np.inf)
        assert pool.counts().in_use == 1
        out = names(0)
        guest.page_out([0], out)
        guest.page_in([0], out)
        assert pool.counts().in_use == 2
        pool.check()
        for _ in range(3):
            pool.scan(np.inf)
        assert pool.counts().in_use == 1
        pool.check()


def test_the_limit() -> None:
    with FramePool(5, 64) as pool:
        guest = pool.add_guest(6)
        assert pool.limit == 5
        guest.write(range(4), pages(1, 2, 3, 4))
        pool.limit = 2  # less than there are
        guest.write([0], pages(5))
        with pytest.raises(MemoryError, match="writing 1 pages takes more than the frames that are free, of 2"):
            guest.write([4], pages(1))
        guest.release([0, 1])
        with pytest.raises(MemoryError):
            guest.write([4], pages(1))
        guest.release([2])
        guest.write([4], pages(1))
        for wrong in (-1, 6, 2**70):
            with pytest.raises(ValueError, match=f"limit is {wrong:,} frames; it must be 0 to 5, the capacity"):
                pool.limit = wrong
        with pytest.raises(TypeError):
            pool.limit = 2.5  # type: ignore[assignment]
        assert pool.limit == 2
        pool.check()


# --- victims -----------------------------------------------------------------------------------------------------


def test_second_chance() -> None:
    with FramePool(200, 8) as pool:
        guest = pool.add_guest(100)
        guest.write(range(10, 90), np.arange(10, 90, dtype=np.uint64))
        guest.touch(range(20, 80))
        assert guest.oldest(12, by="host").tolist() == [*range(10, 20), 80, 81]
        assert (guest.marks[20:80] == ACCESSED_BY_GUEST).all(), "the guest's own marks are another thing"
        guest.touch([85])
        assert guest.oldest(8, by="host").tolist() == [82, 83, 84, 86, 87, 88, 89, 10], "on from where it was"
        assert guest.oldest(10, by="guest").tolist() == [*range(10, 20)]
        assert sorted(guest.oldest(1000, by="guest").tolist()) == [*range(10, 90)], "each once"
        assert len(guest.oldest(0, by="host")) == 0
        assert guest.take_accessed([85, 85, 20], by="guest").tolist() == [False, False, False]
        guest.touch([3])
        assert guest.take_accessed([3, 3, 4], by="guest").tolist() == [True, False, False]
        assert guest.take_accessed([3], by="host").tolist() == [True]
        pool.check()


def test_shared_and_ineligible_pages_are_passed_over() -> None:
    with FramePool(200, 8) as pool:
        guest = pool.add_guest(100)
        guest.write(range(100), np.repeat(np.arange(1, 51, dtype=np.uint64), 2))
        pool.share()
        for number in range(5, 95):
            guest.write([number], names(1000 + number))
        alone = [*range(4, 96)]
        eligible = np.zeros(100, np.bool_)
        eligible[[1, 4, 7, 96, 97]] = True
        assert guest.oldest(100, by="host").tolist() == alone
        assert guest.oldest(100, by="guest").tolist() == [*range(100)]
        assert guest.oldest(100, "host", eligible).tolist() == guest.oldest(100, "host", eligible).tolist() == [4, 7]
        assert sorted(guest.pick(100).tolist()) == alone
        assert sorted(guest.pick(100, eligible).tolist()) == [4, 7]
        guest.touch([7, 8])
        guest.oldest(1, "host", eligible)
        assert guest.marks[[7, 8]].tolist() in ([BOTH, BOTH], [ACCESSED_BY_GUEST, BOTH])
        pool.check()


def test_picks_are_random_and_repeat_with_the_seed() -> None:
    orders = []
    for seed in (0, 1, 1, 2**64 - 1):
        with FramePool(2000, 8, seed=seed) as pool:
            one, two = pool.add_guest(1000), pool.add_guest(1000)
            for guest in (one, two):
                guest.write(range(1000), np.arange(1000, dtype=np.uint64))
            rounds = [[page for _ in range(4) for page in guest.pick(250).tolist()] for guest in (one, two, one)]
            assert all(sorted(order) == [*range(1000)] for order in rounds)
            assert len({tuple(order) for order in rounds}) == 3
            assert all(abs(np.corrcoef(order, range(1000))[0, 1]) < 0.15 for order in rounds)
            orders.append(rounds)
    assert orders[1] == orders[2]
    assert orders[0] != orders[1] != orders[3]


def test_a_round_that_ends_within_a_call() -> None:
    with FramePool(10, 8) as pool:
        guest = pool.add_guest(10)
        guest.write(range(10), np.arange(10, dtype=np.uint64))
        first = guest.pick(7).tolist()
        then = guest.pick(10).tolist()
        assert sorted(then) == [*range(10)], "no page twice in a call"
        assert {*first, *then[:3]} == {*range(10)}
        assert len(guest.pick(11)) == 10
        pool.check()


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["touch", "page_out", "page_in", "forget", "take_accessed"])
@pytest.mark.parametrize(("gpns", "error", "message"), WRONG)
def test_wrong_pages(gpns: Any, error: type[Exception], message: str, call: str) -> None:
    with FramePool(8, 64) as pool:
        guest = pool.add_guest(4)
        guest.write([0, 1], pages(1, 2))
        before = pool.counts()
        data = pages(*[9] * np.size(gpns))
        arguments: dict[str, tuple[Any, ...]] = {
            "touch": (gpns, np.ones(np.size(gpns), np.bool_), data),
            "forget": (gpns,),
            "take_accessed": (gpns, "host"),
        }
        with pytest.raises(error, match=message):
            getattr(guest, call)(*arguments.get(call, (gpns, data)))
        assert (held(guest), pool.counts()) == ([1, 2, 0, 0], before)
        assert not guest.marks.any()


def test_pages_that_are_not_where_they_must_be() -> None:
    with FramePool(8, 64) as pool:
        guest = pool.add_guest(5)
        guest.write([0, 1, 2], pages(1, 2, 3))
        paged_out(guest, [1])
        before = pool.counts()
        for call, gpns, message in [
            ("page_out", [0, 3], r"gpns\[1\] is 3, which is absent"),
            ("page_out", [0, 1], r"gpns\[1\] is 1, which is paged out"),
            ("page_in", [1, 0], r"gpns\[1\] is 0, which is not paged out"),
            ("page_in", [3, 1], r"gpns\[0\] is 3, which is not paged out"),
            ("forget", [1, 2], r"gpns\[1\] is 2, which is not paged out"),
            ("page_out", [0, 2, 0], r"gpns\[2\] is 0, and so is gpns\[0\]"),
            ("page_in", [1, 1], r"gpns\[1\] is 1, and so is gpns\[0\]"),
            ("forget", [1, 1], r"gpns\[1\] is 1, and so is gpns\[0\]"),
            ("write", [0, 1], r"gpns\[1\] is 1, which is paged out"),
            ("read", [0, 0, 1], r"gpns\[2\] is 1, which is paged out"),
            ("release", [4, 1], r"gpns\[1\] is 1, which is paged out"),
            ("merge", [0, 1], r"gpns\[1\] is 1, which is paged out"),
        ]:
            data = pages(*[9] * len(gpns))
            arguments: dict[str, tuple[Any, ...]] = {"forget": (), "release": (), "merge": ([0] * len(gpns),)}
            with pytest.raises(ValueError, match=message):
                getattr(guest, call)(gpns, *arguments.get(call, (data,)))
            assert (pool.counts(), guest.out) == (before, 1)
        pool.check()


def test_what_else_is_refused() -> None:
    with FramePool(8, 64) as pool:
        guest: Any = pool.add_guest(4)
        guest.write([0, 1], pages(1, 2))
        four = np.ones(4, np.bool_)
        for call, error, message in [
            (lambda: guest.touch([0], four, pages(1)), ValueError, r"writes has the shape \(4,\); it must be \(1,\)"),
            (lambda: guest.touch([0], [True], pages(1)), TypeError, r"writes is a list; it must be a bool ndarray"),
            (lambda: guest.touch([0], np.ones(1), pages(1)), TypeError, "writes is of the dtype float64"),
            (lambda: guest.touch([0, 1], is_write(1, 0), pages(1, 2)), ValueError, "with n = 1, one frame a write"),
            (lambda: guest.touch([0, 1], is_write(1, 0)), TypeError, "data is a NoneType; it must be a NumPy array"),
            (lambda: guest.touch([0], None, pages(1)), ValueError, "with n = 0, one frame a write"),
            (lambda: guest.touch([0], is_write(1), pool.memory[:1]), ValueError, "data lies in its own memory"),
            (lambda: guest.page_in([], pool.memory[:0]), None, ""),
            (lambda: guest.page_out([0], pages(1)[:, ::2]), ValueError, "has the shape"),
            (lambda: guest.page_out([0], pages(1, size=128)[:, ::2]), ValueError, "writable and C-contiguous"),
            (lambda: guest.take_accessed([0], "me"), ValueError, "by is 'me'; it must be 'host' or 'guest'"),
            (lambda: guest.oldest(1, "me"), ValueError, "by is 'me'"),
            (lambda: guest.oldest(-1, "host"), ValueError, "n is -1; it must be 0 or more"),
            (lambda: guest.pick(-1), ValueError, "n is -1"),
            (lambda: guest.pick(1.5), TypeError, "float"),
            (lambda: guest.pick(1, four[:3]), ValueError, r"eligible has the shape \(3,\); it must be \(4,\)"),
            (lambda: guest.oldest(1, "host", np.ones(4)), TypeError, r"eligible is of the dtype float64"),
            (lambda: FramePool(1, seed=-1), ValueError, "seed is -1; it must be 0 to"),
            (lambda: FramePool(1, seed=2**64), ValueError, "seed is 18446744073709551616"),
        ]:
            if error is None:
                call()
                continue
            with pytest.raises(error, match=message):
                call()
        assert held(guest) == [1, 2, 0, 0] and not guest.marks.any()
        pool.check()


def test_the_binding_checks_for_itself() -> None:
    pool: Any = dedupcore.Pool(4, 8)
    one, eight, none = np.zeros(1, np.uint32), np.zeros(8, np.uint8), np.zeros(0, np.uint8)
    flag = np.ones(1, np.uint8)
    for call, message in [
        (lambda: pool.touch(0, one, None, none), "the pool has no guest 0"),
        (lambda: pool.touch(0, one, none, none), "writes has 0 items, but gpns 1"),
        (lambda: pool.touch(0, one, flag, none), "data has 0 bytes, but 1 frames of 8 bytes"),
        (lambda: pool.page_out(0, one, eight), "the pool has no guest 0"),
        (lambda: pool.page_out(0, one, none), "out has 0 bytes"),
        (lambda: pool.page_in(0, one, eight), "the pool has no guest 0"),
        (lambda: pool.page_in(0, one, none), "data has 0 bytes"),
        (lambda: pool.forget(0, one), "the pool has no guest 0"),
        (lambda: pool.marks(0), "the pool has no guest 0"),
        (lambda: pool.take_accessed(0, 2, one, flag), "the pool has no guest 0"),
        (lambda: pool.take_accessed(0, 2, one, none), "accessed has 0 items, but gpns 1"),
        (lambda: pool.oldest(0, 2, None, one), "the pool has no guest 0"),
        (lambda: pool.pick(0, None, one), "the pool has no guest 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert pool.out(0) == 0
    pool.add_guest(3, 0)
    for call, message in [
        (lambda: pool.touch(0, one + 3, None, none), r"gpns\[0\] is 3, but the guest has fewer pages"),
        (lambda: pool.oldest(0, 1, None, one), "the pool has no guest 0, or 1 is no mark of an access"),
        (lambda: pool.oldest(0, 6, None, one), "6 is no mark of an access"),
        (lambda: pool.pick(0, flag, one), "eligible has 1 items; it must have one a page of the guest"),
        (lambda: setattr(pool, "limit", 5), "limit is 5 frames; the pool has 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    pool.check()


def test_a_closed_pool() -> None:
    pool = FramePool(8, 64)
    guest = pool.add_guest(4)
    pool.close()
    for call in (
        lambda: guest.touch([0]),
        lambda: guest.page_out([0], pages(1)),
        lambda: guest.page_in([0], pages(1)),
        lambda: guest.forget([0]),
        lambda: guest.take_accessed([0], "host"),
        lambda: guest.oldest(1, "host"),
        lambda: guest.pick(1),
        lambda: guest.marks,
        lambda: guest.out,
        lambda: pool.limit,
    ):
        with pytest.raises(ValueError, match="the pool is closed"):
            call()
