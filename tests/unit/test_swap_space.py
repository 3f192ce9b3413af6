"""Swap on disk and of names: slots, checks, and what the kernel knows of the file."""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dedupcore
from pagedup.swap import SwapCorrupt, SwapFile, SwapNames, SwapSpace
from tests.swap_files import flip


def frames(n: int, seed: int = 0, size: int = 4096) -> Any:
    return np.random.default_rng(seed).integers(1, 256, (n, size), np.uint8)


def names(n: int, seed: int = 0) -> Any:
    return frames(n, seed, 8)


SPACES: list[Callable[[int], SwapSpace]] = [SwapNames, SwapFile, lambda n: SwapFile(n, 64)]


@pytest.fixture(params=SPACES, ids=["names", "file", "short frames"])
def space(request: pytest.FixtureRequest) -> Any:
    with request.param(300) as made:
        yield made


def some(space: SwapSpace, n: int, seed: int = 0) -> Any:
    return frames(n, seed, space.frame_size)


def test_what_is_put_comes_back(space: SwapSpace) -> None:
    data = some(space, 200)
    put = space.put(data)
    assert put.error is None and put.slots.dtype == np.uint32 and put.slots.tolist() == list(range(200))
    out = np.zeros_like(data)
    space.get(put.slots, out)
    assert (out == data).all()
    order = np.array([7, 199, 7, 0, 150, 8, 9])
    space.get(order, out[:7])
    assert (out[:7] == data[order]).all()


def test_names_as_integers() -> None:
    with SwapNames(10) as swap:
        data = np.array([3, 0, 2**64 - 1], np.uint64)
        out = np.ones(3, np.uint64)
        swap.get(swap.put(data).slots, out)
        assert out.tolist() == data.tolist()


def test_the_lowest_free_slots(space: SwapSpace) -> None:
    space.put(some(space, 100))
    space.free([5, 3, 50, 4])
    put = space.put(some(space, 6, seed=1))
    assert put.slots.tolist() == [3, 4, 5, 50, 100, 101]
    out = some(space, 6)
    space.get(put.slots, out)
    assert (out == some(space, 6, seed=1)).all()
    assert space.used == 102


def test_more_than_there_are_slots(space: SwapSpace) -> None:
    put = space.put(some(space, 301))
    assert len(put.slots) == 300 and put.error is not None
    assert put.error.errno == errno.ENOSPC and "all 300 slots" in str(put.error)
    assert space.put(some(space, 1)).error is not None
    space.free([299])
    assert space.put(some(space, 1)).slots.tolist() == [299]
    assert space.put(some(space, 0)).error is None


def test_transfers_are_counted_alike() -> None:
    """Names count what a file of pages needs; runs are cut at 256 pages."""
    counts = []
    for swap, size in ((SwapFile(2000), 4096), (SwapNames(2000), 8)):
        with swap:
            swap.free(swap.put(frames(513, size=size)).slots)  # 256, 256, 1
            swap.put(frames(600, size=size))  # 256, 256, 88
            swap.free(np.arange(0, 600, 2))
            swap.put(frames(301, size=size))  # 300 holes, and slot 600
            swap.get(np.arange(1, 600)[::-1], frames(599, size=size))  # 256, 256, 87
            swap.get([3, 3, 9], frames(3, size=size))
            counts.append(swap.counts())
    assert counts[0][:6] == counts[1][:6] == (2000, 601, 1414, 602, 307, 6)
    assert counts[0].bytes_out == 1414 * 4096 and counts[0].bytes_in == 602 * 4096
    assert counts[1][6:] == (0, 0)


@settings(max_examples=60)
@given(steps=st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.randoms(use_true_random=False)), max_size=12))
def test_slots_beside_a_dict(steps: list[Any]) -> None:
    with SwapFile(64, 64) as swap:
        held: dict[int, bytes] = {}
        for k, (n, put, dice) in enumerate(steps):
            if put:
                free = [slot for slot in range(64) if slot not in held]
                data = frames(n, k, 64)
                stored = swap.put(data)
                assert stored.slots.tolist() == free[:n] and (stored.error is None) == (n <= len(free))
                held.update(zip(stored.slots.tolist(), map(bytes, data), strict=False))
            else:
                gone = dice.sample(sorted(held), min(n, len(held)))
                swap.free(gone)
                for slot in gone:
                    del held[slot]
            out = np.zeros((len(held), 64), np.uint8)
            swap.get(list(held), out)
            assert [bytes(each) for each in out] == list(held.values())
            assert swap.used == len(held)


def test_the_file_is_private_and_has_no_name(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with SwapFile(10, directory=tmp_path) as swap:
            swap.put(frames(3))
            entry = os.readlink(f"/proc/self/fd/{swap.fileno()}")
            status = os.stat(f"/proc/self/fd/{swap.fileno()}")
            assert entry.startswith(str(tmp_path)) and entry.endswith("(deleted)") and not list(tmp_path.iterdir())
            assert stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600
            assert status.st_nlink == 0 and status.st_uid == os.geteuid()
            assert not os.get_inheritable(swap.fileno())
            with pytest.raises(OSError):  # nor can it be given one
                os.link(f"/proc/self/fd/{swap.fileno()}", tmp_path / "name", follow_symlinks=True)
    finally:
        os.umask(before)


def test_a_file_system_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refusing(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)
    with SwapFile(10, directory=tmp_path) as swap:
        assert not list(tmp_path.iterdir())
        status = os.fstat(swap.fileno())
        assert stat.S_IMODE(status.st_mode) == 0o600 and status.st_nlink == 0
        swap.get(swap.put(frames(3)).slots, frames(3))


def test_past_the_page_cache_where_that_is_possible(tmp_path: Path) -> None:
    try:
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT))
        possible = True
    except OSError:
        possible = False
    with SwapFile(10, directory=tmp_path) as swap:
        flags = fcntl.fcntl(swap.fileno(), fcntl.F_GETFL)
        assert swap.direct == possible == bool(flags & os.O_DIRECT)
    with SwapFile(10, 2048, directory=tmp_path) as swap:  # its transfers would not be aligned
        assert not swap.direct and not fcntl.fcntl(swap.fileno(), fcntl.F_GETFL) & os.O_DIRECT


