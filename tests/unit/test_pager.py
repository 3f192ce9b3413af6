"""The pager: where pages go, what is told, and what happens when something is in the way."""

import errno
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pagedup.host import Lost, PagedIn, PagedOut, PageLost, Pager
from pagedup.sharing import FramePool, PoolGuest
from pagedup.sharing.frame_pool import ABSENT, OUT
from pagedup.swap import CompressedCache, CompressedNames, SwapFile, SwapNames, oldest_victims, random_victims
from tests.swap_files import flip

PAGES = 16


def pages(kinds: str, seed: int = 0) -> Any:
    """A page for each letter: c compresses, others are random."""
    made = np.random.default_rng(seed).integers(1, 256, (len(kinds), 4096), np.uint8)
    made[[kind == "c" for kind in kinds], 1000:] = 7
    return made


class Host:
    """A pool of 16 frames with a guest of 32 pages, 4 frames of cache and 12 slots."""

    def __init__(self, kinds: str = "cr" * 8) -> None:
        self.pool = FramePool(PAGES)
        self.swap = SwapFile(12)
        self.cache = CompressedCache(4)
        self.pager = Pager(self.pool, self.swap, self.cache)
        self.guest: PoolGuest = self.pool.add_guest(2 * PAGES)
        self.data = pages(kinds)
        self.guest.write(np.arange(len(kinds)), self.data)

    def close(self) -> None:
        for each in (self.pool, self.swap, self.cache):
            each.close()

    def read(self, gpns: Any) -> Any:
        out = np.full((len(gpns), 4096), 0xEE, np.uint8)
        self.pager.read(self.guest, gpns, out)
        return out


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


def test_compressed_first_and_then_swapped(host: Host) -> None:
    assert host.pager.page_out(host.guest, np.arange(12)) == PagedOut(6, 6, 0, 0, None)
    assert (host.pager.frames, host.pool.limit, host.pool.counts().in_use) == (3, 13, 4)
    assert (host.cache.used, host.swap.used) == (6, 6)
    assert (host.read(np.arange(16)) == host.data).all()
    assert host.pager.page_in(host.guest, [0, 1, 3]) == PagedIn(1, 2)
    assert (host.pager.frames, host.pool.limit, host.pool.counts().in_use) == (3, 13, 7)
    assert host.pager.page_in(host.guest, [2]) == PagedIn(1, 0)
    assert (host.pager.frames, host.pool.limit) == (2, 14)
    counts = host.pager.counts(host.guest)
    assert counts == host.pager.counts()
    assert (counts.pages_compressed, counts.pages_swapped) == (4, 4)
    assert (counts.compressed, counts.uncompressed, counts.swapped_out, counts.swapped_in) == (6, 2, 6, 2)
    assert (host.read(np.arange(16)) == host.data).all()


def test_a_full_cache_gives_its_oldest_to_swap(host: Host) -> None:
    host.pager.page_out(host.guest, [0, 2, 4, 6, 8, 10, 12, 14])
    assert (host.cache.used, host.swap.used) == (8, 0)
    more = pages("ccc", seed=1)
    host.pager.write(host.guest, [20, 21, 22], more)
    assert host.pager.page_out(host.guest, [21, 20]) == PagedOut(2, 0, 0, 2, None)
    assert (host.cache.used, host.swap.used) == (8, 2)
    assert host.pager.page_in(host.guest, [0, 2, 20]) == PagedIn(1, 2)  # 0 and 2 went in first
    assert (host.read(np.arange(16)) == host.data).all()
    assert (host.read([20, 21, 22]) == more).all()


def test_what_nothing_takes_stays(host: Host) -> None:
    host.swap.put(pages("r" * 9))  # 3 slots left
    done = host.pager.page_out(host.guest, np.arange(16))
    assert (done.compressed, done.swapped, done.kept) == (8, 3, 5)
    assert done.error is not None and done.error.errno == errno.ENOSPC
    assert np.flatnonzero(host.guest.page_table != ABSENT).tolist() == [7, 9, 11, 13, 15]
    assert host.pager.counts().kept == 5
    assert (host.read(np.arange(16)) == host.data).all()


