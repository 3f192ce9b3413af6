"""The frame pool: what it refuses, where it ends, and what it gives back."""

import ctypes
import gc
import os
import re
from typing import Any

import numpy as np
import pytest

import dedupcore
from pagedup.sharing import FramePool, PoolGuest
from pagedup.sharing.frame_pool import ABSENT
from tests.processes import run_python, under_sanitizer


def pages(*numbers: int, size: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A frame for each number: that byte, over and over."""
    return np.repeat(np.array(numbers, np.uint8)[:, None], size, axis=1)


def held(guest: PoolGuest, size: int = 64) -> Any:
    """The numbers that the guest's pages hold."""
    out = np.full((guest.pages, size), 0xEE, np.uint8)
    guest.read(range(guest.pages), out)
    assert (out == out[:, :1]).all()
    return out[:, 0].tolist()


# --- what it does ------------------------------------------------------------------------------------------------


def test_nothing_is_allocated_before_it_is_touched() -> None:
    with FramePool(4, 64) as pool:
        guest = pool.add_guest(1000)
        assert held(guest) == [0] * 1000
        assert set(guest.page_table.tolist()) == {ABSENT}
        assert pool.counts().in_use == 0
        guest.write([999, 0], pages(7, 8))
        assert held(guest) == [8] + [0] * 998 + [7]
        assert (pool.counts().in_use, pool.counts().first_touches) == (2, 2)
        assert guest.page_table[[999, 0]].tolist() == [0, 1]


def test_copy_on_write() -> None:
    with FramePool(4, 64) as pool:
        one, two = pool.add_guest(2), pool.add_guest(2)
        one.write([0, 1], pages(5, 5))
        two.write([0, 1], pages(5, 6))
        work = pool.share()
        assert work.frames_signed == 4
        assert pool.counts()[1:8] == (2, 4, 0, 0, 1, 2, 1)
        assert one.page_table.tolist() == [0, 0] and two.page_table.tolist() == [0, 3]
        one.write([1], pages(9))
        assert (held(one), held(two)) == ([5, 9], [5, 6])
        assert pool.counts().cow_breaks == 1
        one.write([0], pages(4))  # the second last page takes a frame, the last one keeps it
        two.write([0], pages(3))
        assert (held(one), held(two)) == ([4, 9], [3, 6])
        assert pool.counts().cow_breaks == 2
        pool.check()


def test_zero_pages_are_counted_apart() -> None:
    with FramePool(8, 64) as pool:
        one, two = pool.add_guest(4), pool.add_guest(2, domain="another")
        one.write(range(4), pages(0, 0, 1, 1))
        two.write(range(2), pages(0, 1))
        assert pool.counts().zero_frames == 0, "nobody has looked"
        pool.share()
        counts = pool.counts()
        assert (counts.zero_frames, counts.zero_pages) == (2, 3)
        assert (counts.pages_shared, counts.pages_sharing, counts.pages_unshared) == (1, 1, 1)
        two.write([0], pages(2))  # the only page of its zero frame: written in place, and zero no more
        assert (pool.counts().zero_frames, pool.counts().zero_pages, pool.counts().cow_breaks) == (1, 2, 0)
        one.release([0, 1])
        assert (pool.counts().zero_frames, pool.counts().zero_pages) == (0, 0)
        pool.check()


def test_domains_never_meet() -> None:
    with FramePool(8, 64) as pool:
        guests = [pool.add_guest(2, domain=domain) for domain in (None, "a", ("a",), None)]
        for guest in guests:
            guest.write([0, 1], pages(0, 1))
        pool.share()
        tables = [tuple(guest.page_table.tolist()) for guest in guests]
        assert tables[0] == tables[3]
        assert len({frame for table in tables for frame in table}) == 6
        pool.check()


def test_merging_one_by_one() -> None:
    with FramePool(8, 64) as pool:
        guest, other = pool.add_guest(5), pool.add_guest(1, domain="other")
        guest.write(range(4), pages(1, 1, 2, 1))
        other.write([0], pages(1))
        assert guest.merge([1, 2, 3, 0], [0, 0, 0, 0]).tolist() == [True, False, True, True]
        assert guest.page_table.tolist() == [0, 0, 2, 0, ABSENT]
        assert pool.counts().pages_merged == 2
        guest.write([1, 3], pages(1, 1))  # frames 1 and 3 again
        # Page 1 leaves frame 1 free, so nothing can be moved there any more.
        assert guest.merge([1, 3], [3, 1]).tolist() == [True, False]
        pool.check()
        for gpns, into, message in [
            ([4], [0], "no present page"),
            ([0], [4], "no present page"),  # the other guest's
            ([0], [7], "no frame in use"),
            ([0, 0], [2, 2], r"gpns\[1\] is 0"),
            ([0], [8], r"into\[0\] is 8; there are 8 frames"),
            ([5], [0], r"gpns\[0\] is 5; there are 5 pages"),
            ([0], [0, 2], "into has 2 items, but gpns 1"),
        ]:
            with pytest.raises(ValueError, match=message):
                guest.merge(gpns, into)
        pool.check()


def test_content_names() -> None:
    with FramePool(10, 8) as pool:
        guest = pool.add_guest(10)
        names = np.array([5, 1 << 63, 5, 0], np.uint64)
        guest.write(np.array([9, 3, 0, 1], np.uint8), names)
        out = np.zeros(4, np.uint64)
        guest.read([9, 3, 0, 1], out)
        assert out.tolist() == names.tolist()
        guest.read([9, 3, 0, 1], out.view(np.uint8).reshape(4, 8))
        pool.share()
        assert pool.counts()[1:8] == (3, 4, 1, 1, 1, 1, 1)
        assert sorted(pool.memory.view(np.uint64)[:, 0].tolist())[-3:] == [0, 5, 1 << 63]


def test_the_memory_of_another_is_never_seen() -> None:
    for size in (8, 64, 4096, 1 << 21):
        with FramePool(3, size) as pool:
            one, two = pool.add_guest(3), pool.add_guest(3)
            one.write(range(3), pages(1, 2, 3, size=size))
            one.release([0, 2])
            assert pool.memory[:, [0, -1]].tolist() == [[0, 0], [2, 2], [0, 0]]
            two.write([1], pages(4, size=size))
            assert (held(one, size), held(two, size)) == ([0, 2, 0], [0, 4, 0])
            pool.check()


# --- where it ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2, 63, 64, 65, 128, 4096, 4097])
def test_exactly_full_and_one_more(capacity: int) -> None:
    with FramePool(capacity, 8) as pool:
        guest = pool.add_guest(capacity + 1)
        names = np.arange(capacity + 1, dtype=np.uint64)
        with pytest.raises(MemoryError, match="the pool is full"):
            guest.write(names, names)
        assert pool.counts().in_use == 0
        guest.write(names[1:], names[1:])
        assert pool.counts().in_use == capacity
        with pytest.raises(MemoryError):
            guest.write([0], names[:1])
        guest.write(names[1:], names[:-1])  # in place
        pool.check()
        guest.release([capacity])
        guest.write([0], names[-1:])
        out = np.zeros(capacity + 1, np.uint64)
        guest.read(names, out)
        assert out.tolist() == [capacity, *range(capacity - 1), 0] if capacity > 1 else [1, 0]
        pool.check()


def test_full_but_for_what_the_last_page_keeps() -> None:
    """Four pages of one frame need three more, and no more than three."""
    with FramePool(4, 64) as pool:
        guest = pool.add_guest(5)
        guest.write(range(4), pages(1, 1, 1, 1))
        pool.share()
        with pytest.raises(MemoryError):
            guest.write([4, 3, 2, 1, 0], pages(0, 1, 2, 3, 4))
        assert held(guest) == [1, 1, 1, 1, 0]
        pool.check()
        guest.write([3, 1, 2, 0], pages(1, 2, 3, 4))
        assert (held(guest), pool.counts().cow_breaks) == ([4, 2, 3, 1, 0], 3)
        pool.check()


def test_empty_batches() -> None:
    with FramePool(1, 64) as pool:
        guest = pool.add_guest(1)
        guest.write([], pages())
        guest.write(np.empty(0, np.int64), np.empty((0, 64), np.uint8))
        guest.read([], pages())
        guest.release([])
        assert guest.merge([], []).tolist() == []
        assert not any(pool.share())
        pool.check()


def test_the_largest_and_the_smallest() -> None:
    with FramePool(2**32 - 1, 8) as pool:
        guest = pool.add_guest(2**20)
        guest.write([2**20 - 1], np.array([3], np.uint64))
        assert pool.memory.shape == (2**32 - 1, 8)
        with pytest.raises(ValueError, match="pages is 4294967295: more than"):
            pool.add_guest(2**32 - 1)
        pool.check()
    with FramePool(1, 1 << 30) as pool:
        assert pool.memory.shape == (1, 1 << 30)
        pool.check()


def test_many_domains() -> None:
    with FramePool(4, 8) as pool:
        pool._domains.update((number, number) for number in range(65_536))
        pool.add_guest(1, domain=65_535)
        with pytest.raises(ValueError, match="one more than the 65,536"):
            pool.add_guest(1, domain="more")
        assert len(pool.guests) == 1
        pool.check()


# --- what it refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "capacity is 0 frames"),
        ((-1,), ValueError, "capacity is -1 frames"),
        ((2**32,), ValueError, "capacity is 4,294,967,296 frames"),
        ((1, 4), ValueError, "frame_size is 4;"),
        ((1, 4095), ValueError, "frame_size is 4,095"),
        ((1, 2**31), ValueError, "frame_size is 2,147,483,648"),
        ((1.5,), TypeError, "float"),
        ((2**32 - 1, 2**30), MemoryError, "out of memory"),
    ],
)
def test_a_pool_that_cannot_be(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FramePool(*arguments)


@pytest.mark.parametrize("wrong", [0, -1, 2**32, 2**70])
def test_a_guest_that_cannot_be(wrong: int) -> None:
    with FramePool(1) as pool:
        with pytest.raises(ValueError, match=f"pages is {wrong:,}; a guest has"):
            pool.add_guest(wrong)
        with pytest.raises(TypeError, match="unhashable"):
            pool.add_guest(1, domain=[])  # type: ignore[arg-type]
        assert pool.guests == ()
        pool.check()


WRONG: list[tuple[Any, type[Exception], str]] = [
    ([4], ValueError, r"gpns\[0\] is 4; there are 4 pages, 0 to 3"),
    ([0, -1], ValueError, r"gpns\[1\] is -1; there are"),
    ([1, 2**40], ValueError, r"gpns\[1\] is 1099511627776"),
    (np.array([0, 7], np.uint32), ValueError, r"gpns\[1\] is 7"),
    ([[0]], ValueError, "gpns has 2 dimensions"),
    (0, ValueError, "gpns has 0 dimensions"),
    ([0.0], TypeError, "gpns has the dtype float64"),
    ([True], TypeError, "gpns has the dtype bool"),
    ("0", ValueError, "dimensions"),
]
REPEATED: list[tuple[Any, type[Exception], str]] = [
    ([1, 1], ValueError, r"gpns\[1\] is 1, and so is gpns\[0\]"),
    ([3, 0, 2, 3], ValueError, r"gpns\[3\] is 3, and so is gpns\[0\]"),
]


@pytest.mark.parametrize("call", ["write", "read", "release"])
@pytest.mark.parametrize(("gpns", "error", "message"), WRONG + REPEATED)
def test_wrong_pages(gpns: Any, error: type[Exception], message: str, call: str) -> None:
    with FramePool(8, 64) as pool:
        guest = pool.add_guest(4)
        guest.write([0, 1], pages(1, 2))
        before = pool.counts()
        data = pages(*[9] * np.size(gpns))
        arguments = (gpns,) if call == "release" else (gpns, data)
        if call == "read" and "and so is" in message:
            guest.read(*arguments)  # which harms nobody
            return
        with pytest.raises(error, match=message):
            getattr(guest, call)(*arguments)
        assert (held(guest), pool.counts()) == ([1, 2, 0, 0], before)
        pool.check()


@pytest.mark.parametrize("call", ["write", "read"])
@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (pages(1), ValueError, r"has the shape \(1, 64\); it must be uint8 \(n, 64\) with n = 2"),
        (pages(1, 2, 3), ValueError, "has the shape"),
        (pages(1, 2, size=32), ValueError, "has the shape"),
        (pages(1, 2).reshape(-1), ValueError, "has the shape"),
        (pages(1, 2).astype(np.int8), TypeError, "has the dtype int8"),
        (np.zeros((2, 8), np.uint64), TypeError, "has the dtype uint64"),
        (np.zeros((2, 64)), TypeError, "has the dtype float64"),
        (b"0" * 128, TypeError, "is a bytes; it must be a NumPy array"),
        ([[0] * 64] * 2, TypeError, "is a list"),
    ],
)
def test_wrong_data(data: Any, error: type[Exception], message: str, call: str) -> None:
    with FramePool(8, 64) as pool:
        guest = pool.add_guest(4)
        with pytest.raises(error, match=message):
            getattr(guest, call)([0, 1], data)
        assert pool.counts().in_use == 0


