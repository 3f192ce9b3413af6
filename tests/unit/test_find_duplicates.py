"""find_duplicates at both sides of every boundary, what it refuses and how, progress, and interruption."""

import mmap
import os
import random
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import dedupcore
import pagedup
from pagedup import Extent, ZeroExtent, summarize
from tests import brute_force
from tests.collisions import NAMES, key_words, names_with_hashes, swapped

# Before Python 3.12 arrays are no Buffer to mypy; and what is wrong is wrong here on purpose.
find_duplicates: Any = pagedup.find_duplicates
count: Any = dedupcore.count

GIB = 1 << 30


def canonical_of(memory: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The oracle for many frames of 8 bytes."""
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(name, i) for i, name in enumerate(memory.tolist())], np.uint32)


def noise(n_bytes: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(n_bytes)


def some_frames(n: int, size: int) -> bytes:
    """About half of them duplicates, some zero."""
    numbers = np.random.default_rng(n).integers(0, max(n // 2, 2), n, np.uint64)
    frames = np.zeros((n, size // 8), np.uint64)
    frames[np.arange(n), (np.arange(n) % 3) * (size // 8 - 1) // 2] = numbers
    return frames.tobytes()


# --- what fits ---------------------------------------------------------------------------------------------------


def test_an_example() -> None:
    memory = np.repeat(np.array([5, 0, 7, 5, 5, 0], np.uint8), 4096)
    found = find_duplicates([memory[: 3 * 4096], memory[3 * 4096 :]])
    assert found.canonical.tolist() == [0, 1, 2, 0, 0, 1]
    assert found.zero.tolist() == [False, True, False, False, False, True]
    assert (found.frame_size, found.n_frames, found.n_zero, found.n_distinct) == (4096, 6, 2, 2)
    assert found.guest_offsets.tolist() == [0, 3, 6]
    assert found.addresses.tolist() == [0, 4096, 8192] * 2
    assert found.within_guests().tolist() == [0, 1]
    assert found.pairs().tolist() == [[3, 0], [4, 0]]
    assert repr(found) == "<Duplicates: 6 frames of 4,096 bytes in 2 guests, 2 zero, 2 distinct others>"


def test_domains_never_meet() -> None:
    frame, zero = noise(4096), bytes(4096)
    found = find_duplicates([zero + frame, frame + zero, frame + frame], domains=["a", "b", "a"])
    assert found.canonical.tolist() == [0, 1, 2, 3, 1, 1]
    assert (found.n_zero, found.n_distinct) == (2, 2)
    assert find_duplicates([frame] * 3, domains=[1, 2, 3]).canonical.tolist() == [0, 1, 2]
    assert find_duplicates([frame] * 3, domains=[1, 1.0, True]).canonical.tolist() == [0, 0, 0]  # equal values


@pytest.mark.parametrize("size", [8 << i for i in range(14)])
def test_every_small_frame_size(size: int) -> None:
    memory = some_frames(40, size)
    brute_force.check(find_duplicates(memory, frame_size=size), brute_force.snapshot([[(0, memory)]], size))


@pytest.mark.parametrize("size", [256, 512])
def test_short_frames_are_read_whole_and_longer_ones_are_sampled(size: int) -> None:
    memory = noise(64 * size)
    work = find_duplicates(memory, frame_size=size).work
    assert work == brute_force.work(memory, size)
    assert work.bytes_signed == 64 * (128 if size == 512 else 256)
    assert work.frames_not_read == (64 if size == 512 else 0)


@pytest.mark.parametrize("size", [GIB // 2, GIB])
def test_the_largest_frames(size: int) -> None:
    with mmap.mmap(-1, GIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as sparse:
        sparse[-1] = 1
        found = find_duplicates([sparse, [ZeroExtent(0, GIB), Extent(4 * GIB, sparse)]], frame_size=size)
        if size == GIB:
            assert found.canonical.tolist() == [0, 1, 0]
            assert (found.n_zero, found.n_distinct) == (1, 1)
        else:
            assert found.canonical.tolist() == [0, 1, 0, 0, 0, 1]
            coarse = found.coarsen(2)
            assert coarse.canonical.tolist() == [0, 1, 0]
            assert coarse.addresses.tolist() == [0, 0, 4 * GIB]


def test_no_memory_at_all() -> None:
    for memory, offsets in (([], [0]), ([b"", b""], [0, 0, 0]), (b"", [0, 0]), ([[]], [0, 0])):
        found = find_duplicates(memory)
        assert found.guest_offsets.tolist() == offsets
        assert (found.n_frames, found.n_zero, found.n_distinct) == (0, 0, 0)
        assert found.pairs().shape == (0, 2)
        assert found.coarsen(512).n_frames == 0
        assert summarize(found).frames == 0


def test_one_frame() -> None:
    assert find_duplicates(noise(4096)).n_distinct == 1
    assert find_duplicates(bytes(4096)).n_zero == 1
    assert find_duplicates([ZeroExtent(4096, 4096)]).addresses.tolist() == [4096]


def test_one_guest_of_extents_and_several_are_told_apart() -> None:
    frame = noise(4096)
    assert find_duplicates([Extent(0, frame), Extent(8192, frame)]).guest_offsets.tolist() == [0, 2]
    assert find_duplicates([[Extent(0, frame)], [Extent(8192, frame)]]).guest_offsets.tolist() == [0, 1, 2]
    assert find_duplicates([frame, [Extent(8192, frame)]]).guest_offsets.tolist() == [0, 1, 2]
    assert find_duplicates(guest for guest in [frame, frame]).canonical.tolist() == [0, 0]


def test_guests_whose_addresses_follow_each_other_are_not_joined() -> None:
    memory = noise(3 * 4096)
    found = find_duplicates([[Extent(0, memory)], [Extent(3 * 4096, memory)]])
    coarse = found.coarsen(2)
    assert coarse.addresses.tolist() == [0, 4 * 4096]
    assert coarse.canonical.tolist() == [0, 1]
    assert coarse.excluded_bytes == 2 * 4096
    assert found.coarsen(4).n_frames == 0


def test_memory_is_not_copied() -> None:
    memory = bytearray(noise(2 * 4096))
    found: list[int] = []

    def change(phase: str, done: int, total: int) -> None:
        if not found:
            memory[:4096] = memory[4096:]
        found.append(done)

    assert find_duplicates(memory, progress=change).canonical.tolist() == [0, 0]
    memory.append(0)  # and nothing of it is held any longer


@pytest.mark.parametrize("around", [8192, 16384, 8192 * 64])
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_partitions(around: int, offset: int) -> None:
    """Frames of 8 bytes, as many as just fit into 1, 2, ... partitions."""
    names = np.random.default_rng(around).integers(0, around // 2, around + offset, np.uint64)
    found = find_duplicates(names, frame_size=8, threads=2)
    assert np.array_equal(found.canonical, canonical_of(names))
    assert found.n_distinct == len(set(names.tolist()) - {0})
    compared = len(names) - found.n_zero - found.n_distinct
    assert found.work == dedupcore.Work(len(names), 8 * len(names), 0, 0, compared, 8 * compared, 0)


def test_more_partitions_than_tasks() -> None:
    """From 512 partitions on a task groups several, with one table."""
    n = 8192 * 256 + 1
    found = find_duplicates(np.tile(np.arange(1, n, dtype=np.uint64), 2), frame_size=8, threads=2)
    assert np.array_equal(found.canonical, np.tile(np.arange(n - 1, dtype=np.uint32), 2))


@pytest.mark.parametrize("size", [4096, 512, 64])
@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("tasks", [1, 2])
def test_tasks(size: int, offset: int, tasks: int) -> None:
    """As many frames as just fit into one task, or two; runs of zeros reach over the border."""
    n = tasks * (brute_force.MIN_TASK_BYTES // size) + offset
    frames = np.frombuffer(some_frames(n, size), np.uint64).reshape(n, -1).copy()
    frames[n // 2 - 3 : n // 2 + 3] = 0
    frames[-3:] = 0
    memory = frames.tobytes()
    found = find_duplicates(memory, frame_size=size, threads=2)
    assert found.work == brute_force.work(memory, size)
    brute_force.check(found, brute_force.snapshot([[(0, memory)]], size))


@pytest.mark.parametrize("n", [255, 256, 257, 511, 512, 513])
def test_more_frames_than_tasks(n: int) -> None:
    """Every frame is a span of its own here, and several of these make a task."""
    rows = [noise(1 << 20, seed) for seed in range(3)]
    numbers = [i * i % 7 % 4 for i in range(n)]
    guests: list[Any] = [[ZeroExtent(0, 1 << 20)] if number == 3 else rows[number] for number in numbers]
    found = find_duplicates(guests, frame_size=1 << 20, threads=2)
    assert found.canonical.tolist() == [numbers.index(number) for number in numbers]
    assert found.work.frames_signed == sum(number != 3 for number in numbers)


@pytest.mark.usefixtures("seeded")
def test_the_table_of_leads_grows() -> None:
    """Names that all fall into one partition, many times as many as it is made for."""
    n = 100_000
    hashes = np.random.default_rng(2).integers(1, 1 << 59, n, np.uint64)
    names = names_with_hashes(hashes, key_words(1))
    names = np.concatenate((names, names[::-2]))
    found = find_duplicates(names, frame_size=8, threads=1)
    assert np.array_equal(found.canonical, canonical_of(names))


# --- frames that look alike --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "then"), [(1024, 776), (4096, 2312), (8192, 7000), (65536, 50000)])
def test_frames_equal_where_they_are_sampled_and_where_they_first_differ_are_hashed_in_full(
    size: int, then: int
) -> None:
    lead = noise(size)
    frames = []
    for i in range(50):
        frame = bytearray(lead)
        if i:
            frame[256] ^= 1
            frame[then] = (frame[then] + i // 2) % 256
        frames.append(bytes(frame))
    memory = b"".join(frames)
    found = find_duplicates(memory, frame_size=size)
    brute_force.check(found, brute_force.snapshot([[(0, memory)]], size))
    assert found.work == brute_force.work(memory, size)
    assert found.work.frames_hashed == 48  # all but the leads of the two rounds before


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("size", [16, 64, 256])
def test_short_frames_that_collide(size: int) -> None:
    one = noise(size)
    other = swapped(one, size - 16, key_words(1), 0)
    memory = one + other + one + other + bytes(size)
    found = find_duplicates(memory, frame_size=size)
    assert found.canonical.tolist() == [0, 1, 0, 1, 4]
    assert found.work._replace(bytes_compared=0) == dedupcore.Work(5, 5 * size, 2, 2 * size, 4, 0, 0)


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [4096, 8192])
def test_full_hashes_that_collide(size: int, threads: int) -> None:
    """Two contents that agree in every hash up to the third round's: a fourth one tells them apart."""
    lead = noise(size)
    first = lead[:1280] + noise(256, 1) + lead[1536:]
    one = first[:2304] + noise(256, 2) + first[2560:]
    other = swapped(one, 2320, key_words(1), 2)
    found = find_duplicates([lead, first, one, other, one, other], frame_size=size, threads=threads)
    assert found.canonical.tolist() == [0, 1, 2, 3, 2, 3]
    assert found.work.frames_hashed == 4 + 2
    assert (found.n_distinct, found.work.frames_not_read) == (4, 2)


@pytest.mark.usefixtures("seeded")
def test_names_are_told_apart_by_their_hashes_alone() -> None:
    """Frames of 8 bytes are never compared: each name must have a hash of its own, and lose no bit on the way to it."""
    key, bits = key_words(1), np.uint64(1) << np.arange(64, dtype=np.uint64)
    start, end = np.uint64(12345), names_with_hashes(bits ^ np.uint64(54321), key)
    inverse = np.uint64(pow(key[NAMES] | 1, -1, 1 << 64))
    names = np.concatenate((bits, start ^ bits, start + bits * inverse, end, names_with_hashes(bits, key)))
    found = find_duplicates(names, frame_size=8)
    assert np.array_equal(found.canonical, canonical_of(names))


def test_equal_samples_take_time_in_proportion() -> None:
    """The work, not the time: no frame is compared more than a few times, however alike they are."""
    n = 4000
    frames = np.full((n, 512), 3, np.uint8)
    frames[:, 256:264] = np.arange(n, dtype=np.uint64)[:, None].view(np.uint8)
    work = find_duplicates(frames, frame_size=512).work
    assert work.frames_compared == n - 1
    assert work.frames_hashed == 0
    frames[1:, 64] = 4  # now they also agree in the block where they differ from the first
    work = find_duplicates(frames, frame_size=512).work
    assert work.frames_compared == 2 * n - 3
    assert work.frames_hashed == n - 2


# --- what does not fit -------------------------------------------------------------------------------------------

PAGE = bytes(4096)
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: find_duplicates(PAGE, frame_size=0), ValueError, "frame_size is 0; .* from 8 to 1,073,741,824"),
    (lambda: find_duplicates(PAGE, frame_size=-4096), ValueError, "frame_size is -4,096;"),
    (lambda: find_duplicates(PAGE, frame_size=4), ValueError, "frame_size is 4;"),
    (lambda: find_duplicates(PAGE, frame_size=7), ValueError, "frame_size is 7;"),
    (lambda: find_duplicates(PAGE, frame_size=9), ValueError, "frame_size is 9; it must be a power of two"),
    (lambda: find_duplicates(PAGE, frame_size=4095), ValueError, "frame_size is 4,095;"),
    (lambda: find_duplicates(b"", frame_size=2 * GIB), ValueError, "frame_size is 2,147,483,648;"),
    (lambda: find_duplicates(PAGE, frame_size=4096.0), TypeError, "float"),
    (lambda: find_duplicates(PAGE + b"x"), ValueError, r"guest 0: 4,097 bytes .* frame size 4,096: 1 bytes too many"),
    (lambda: find_duplicates([PAGE, PAGE[:-1]]), ValueError, r"guest 1: 4,095 bytes .*: 4,095 bytes too many"),
    (
        lambda: find_duplicates([[Extent(0, PAGE), Extent(8192, PAGE[:8])]]),
        ValueError,
        r"guest 0: 8 bytes \(at address 0x2000\)",
    ),
    (lambda: find_duplicates([ZeroExtent(0, 5000)]), ValueError, "guest 0: 5,000 bytes .* 904 bytes too many"),
    (lambda: find_duplicates([ZeroExtent(0, -4096)]), ValueError, "guest 0: -4,096 bytes"),
    (lambda: find_duplicates([Extent(8, PAGE)]), ValueError, "guest 0: .* address 0x8, .* no multiple"),
    (lambda: find_duplicates([Extent(-4096, PAGE)]), ValueError, "guest 0: .* address -0x1000"),
    (lambda: find_duplicates([Extent(1 << 64, PAGE)]), ValueError, "guest 0: .* address 0x10000000000000000"),
    (lambda: find_duplicates([ZeroExtent((1 << 64) - 4096, 8192)]), ValueError, "guest 0: .* 0xfffffffffffff000"),
    (
        lambda: find_duplicates([PAGE, [Extent(0, PAGE * 2), Extent(4096, PAGE)]]),
        ValueError,
        "guest 1: the extent at 0x1000 overlaps the one at 0x0",
    ),
    (lambda: find_duplicates([Extent(4096, PAGE), Extent(0, PAGE)]), ValueError, "guest 0: the extent at 0x0 .* order"),
    (lambda: find_duplicates([PAGE], domains=[]), ValueError, "domains has 0 values for 1 guests"),
    (lambda: find_duplicates([PAGE], domains=[1, 2]), ValueError, "domains has 2 values for 1 guests"),
    (lambda: find_duplicates([PAGE], domains=[[]]), TypeError, "unhashable"),
    (lambda: find_duplicates(PAGE, threads=0), ValueError, "threads is 0; it must be 1 or more"),
    (lambda: find_duplicates(PAGE, threads=-1), ValueError, "threads is -1;"),
    (lambda: find_duplicates(PAGE, threads=1.5), TypeError, "float"),
    (lambda: find_duplicates(np.zeros(512)), ValueError, "frame_size is left out, .* items of 8 bytes"),
    (lambda: find_duplicates([PAGE, np.zeros(512, "u2")]), ValueError, "frame_size is left out, .* items of 2 bytes"),
    (lambda: find_duplicates(np.zeros((4096, 2), "u1")[:, 0]), BufferError, "guest 0: .* not C-contiguous"),
    (lambda: find_duplicates([PAGE, memoryview(PAGE * 2)[::2]]), BufferError, "guest 1: .* not C-contiguous"),
    (lambda: find_duplicates([PAGE, np.zeros((64, 64), "u1").T[:9]]), BufferError, "guest 1: .* not C-contiguous"),
    (lambda: find_duplicates([released()]), BufferError, "guest 0: its buffer cannot be read"),
    (lambda: find_duplicates(3), TypeError, "memory is a int; it must be a buffer"),
    (lambda: find_duplicates([PAGE, 3]), TypeError, "guest 1 is a int"),
    (lambda: find_duplicates([PAGE, "x"]), TypeError, "guest 1 is a str"),
    (lambda: find_duplicates([[Extent(0, PAGE), PAGE]]), TypeError, "guest 0 is a list"),
    (
        lambda: find_duplicates([Extent(0, PAGE), Extent(4096, "x")]),  # type: ignore[arg-type]
        TypeError,
        "guest 0: the extent at 0x1000 has a str for a buffer",
    ),
    (
        lambda: find_duplicates([ZeroExtent(0, 8 << 32)], frame_size=8),
        ValueError,
        "4,294,967,296 frames of 8 bytes; at most 4,294,967,295",
    ),
    (
        lambda: find_duplicates([[ZeroExtent(0, 4096 << 31)], [ZeroExtent(0, 4096 << 31)]]),
        ValueError,
        "4,294,967,296 frames of 4,096 bytes; at most 4,294,967,295",
    ),
    (lambda: find_duplicates(PAGE).coarsen(0), ValueError, "factor is 0; it must be a power of two"),
    (lambda: find_duplicates(PAGE).coarsen(-2), ValueError, "factor is -2;"),
    (lambda: find_duplicates(PAGE).coarsen(6), ValueError, "factor is 6;"),
    (lambda: find_duplicates(PAGE).coarsen(1 << 19), ValueError, "2,147,483,648 bytes; at most 1 GiB"),
]