def test_without_stores() -> None:
    with FramePool(4) as pool:
        guest = pool.add_guest(4)
        guest.write([0, 1], pages("cr"))
        pager = Pager(pool)
        assert pager.page_out(guest, [1, 0]) == PagedOut(0, 0, 2, 0, None)
        assert pager.frames == 0 and pool.limit == 4


def test_pages_that_share_are_swapped_and_not_compressed(host: Host) -> None:
    """Compressing them would take memory."""
    other = host.pool.add_guest(PAGES)
    host.guest.release(np.arange(8, 16))
    other.write([3, 4, 5], host.data[[0, 2, 1]])
    host.pool.share()
    before = host.pool.counts().in_use
    assert host.pager.page_out(other, [3, 4, 5]) == PagedOut(0, 3, 0, 0, None)
    assert host.pool.counts().in_use == before
    assert host.pager.page_out(host.guest, [0, 1, 2]) == PagedOut(2, 1, 0, 0, None)  # alone now
    assert host.pool.counts().in_use == before - 3


def test_evicted_to_the_last_slots(host: Host) -> None:
    """Of pages some of which share their frames, and so are not in the cache; what went in first goes first."""
    other = host.pool.add_guest(PAGES)
    host.guest.release([1, 3, 5])
    other.write([0], host.data[[0]])
    host.pool.share()
    assert host.pager.page_out(host.guest, [0, 2, 4, 6, 8, 10, 12, 14]) == PagedOut(7, 1, 0, 0, None)
    host.swap.put(pages("r" * 9))  # 2 slots left
    more = pages("cccc", seed=1)
    host.pager.write(host.guest, [20, 21, 22, 23], more)
    done = host.pager.page_out(host.guest, [20, 21, 22, 23])
    assert (done.compressed, done.swapped, done.kept, done.evicted) == (3, 0, 1, 2)
    assert host.pager.page_in(host.guest, [2, 4]) == PagedIn(0, 2)
    gpns = [0, 2, 4, *range(6, 16)]
    assert (host.read(gpns) == host.data[gpns]).all() and (host.read([20, 21, 22, 23]) == more).all()


def test_names() -> None:
    with FramePool(100, 8) as pool, SwapNames(50) as swap, CompressedNames(10, 0.5) as cache:
        pager, guest = Pager(pool, swap, cache), pool.add_guest(1000)
        names = np.arange(1, 101, dtype=np.uint64)
        guest.write(np.arange(100), names)
        fits = int(cache.compresses(names).sum())
        done = pager.page_out(guest, np.arange(60))
        assert done.compressed == min(20, int(cache.compresses(names[:60]).sum()))
        assert done.kept == 0 and pool.limit == 100 - cache.frames
        out = np.zeros(100, np.uint64)
        pager.read(guest, np.arange(100), out)
        assert (out == names).all() and 30 < fits < 70
        pager.write(guest, [0, 1, 99], np.array([7, 8, 9], np.uint64))
        pager.read(guest, [0, 1, 99], out[:3])
        assert out[:3].tolist() == [7, 8, 9]


def test_a_write_to_pages_that_are_out_reads_nothing(host: Host) -> None:
    host.pager.page_out(host.guest, np.arange(8))
    data = pages("rrr", seed=5)
    host.pager.write(host.guest, [0, 1, 12], data)
    assert host.swap.counts().pages_in == 0
    assert (host.swap.used, host.cache.used, host.pager.counts().dropped) == (3, 3, 2)
    assert (host.read([0, 1, 12]) == data).all()
    assert (host.read([2, 3, 4]) == host.data[2:5]).all()


def test_a_write_that_finds_no_frames_changes_nothing(host: Host) -> None:
    host.pager.page_out(host.guest, [0, 1, 2, 3])
    host.pager.write(host.guest, [16, 17, 18], pages("rrr"))
    table, counts, limit = host.guest.page_table.copy(), host.pager.counts(), host.pool.limit
    for gpns in ([0, 5], [1, 19], [1, 5, 19, 20], [0, 1]):
        with pytest.raises(MemoryError):
            host.pager.write(host.guest, gpns, pages("r" * len(gpns)))
        now = host.guest.page_table
        assert ((now == ABSENT) == (table == ABSENT)).all()
        assert (host.pager.counts(), host.pool.limit) == (counts, limit)
        assert (host.read(np.arange(16)) == host.data).all()