def test_where_a_page_is_read_to() -> None:
    with FramePool(8, 64) as pool:
        guest = pool.add_guest(4)
        out = pages(1, 2)
        out.flags.writeable = False
        for wrong in (out, np.zeros((2, 128), np.uint8)[:, ::2]):
            with pytest.raises(ValueError, match="out must be writable and C-contiguous"):
                guest.read([0, 1], wrong)
        guest.write([0, 1], np.repeat(pages(3, 4), 2, axis=1)[:, ::2])  # writing takes any
        assert held(guest) == [3, 4, 0, 0]
        with pytest.raises(ValueError, match="lies in its own memory"):
            guest.write([0, 1], pool.memory[1:3])
        with pytest.raises(ValueError, match="lies in its own memory"):
            guest.write([0], pool.memory[-1:])


def test_views_are_read_only() -> None:
    with FramePool(8, 64) as pool:
        guest = pool.add_guest(4)
        for view in (pool.memory, guest.page_table):
            assert not view.flags.writeable
            with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
                view.flags.writeable = True
        with pytest.raises(TypeError, match=r"read-only|writable"):
            (ctypes.c_char * 8).from_buffer(pool._pool.memory())
        assert (pool.memory.shape, pool.memory.dtype.str) == ((8, 64), "|u1")
        assert (guest.page_table.shape, guest.page_table.dtype.str) == ((4,), "<u4")
        table = guest.page_table
        guest.write([2], pages(1))
        assert table.tolist() == [ABSENT, ABSENT, 0, ABSENT], "a view, not a copy"