def released() -> memoryview:
    view = memoryview(PAGE)
    view.release()
    return view


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_what_does_not_fit_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_the_largest_coarse_frame_fits() -> None:
    assert find_duplicates([ZeroExtent(0, GIB)]).coarsen(1 << 18).n_zero == 1


def engine(spans: list[Any], n: int = 0, canonical: Any = None, frame_size: int = 4096) -> Any:
    return dedupcore.find_duplicates(
        spans, np.empty(n, np.uint32) if canonical is None else canonical, frame_size=frame_size
    )


BY_THE_ENGINE: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: engine([(PAGE, 0, 2)], 2), ValueError, "2 frames of 4096 bytes from byte 0 .* buffer of 4096 bytes"),
    (lambda: engine([(PAGE, 1, 1)], 1), ValueError, "1 frames of 4096 bytes from byte 1 .* buffer of 4096 bytes"),
    (lambda: engine([(PAGE, 4097, 0)]), ValueError, "from byte 4097"),
    (lambda: engine([(PAGE, 0, 1 << 60)]), ValueError, "does not fit"),
    (lambda: engine([(PAGE, -1, 1)]), OverflowError, "negative"),
    (lambda: engine([(PAGE, 0, 1)], 2), ValueError, "canonical must hold 1 items of 4 bytes, not 2 of 4"),
    (lambda: engine([(None, 0, 1 << 63), (None, 0, 1 << 63)]), ValueError, re.escape("2^32 - 1 frames")),
    (lambda: engine([(None, 0, 0)], frame_size=12), ValueError, "out of its range"),
    (lambda: engine([(None, 0, 0)], frame_size=0), ValueError, "frame_size is 0"),
    (lambda: engine([(None, 0, 0)], frame_size=2 << 30), ValueError, "out of its range"),
    (
        lambda: engine([(PAGE, 0, 1)], canonical=bytes(4)),
        BufferError,
        "not writable",
    ),
    (
        lambda: engine([(PAGE, 0, 1)], canonical=bytearray(4)),
        ValueError,
        "canonical must hold 1 items of 4 bytes, not 4 of 1",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BY_THE_ENGINE)
