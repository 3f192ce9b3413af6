"""Calls side by side: every one is right, whatever else runs."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

import dedupcore
from pagedup import find_duplicates

SIZES = [8, 64, 512, 4096]


def memory_of(seed: int, size: int) -> NDArray[np.uint64]:
    """About 1 MiB: a third duplicates, some zero, some alike."""
    dice = np.random.default_rng(seed)
    n = (1 << 20) // size
    frames = np.full((n, size // 8), 9 * (seed % 2), np.uint64)
    frames[:, size // 16] = dice.integers(0, n, n, np.uint64)
    return frames


def right_answer(frames: NDArray[np.uint64]) -> list[int]:
    first: dict[bytes, int] = {}
    return [first.setdefault(frame.tobytes(), i) for i, frame in enumerate(frames)]


@pytest.fixture(scope="module")
def tasks() -> list[tuple[NDArray[np.uint64], int, list[int]]]:
    made = [(memory_of(seed, size), size) for seed in range(3) for size in SIZES]
    return [(frames, size, right_answer(frames)) for frames, size in made]


def together(*works: Callable[[], None]) -> None:
    """Runs all at once; raises what one of them raised."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        start.wait(30)
        work()

    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(run, work) for work in works]:
            future.result()


@pytest.mark.parametrize("inner", [1, 3])
def test_calls_side_by_side(tasks: list[tuple[NDArray[np.uint64], int, list[int]]], inner: int) -> None:
    def work() -> None:
        for frames, size, expected in tasks:
            assert find_duplicates(frames, frame_size=size, threads=inner).canonical.tolist() == expected

    before = threading.active_count()
    together(*[work] * 4)
    assert threading.active_count() == before


def test_one_memory_for_all(tasks: list[tuple[NDArray[np.uint64], int, list[int]]]) -> None:
    frames, size, expected = tasks[-1]

    def work() -> None:
        for _ in range(20):
            assert find_duplicates(frames, frame_size=size, threads=2).canonical.tolist() == expected

    together(*[work] * 4)


def test_a_result_is_shared_by_threads(tasks: list[tuple[NDArray[np.uint64], int, list[int]]]) -> None:
    frames, size, _ = tasks[0]
    found = find_duplicates(frames, frame_size=size)
    alone = find_duplicates(frames, frame_size=size)
    within, coarse, pairs = alone.within_guests().tolist(), alone.coarsen(2).canonical.tolist(), alone.pairs().tolist()

    def work() -> None:
        assert found.within_guests().tolist() == within
        assert found.coarsen(2).canonical.tolist() == coarse
        assert found.pairs().tolist() == pairs

    together(*[work] * 4)


def test_a_new_key_meanwhile_changes_no_result(tasks: list[tuple[NDArray[np.uint64], int, list[int]]]) -> None:
    frames, size, expected = tasks[2]
    done = threading.Event()

    def rekey() -> None:
        while not done.is_set():
            dedupcore.set_key(None)

    def work() -> None:
        try:
            for _ in range(60):
                assert find_duplicates(frames, frame_size=size, threads=2).canonical.tolist() == expected
        finally:
            done.set()

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        together(rekey, work)
    finally:
        sys.setswitchinterval(switch)


def test_mapped_files_come_and_go_in_all_threads(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("maps")

    def work() -> None:
        path = folder / str(threading.get_ident())
        for turn in range(100):
            path.write_bytes(bytes([turn + 1]) * 8192)
            with path.open("r+b") as file:
                mapped = dedupcore.MappedFile(file.fileno(), 8192)
                file.truncate(4096)
            assert bytes(memoryview(mapped)) == bytes([turn + 1]) * 4096 + bytes(4096)
            assert mapped.shrank
            mapped.close()

    together(*[work] * 4)


def test_guests_are_made_side_by_side() -> None:
    """Each by its own key, and as it is when made alone."""
    n = 20_000

    def guest(key: int) -> bytes:
        places, names, regions = np.zeros(n, np.uint32), np.zeros(n, np.uint64), np.zeros(n, np.uint8)
        numbers, frames = np.zeros(n, np.uint16), np.zeros(n * 64, np.uint8)
        dedupcore.place(key, n, 0.9, np.array([n // 2, n // 2]), b"\x09\x00", np.array([-1, -1]), places)
        common, values, chances = np.arange(n, dtype=np.uint64), np.zeros(1, np.uint64), np.array([1 << 30], np.uint32)
        kinds = np.zeros(n, np.uint8)
        dedupcore.name_pages(places, common, numbers, kinds, values, chances, 1 << 60, key, names, regions)
        dedupcore.materialize(names, frames, 64, dedupcore.MIXED)
        return frames.tobytes()

    alone = [guest(key) for key in range(4)]
    assert len(set(alone)) == 4

    def work() -> None:
        for _ in range(5):
            assert [guest(key) for key in range(4)] == alone

    together(*[work] * 4)


@pytest.mark.parametrize("started", [0, 1])
def test_threads_that_cannot_be_started(started: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a limit on processes is reached: the call says so, or does without; nothing is left behind."""
    real, count = threading.Thread.start, iter(range(100))

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("dedupcore") and next(count) >= started:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    memory = bytearray(2 * np.random.default_rng(0).bytes(8 << 20))
    try:
        found = find_duplicates(memory, threads=4)
    except RuntimeError as error:
        assert str(error) == "can't start new thread"
    else:
        assert found.canonical.tolist() == [*range(2048)] * 2
        del found
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dedupcore")]
    memory.append(0)  # nothing holds the buffer