def test_a_closed_pool() -> None:
    pool = FramePool(8, 64)
    guest = pool.add_guest(4)
    guest.write([0], pages(5))
    memory, table = pool.memory, guest.page_table
    pool.close()
    pool.close()
    assert repr(pool) == "<FramePool: 8 frames of 64 bytes, closed>"
    for call in (
        lambda: guest.write([0], pages(1)),
        lambda: guest.read([0], pages(1)),
        lambda: guest.release([0]),
        lambda: guest.merge([0], [0]),
        lambda: guest.page_table,
        lambda: pool.memory,
        lambda: pool.add_guest(1),
        pool.share,
        pool.counts,
        pool.check,
    ):
        with pytest.raises(ValueError, match="the pool is closed"):
            call()
    # What is in use stays until it is not.
    assert memory[0].tolist() == [5] * 64 and table[0] == 0
    del memory, table
    gc.collect()


def test_a_pool_says_what_it_is() -> None:
    with FramePool(4096, 8) as pool:
        guest = pool.add_guest(1000, domain="a")
        assert repr(pool) == "<FramePool: 4,096 frames of 8 bytes, 1 guests>"
        assert repr(guest) == "<PoolGuest: 1,000 pages, domain 'a'>"
        assert pool.guests == (guest,)


def test_a_pool_that_nobody_closed() -> None:
    guest = FramePool(4, 64).add_guest(2)
    gc.collect()
    guest.write([1], pages(3))
    assert held(guest) == [0, 3]