def test_the_engine_checks_what_it_is_handed(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_counting_checks_what_it_is_handed() -> None:
    canonical, copies, owners = np.array([0, 0], np.uint32), np.zeros(2, np.uint32), np.zeros(2, np.uint32)
    assert count(canonical, [(0, 2, None)], copies, owners) == [(0, 1, 0)]
    assert (copies.tolist(), owners.tolist()) == ([2, 0], [1, 0])
    for guests in ([(0, 3, None)], [(2, 1, None)], [(-1, 1, None)]):
        with pytest.raises(ValueError, match="guest 0 has frames"):
            count(canonical, guests, copies, owners)
    with pytest.raises(ValueError, match="canonical has the frame 2, but there are 2 frames"):
        count(np.array([0, 2], np.uint32), [(0, 2, None)], copies, owners)
    with pytest.raises(ValueError, match="must have 2 items"):
        count(canonical, [(0, 2, None)], copies[:1], owners)


# --- progress and interruption -----------------------------------------------------------------------------------


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dedupcore")]


@pytest.mark.parametrize("threads", [1, 3])
def test_progress(threads: int) -> None:
    calls: list[tuple[str, int, int]] = []
    callers = set()

    def progress(phase: str, done: int, total: int) -> None:
        callers.add(threading.get_ident())
        calls.append((phase, done, total))

    memory = np.tile(np.frombuffer(noise(4 << 20), np.uint8), 2)
    find_duplicates(memory, threads=threads, progress=progress)
    assert callers == {threading.get_ident()}
    phases = [(phase, [call[1:] for call in some]) for phase, some in groupby(calls, lambda call: call[0])]
    assert [phase for phase, _ in phases] == ["sign", "partition", "group", "compare"]
    for _, steps in phases:
        assert len({total for _, total in steps}) == 1
        done = [at for at, _ in steps]
        assert done == sorted(done)
        assert done[-1] == steps[0][1]
        assert done[0] == 0 or threads > 1


@pytest.mark.parametrize("size", [8, 64, 4096])
def test_a_new_key_amid_a_call_changes_nothing(size: int) -> None:
    memory = np.tile(np.frombuffer(noise(4 << 20), np.uint8), 2)

    def progress(phase: str, done: int, total: int) -> None:
        dedupcore.set_key(None)

    found = find_duplicates(memory, frame_size=size, threads=1, progress=progress)
    assert np.array_equal(found.canonical, np.tile(np.arange((4 << 20) // size, dtype=np.uint32), 2))


class Stop(Exception):
    pass


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("phase", ["sign", "partition", "group", "compare"])
def test_what_progress_raises_ends_the_call(threads: int, error: type[BaseException], phase: str) -> None:
    seen = []

    def progress(at: str, done: int, total: int) -> None:
        seen.append(at)
        if at == phase:
            raise error

    memory = bytearray(2 * noise(8 << 20))
    with pytest.raises(error):
        find_duplicates(memory, threads=threads, progress=progress)
    assert seen.count(phase) == 1
    assert seen[-1] == phase
    assert own_threads() == []
    memory.append(0)  # nothing holds the buffer


@pytest.fixture
def endless() -> Iterator[list[Any]]:
    """Guests that take minutes to read and no memory to speak of: the kernel's zero page, terabytes of it."""
    with mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as sparse:
        yield [sparse] * 16384


@pytest.mark.parametrize("threads", [1, 3])
def test_other_threads_run_and_a_signal_ends_the_call(threads: int, endless: list[Any]) -> None:
    ticks = 0

    def stop(number: int, frame: object) -> None:
        raise Stop

    def tick() -> None:
        nonlocal ticks
        while ticks < 50:
            time.sleep(0.001)
            ticks += 1
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    started = time.monotonic()
    other = threading.Thread(target=tick)
    try:
        other.start()
        with pytest.raises(Stop):
            find_duplicates(endless, frame_size=1 << 20, threads=threads)
    finally:
        other.join()
        signal.signal(signal.SIGUSR1, before)
    assert ticks == 50
    assert time.monotonic() - started < 60  # with the GIL held, or deaf to signals, it goes on for minutes
    assert own_threads() == []


@pytest.mark.parametrize("size", [8, 64, 512, 4096])
def test_memory_that_changes_meanwhile(size: int) -> None:
    """The result describes no single moment, but it is one: the call ends, in bounds, and every frame has its class."""
    memory = np.zeros(1 << 20, np.uint8)
    rows = memory.reshape(-1, 512)
    stop = threading.Event()

    def scribble() -> None:
        dice = random.Random(0)
        while not stop.is_set():
            low = dice.randrange(2048)
            rows[low:, dice.randrange(512)] ^= dice.randrange(256)
            rows[low] = rows[low - 1]

    scribblers = [threading.Thread(target=scribble) for _ in range(2)]
    for scribbler in scribblers:
        scribbler.start()
    try:
        for turn in range(60):
            found = find_duplicates(memory, frame_size=size, threads=1 + turn % 3)
            assert found.canonical.max() < found.n_frames
            assert (found.canonical[found.canonical] == found.canonical).all()
            assert found.n_zero + found.n_distinct <= found.n_frames
    finally:
        stop.set()
        for scribbler in scribblers:
            scribbler.join()


def in_child(work: Callable[[], None]) -> int:
    """Runs work in a forked process; returns its exit status, SIGALRM if it hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork with threads running
        pid = os.fork()
    if pid == 0:
        status = 99
        try:
            signal.alarm(30)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_amid_a_call_is_safe() -> None:
    memory = 2 * noise(8 << 20)
    statuses: dict[str, int] = {}

    def work() -> None:
        assert find_duplicates(memory[: 4 << 20], threads=2).n_distinct == 1024

    def progress(phase: str, done: int, total: int) -> None:
        if phase not in statuses:
            statuses[phase] = in_child(work)

    found = find_duplicates(memory, threads=3, progress=progress)
    assert found.canonical.tolist() == [*range(2048)] * 2
    assert statuses == {"sign": 0, "partition": 0, "group": 0, "compare": 0}
    assert in_child(work) == 0


def test_memory_that_keeps_changing_is_given_up() -> None:
    memory = np.ones((1000, 4096), np.uint8)
    rounds = 0

    def spoil_the_lead(phase: str, done: int, total: int) -> None:
        nonlocal rounds
        if phase == "compare" and done == 0:
            memory[rounds, 2048] = 2  # the first of those that are left leads them
            rounds += 1

    with pytest.raises(RuntimeError, match="changes while it is read"):
        find_duplicates(memory, frame_size=4096, threads=1, progress=spoil_the_lead)
    assert 3 < rounds <= 16
    assert find_duplicates(memory, frame_size=4096).n_distinct == 2