def test_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with SwapFile(1) as swap:
        assert os.readlink(f"/proc/self/fd/{swap.fileno()}").startswith(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        SwapFile(1, directory=tmp_path / "none")


@pytest.mark.parametrize("size", [64, 4096, 1 << 21])
def test_corrupt_slots_are_named_and_the_others_right(size: int) -> None:
    n = 3 if size > 4096 else 40
    with SwapFile(n, size) as swap:
        data = frames(n, size=size)
        swap.put(data)
        bad = [1] if n == 3 else [0, 7, 8, 39]
        for slot in bad:
            flip(swap, slot, slot % size)
        out = np.full_like(data, 0xEE)
        with pytest.raises(SwapCorrupt, match=f"slot {bad[0]}") as error:
            swap.get(np.arange(n)[::-1], out)
        assert error.value.slots == tuple(bad) and isinstance(error.value, ValueError)
        for slot in range(n):
            assert (out[n - 1 - slot] == (0 if slot in bad else data[slot])).all()
        swap.free(bad)
        swap.put(data[bad])  # written anew, it is right again
        swap.get(np.arange(n), out)
        assert (out == data).all()


def test_a_page_in_the_wrong_slot_is_noticed() -> None:
    with SwapFile(4) as swap:
        swap.put(frames(2))
        with open(f"/proc/self/fd/{swap.fileno()}", "r+b") as file:
            first = file.read(4096)
            file.write(first)
        with pytest.raises(SwapCorrupt) as error:
            swap.get([0, 1], frames(2))
        assert error.value.slots == (1,)


def test_a_file_cut_short_is_noticed() -> None:
    with SwapFile(10) as swap:
        data = frames(10)
        data[7] = 0
        swap.put(data)
        with open(f"/proc/self/fd/{swap.fileno()}", "r+b") as file:
            file.truncate(5 * 4096 + 100)
        out = np.full_like(data, 0xEE)
        with pytest.raises(SwapCorrupt) as error:
            swap.get(np.arange(10), out)
        assert error.value.slots == (5, 6, 8, 9)  # zero bytes are what 7 held
        assert (out[:5] == data[:5]).all() and not out[5:].any()


def test_another_key_of_the_process_changes_nothing() -> None:
    try:
        with SwapFile(10) as swap:
            swap.put(frames(10))
            dedupcore.set_key(99)
            swap.get(np.arange(10), frames(10))
    finally:
        dedupcore.set_key(None)


def test_a_fork_must_not_write_into_it() -> None:
    with SwapFile(10) as swap:
        swap.put(frames(3))
        child = os.fork()
        if not child:
            try:
                swap.put(frames(1))
            except RuntimeError as error:
                os._exit(7 if "fork" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        out = np.zeros((3, 4096), np.uint8)
        swap.get([0, 1, 2], out)
        assert (out == frames(3)).all()


def test_threads_wait_for_each_other(space: SwapSpace) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for step in range(30):
                data = some(space, 20, 100 * seed + step)
                slots, out = space.put(data).slots, np.zeros_like(data)
                space.get(slots, out)
                assert (out == data).all()
                space.free(slots)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and space.used == 0


def test_wrong_arguments(space: SwapSpace) -> None:
    space.put(some(space, 5))
    before = space.counts()
    size = space.frame_size
    with pytest.raises(ValueError, match=r"slots\[1\] is 5, which is free"):
        space.free([4, 5])
    with pytest.raises(ValueError, match="slots has 4 twice"):
        space.free([4, 2, 4])
    with pytest.raises(ValueError, match=r"slots\[0\] is 300; there are 300 slots"):
        space.get([300], some(space, 1))
    with pytest.raises(ValueError, match=r"slots\[0\] is 7, which is free"):
        space.get([7], some(space, 1))
    with pytest.raises(ValueError, match=r"out has the shape \(2, "):
        space.get([1], some(space, 2))
    with pytest.raises(ValueError, match="writable"):
        space.get([1, 2], some(space, 4)[::2])
    with pytest.raises(ValueError, match="frames has the shape"):
        space.put(np.zeros((3, size + 1), np.uint8))
    with pytest.raises(TypeError, match="frames has the dtype float64"):
        space.put(np.zeros((3, size)))
    with pytest.raises(TypeError, match="frames is a bytes"):
        space.put(b"abc")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="integers"):
        space.free([0.5])
    assert space.counts() == before
    space.close()
    space.close()
    for call in (lambda: space.put(some(space, 1)), lambda: space.get([1], some(space, 1)), lambda: space.free([1])):
        with pytest.raises(ValueError, match="closed"):
            call()


@pytest.mark.parametrize("slots", [0, 2**31 - 1])
def test_a_number_of_slots_out_of_range(slots: int) -> None:
    for make in (SwapNames, SwapFile):
        with pytest.raises(ValueError, match="slots is"):
            make(slots)


@pytest.mark.parametrize("size", [4, 100, 2**31])
def test_a_frame_size_out_of_range(size: int) -> None:
    with pytest.raises(ValueError, match="frame_size is"):
        SwapFile(1, size)