def test_the_binding_checks_for_itself() -> None:
    """dedupcore.Pool is for all; what FramePool checks before is checked there, too."""
    pool = dedupcore.Pool(4, 8)
    one, none = np.zeros(1, np.uint32), np.zeros(0, np.uint8)
    for call, message in [
        (lambda: dedupcore.Pool(0, 8), "capacity is 0 and frame_size 8"),
        (lambda: pool.add_guest(0, 0), "pages is 0 and domain 0"),
        (lambda: pool.add_guest(1, 65_536), "domain 65536"),
        (lambda: pool.write(0, one, np.zeros(8, np.uint8)), "the pool has no guest 0"),
        (lambda: pool.read(0, one, np.zeros(8, np.uint8)), "the pool has no guest 0"),
        (lambda: pool.release(7, one), "the pool has no guest 7"),
        (lambda: pool.merge(0, one, one, np.zeros(1, np.uint8)), "the pool has no guest 0"),
        (lambda: pool.merge(0, one, one, none), "into has 1 items and merged 0"),
        (lambda: pool.write(0, one, none), "data has 0 bytes, but 1 frames of 8 bytes"),
        (lambda: pool.table(0), "the pool has no guest 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    pool.add_guest(3, 2)
    with pytest.raises(ValueError, match="the guest has fewer pages"):
        pool.release(0, np.array([3], np.uint32))
    pool.check()


# --- memory ------------------------------------------------------------------------------------------------------

RESIDENT = """
import re, sys
from pathlib import Path
import numpy as np
from pagedup.sharing import FramePool

frame_size, n = int(sys.argv[1]), int(sys.argv[2])
pool = FramePool(2 * n, frame_size)
one, two = pool.add_guest(n), pool.add_guest(n)
at = pool.memory.ctypes.data
page = 4096

def resident():
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = at <= int(match[1], 16) < at + 2 * n * frame_size
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
    return total

def close_to_stored(when):
    stored = pool.counts().in_use * frame_size
    assert abs(resident() - stored) <= 0.03 * stored, (when, resident(), stored)
    print(when, stored // frame_size)

dice = np.random.default_rng(1)
data = np.zeros((n, frame_size), np.uint8)
data[:, 7] = dice.integers(0, 255, n)
data[: n // 2, -8:] = np.arange(n // 2, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
assert resident() == 0
for step, guest in enumerate((one, two)):
    for gpns in np.array_split(dice.permutation(n), 5):
        guest.write(gpns, data[gpns])
        close_to_stored("written")
pool.share()
close_to_stored("shared")
two.write(np.arange(0, n, 3), data[: len(range(0, n, 3))])
close_to_stored("broken")
for gpns in np.array_split(dice.permutation(n), 7):
    two.release(gpns)
    close_to_stored("released")
pool.check()
close_to_stored("checked")
one.release(np.arange(n))
assert resident() == 0, resident()
"""


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
@pytest.mark.skipif(os.sysconf("SC_PAGESIZE") != 4096, reason="frames of 4096 bytes are pages only where pages are")
@pytest.mark.parametrize(("frame_size", "n"), [(4096, 20_000), (65_536, 1000), (1 << 21, 40)])
def test_resident_memory_is_what_is_stored(frame_size: int, n: int) -> None:
    done = run_python(RESIDENT, frame_size, n)
    assert done.returncode == 0, done.stderr
    numbers = re.findall(r"(\w+) (\d+)", done.stdout)
    assert len(numbers) == 20
    assert int(dict(numbers)["shared"]) < 1.1 * n


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
guest = pool.add_guest(n)
untouched = resident() - start
for first in range(0, n, 1 << 16):
    guest.write(chunk + np.uint32(first), names + np.uint64(first))
print(untouched / n, (resident() - start) / n - 8)
"""


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
def test_bookkeeping() -> None:
    """At most 8 bytes an untouched page and 28 a present one, of which the scan will need some."""
    done = run_python(BOOKKEEPING)
    assert done.returncode == 0, done.stderr
    untouched, present = map(float, done.stdout.split())
    assert 3.9 < untouched < 4.3
    assert 9 < present < 10.6


def test_small_frames_go_back_in_long_runs() -> None:
    done = run_python(
        """
        import re
        from pathlib import Path
        import numpy as np
        from pagedup.sharing import FramePool
        def resident():
            return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
        n = 4 << 20
        pool = FramePool(n, 8)
        guest = pool.add_guest(n)
        every, names = np.arange(n, dtype=np.uint32), np.arange(n, dtype=np.uint64)
        guest.write(every, names)
        before = resident()
        guest.release(every[1:])
        print((before - resident()) / (8 * n))
        pool.check()
        """
    )
    assert done.returncode == 0, done.stderr
    if not under_sanitizer():
        assert float(done.stdout) > 0.9


def test_frames_that_cannot_be_given_back() -> None:
    """Locked memory is zeroed and kept; what comes before and after it in the batch goes back."""
    libc = ctypes.CDLL(None, use_errno=True)
    with FramePool(40, 4096) as pool:
        guest = pool.add_guest(40)
        guest.write(np.arange(40), np.full((40, 4096), 7, np.uint8))
        locked = ctypes.c_void_p(pool.memory.ctypes.data + 12 * 4096), ctypes.c_size_t(4096)
        if libc.mlock(*locked):
            pytest.skip(f"mlock: {os.strerror(ctypes.get_errno())}")
        guest.release(range(0, 30, 2))
        pool.check()
        guest.write([12, 14], np.full((2, 4096), 8, np.uint8))
        assert not pool.memory[4:30:2].any()
        assert (pool.memory[[0, 2]] == 8).all()
        libc.munlock(*locked)
        guest.release(range(40))
        pool.check()
        assert pool.counts().in_use == 0