def test_a_write_that_finds_frames_for_some_of_its_pages_changes_nothing(host: Host) -> None:
    """Those that were out come in first; then they go again."""
    host.pager.page_out(host.guest, [0, 1, 2, 3])
    host.pager.write(host.guest, [16], pages("r"))
    counts, limit = host.pager.counts(), host.pool.limit
    assert limit - host.pool.counts().in_use == 2
    for gpns in ([0, 5, 19, 20], [1, 5, 19, 20], [1, 3, 19]):
        with pytest.raises(MemoryError):
            host.pager.write(host.guest, gpns, pages("r" * len(gpns)))
        assert (host.pager.counts(), host.pool.limit) == (counts, limit)
        assert np.flatnonzero(host.guest.marks & OUT).tolist() == [0, 1, 2, 3]
        assert (host.read(np.arange(16)) == host.data).all()


def test_coming_in_takes_no_more_than_there_is(host: Host) -> None:
    """The last of a frame of the cache frees it, and so can come back when the pool is full."""
    host.pager.page_out(host.guest, [0, 2])
    assert host.pager.frames == 1
    host.pager.write(host.guest, [16], pages("r"))
    assert host.pool.counts().in_use == host.pool.limit == 15
    with pytest.raises(MemoryError):
        host.pager.page_in(host.guest, [0])
    with pytest.raises(MemoryError):
        host.pager.page_in(host.guest, [0, 2])
    assert host.pool.limit == 15 and host.cache.used == 2
    host.pager.release(host.guest, [2])
    assert host.pool.limit == 15
    assert host.pager.page_in(host.guest, [0]) == PagedIn(1, 0)
    assert host.pool.limit == host.pool.counts().in_use == 16


def test_a_lost_page_is_named_and_never_read(host: Host) -> None:
    host.pool.add_guest(3)
    other = host.pool.add_guest(PAGES)
    host.guest.release(np.arange(6, 16))
    other.write([3, 4, 5], pages("rrr", seed=3))
    host.pager.page_out(other, [3, 4, 5])
    flip(host.swap, 1, 77)
    with pytest.raises(PageLost, match="page 4 of guest 2 is lost") as error:
        host.pager.page_in(other, [5, 4, 3])
    assert isinstance(error.value, LookupError) and (error.value.guest, error.value.gpns) == (2, (4,))
    assert host.pager.lost == (Lost(2, 4, "slot 1 did not keep what was stored: the checksum differs"),)
    assert (other.page_table != ABSENT).nonzero()[0].tolist() == [3, 5] and other.marks[4] & OUT
    out = pages("rrr")
    kept = out.copy()
    for call in (host.pager.read, host.pager.page_in):
        with pytest.raises(PageLost):
            call(other, [4], *([out[:1]] if call == host.pager.read else []))
    assert (out == kept).all()
    with pytest.raises(ValueError, match="out"):
        other.read([4], out[:1])
    assert other.touch([3, 4]).done == 1
    assert host.pager.counts(other).pages_lost == host.pager.counts().lost == 1
    assert host.swap.used == 1  # the slot of a lost page is not used again
    host.pager.release(other, [4])
    assert not other.marks[4] & OUT and host.pager.counts().pages_lost == 0 and len(host.pager.lost) == 1
    host.pager.read(other, [4], out[:1])
    assert not out[0].any()


def test_a_lost_page_is_written_anew(host: Host) -> None:
    host.pager.page_out(host.guest, [1])
    flip(host.swap, 0, 0)
    with pytest.raises(PageLost):
        host.read([0, 1, 2])
    data = pages("c", seed=9)
    host.pager.write(host.guest, [1], data)
    assert (host.read([1]) == data).all() and host.pager.counts().pages_lost == 0


def test_lost_in_the_cache(host: Host) -> None:
    host.pager.page_out(host.guest, [0, 2, 4])
    host.cache._rows[1, 5] ^= 1
    with pytest.raises(PageLost, match="page 2 of guest 0 is lost"):
        host.read([4, 2, 0])
    assert host.pager.lost[0].why.startswith("entry 1 ") and host.pager.frames == 1
    assert host.pager.page_in(host.guest, [0, 4]) == PagedIn(2, 0)
    assert (host.read([0, 4]) == host.data[[0, 4]]).all()


def test_lost_on_the_way_from_the_cache_to_swap(host: Host) -> None:
    host.pager.page_out(host.guest, [0, 2, 4, 6, 8, 10, 12, 14])
    host.cache._rows[1, 5] ^= 1
    host.pager.write(host.guest, [20, 21, 22], pages("ccc", seed=1))
    assert host.pager.page_out(host.guest, [20, 21, 22]) == PagedOut(3, 0, 0, 2, None)
    assert [each[:2] for each in host.pager.lost] == [(0, 2)]
    assert (host.read([0, 4, 6]) == host.data[[0, 4, 6]]).all()
    with pytest.raises(PageLost):
        host.read([2])


def test_several_batches(host: Host) -> None:
    host.pager._step = 3
    done = host.pager.page_out(host.guest, np.arange(16))
    assert (done.compressed, done.swapped, done.kept, done.evicted) == (8, 8, 0, 0)
    assert (host.read(np.arange(16)[::-1]) == host.data[::-1]).all()
    assert host.pager.page_in(host.guest, np.arange(16)) == PagedIn(8, 8)
    assert host.pool.limit == 16 and (host.read(np.arange(16)) == host.data).all()


def test_wrong_arguments(host: Host) -> None:
    host.pager.page_out(host.guest, [0, 1])
    before = host.pager.counts(), host.pool.counts(), host.guest.page_table.tolist()
    calls: list[tuple[Any, str]] = [
        (lambda: host.pager.page_out(host.guest, [2, 20]), r"gpns\[1\] is 20, which is absent"),
        (lambda: host.pager.page_out(host.guest, [2, 1]), r"gpns\[1\] is 1, which is out already"),
        (lambda: host.pager.page_out(host.guest, [2, 3, 2]), "gpns has 2 twice"),
        (lambda: host.pager.page_out(host.guest, [32]), r"gpns\[0\] is 32; there are 32 pages"),
        (lambda: host.pager.page_in(host.guest, [0, 2]), r"gpns\[1\] is 2, which is not paged out"),
        (lambda: host.pager.page_in(host.guest, [0, 0]), "gpns has 0 twice"),
        (lambda: host.pager.release(host.guest, [0, 2, 2]), "gpns has 2 twice"),
        (lambda: host.pager.write(host.guest, [0, 0], pages("cc")), "gpns has 0 twice"),
        (lambda: host.pager.write(host.guest, [0, 2], pages("c")), "data has the shape"),
        (lambda: host.pager.read(host.guest, [0, 2], pages("c")), "out has the shape"),
        (lambda: host.pager.read(host.guest, [0, 2], pages("cccc")[::2]), "writable"),
    ]
    for call, message in calls:
        with pytest.raises(ValueError, match=message):
            call()
    assert (host.pager.counts(), host.pool.counts(), host.guest.page_table.tolist()) == before
    with FramePool(4) as other, pytest.raises(ValueError, match="none of this pager's pool"):
        host.pager.page_out(other.add_guest(4), [1])
    host.guest.page_out([5], pages("c"))
    for call in (lambda: host.pager.page_in(host.guest, [5]), lambda: host.read([5])):
        with pytest.raises(ValueError, match="page 5 of guest 0 was paged out past this pager"):
            call()


def test_frames_of_another_size() -> None:
    with FramePool(4, 8) as pool, SwapFile(4) as swap, CompressedCache(4, 2048) as cache:
        with pytest.raises(ValueError, match="swap is for frames of 4,096 bytes; those of the pool have 8"):
            Pager(pool, swap)
        with pytest.raises(ValueError, match="cache is for frames of 2,048 bytes"):
            Pager(pool, None, cache)


def test_victims() -> None:
    with FramePool(200, 8, seed=5) as pool:
        guest, other = pool.add_guest(100), pool.add_guest(100)
        for each in (guest, other):
            each.write(np.arange(90), np.arange(90, dtype=np.uint64) + np.uint64(1000 * (each is other)))
        other.write([99], np.array([7], np.uint64))
        pool.share()
        guest.touch(np.arange(0, 50))
        by_age = oldest_victims(guest, 30)
        assert by_age.tolist() == [gpn for gpn in range(50, 90)][:30]
        at_random = random_victims(guest, 89)
        assert sorted(at_random.tolist()) == [gpn for gpn in range(90) if gpn != 7] != at_random.tolist()
