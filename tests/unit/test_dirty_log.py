"""The kernel's log of written pages against what the test wrote."""

import ctypes
import gc
import mmap
import os
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pagedup
from pagedup import DirtyLog
from pagedup.memory.live import pagemap_scan, userfaultfd
from tests.in_place_memory import LIBC, PAGE, guarded
from tests.processes import run_python

log_of_the_kernel = pytest.mark.userfaultfd

HUGE = 2 << 20


def memory(n: int) -> Any:
    """N pages that nobody has touched yet, in no huge page: uint8 (n, PAGE)."""
    array = guarded(n * PAGE)
    advise(array, mmap.MADV_NOHUGEPAGE)
    return array.reshape(n, PAGE)


def reserve(size: int) -> Any:
    """Addresses without memory, more than there is: uint8 (size,)."""
    no_reserve = 0x4000
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve), np.uint8)


def advise(array: np.ndarray, advice: int) -> None:
    address, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
    assert LIBC.madvise(address, size, advice) == 0


def is_watched(array: np.ndarray) -> bool:
    """What the kernel says of the mapping of a guarded array."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = int(line.split("-")[0], 16) == array.ctypes.data
        elif inside and line.startswith("VmFlags:"):
            return "uw" in line.split()
    raise AssertionError("there is no such mapping")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def taken(log: DirtyLog) -> list[int]:
    pages = log.take()
    assert pages.dtype == np.uint32 and pages.ndim == 1
    found: list[int] = pages.tolist()
    return found


@log_of_the_kernel
def test_example() -> None:
    ram = memory(100)
    ram[7] = 1
    with DirtyLog(ram) as log:
        assert taken(log) == [7]
        assert taken(log) == []
        ram[3, 17] = 1
        ram[7] = 1  # the same as before is a write, too
        ram[98:100] = 9
        assert taken(log) == [3, 7, 98, 99]
        assert taken(log) == []


@log_of_the_kernel
def test_a_page_that_was_only_read_is_told_once() -> None:
    ram = memory(10)
    with DirtyLog(ram) as log:
        ram[4].sum()
        assert taken(log) == [4]
        ram[4:6].sum()
        assert taken(log) == [5]
        ram[4] = 1
        assert taken(log) == [4]
        ram.sum()
        assert taken(log) == [0, 1, 2, 3, 6, 7, 8, 9]


@log_of_the_kernel
def test_what_was_never_touched_takes_no_memory() -> None:
    """Neither pages nor page tables."""
    ram = reserve(1 << 40)
    advise(ram, mmap.MADV_NOHUGEPAGE)
    tables = page_tables()
    with DirtyLog(ram) as log:
        assert taken(log) == []
        ram[5 * PAGE] = 1
        ram[-1] = 1
        assert taken(log) == [5, len(ram) // PAGE - 1]
        assert taken(log) == []
        assert page_tables() - tables < 64


def page_tables() -> int:
    """KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmPTE:"))


@log_of_the_kernel
@pytest.mark.parametrize("a_call", [1, 511, 512, 513, 1500, 4096])
def test_many_stretches(monkeypatch: pytest.MonkeyPatch, a_call: int) -> None:
    """More than are asked for at once, or than the kernel buffers."""
    monkeypatch.setattr(pagemap_scan, "_REGIONS_A_CALL", a_call)
    ram = memory(9000)
    ram[:] = 1
    with DirtyLog(ram) as log:
        assert taken(log) == list(range(9000))
        for step in (2, 3):
            ram[1::step, 0] = 2
            assert taken(log) == list(range(1, 9000, step))
            assert taken(log) == []


@log_of_the_kernel
def test_system_calls_that_write() -> None:
    """Of the kernel's own writes none is lost, though the userfaultfd is one for faults in user mode only."""
    ram = memory(64)
    ram[:] = 1
    with DirtyLog(ram) as log, open("/dev/zero", "rb", buffering=0) as zeros:
        log.take()
        assert os.preadv(zeros.fileno(), [ram[5:8], ram[20, 100:200]], 0) == 3 * PAGE + 100
        assert taken(log) == [5, 6, 7, 20]
        reading, writing = os.pipe()
        os.write(writing, b"abc")
        assert os.readv(reading, [ram[63]]) == 3
        os.close(reading)
        os.close(writing)
        assert taken(log) == [63]
        with open("/proc/self/mem", "r+b", buffering=0) as own:
            os.pwrite(own.fileno(), b"abc", ram.ctypes.data + 9 * PAGE)
        assert taken(log) == [9]


@log_of_the_kernel
def test_random_writes_and_copies() -> None:
    """What the log tells is what differs from a copy, and all that was written."""
    dice = np.random.default_rng(1)
    ram = memory(5000)
    ram[:] = dice.integers(0, 256, ram.shape, np.uint8)
    source = os.memfd_create("source")
    os.write(source, dice.bytes(ram.nbytes))
    with DirtyLog(ram) as log:
        log.take()
        copy = ram.copy()
        for _ in range(30):
            written = set()
            for _ in range(dice.integers(20)):
                first = int(dice.integers(len(ram)))
                end = min(len(ram), first + int(dice.integers(1, 40)))
                if dice.integers(2):
                    ram[first:end, dice.integers(PAGE)] += 1
                else:
                    os.preadv(source, [ram[first:end]], int(dice.integers(ram.nbytes // 2)))
                written |= set(range(first, end))
            scattered = dice.choice(len(ram), 50, replace=False)
            parts = [part.tolist() for part in np.array_split(scattered, 3)]
            threads = [threading.Thread(target=write_each, args=(ram, part)) for part in parts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            written |= set(scattered.tolist())
            pages = taken(log)
            assert pages == sorted(written)
            copy[pages] = ram[pages]
            assert np.array_equal(copy, ram)
    os.close(source)


def write_each(ram: np.ndarray, pages: Sequence[int]) -> None:
    for page in pages:
        ram[page] ^= 1


@log_of_the_kernel
def test_nothing_is_lost_while_others_write() -> None:
    """Threads write without Python's lock. A page that is copied before its last write comes again."""
    ram = memory(512)
    ram[:] = 1
    source = os.memfd_create("source")
    os.write(source, np.random.default_rng(1).bytes(ram.nbytes))
    done = threading.Event()

    def write(seed: int) -> None:
        dice = np.random.default_rng(seed)
        while not done.is_set():
            at = int(dice.integers(len(ram)))
            os.preadv(source, [ram[at : at + 8]], int(dice.integers(ram.nbytes // 2)))

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    with DirtyLog(ram) as log:
        copy = np.zeros_like(ram)
        for thread in threads:
            thread.start()
        for _ in range(300):
            pages = log.take()
            copy[pages] = ram[pages]
        done.set()
        for thread in threads:
            thread.join()
        pages = log.take()
        copy[pages] = ram[pages]
        assert np.array_equal(copy, ram)
        assert taken(log) == []
    os.close(source)


@log_of_the_kernel
def test_two_that_ask_at_once_share_the_pages() -> None:
    ram = memory(3000)
    found: list[int] = []
    with DirtyLog(ram) as log:
        ram[:] = 1
        threads = [threading.Thread(target=lambda: found.extend(log.take().tolist())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == list(range(3000))


@log_of_the_kernel
def test_huge_pages() -> None:
    """The first write gives memory to all pages of a huge page. After that, one page at a time."""
    area = pagedup.allocate(3 * HUGE)
    whole = -area.ctypes.data % HUGE
    ram = area[whole : whole + 2 * HUGE].reshape(-1, PAGE)
    advise(ram, mmap.MADV_HUGEPAGE)
    n = HUGE // PAGE
    ram[3] = 1
    if mapped(ram, n) < n:
        pytest.skip("the kernel gives no huge page")
    with DirtyLog(ram) as log:
        assert taken(log) == list(range(n))
        ram[5] = 1
        ram[n - 1] = 1
        assert taken(log) == [5, n - 1]
        ram[n + 7] = 1
        assert taken(log) == list(range(n, 2 * n))
        assert taken(log) == []
    assert np.flatnonzero(ram[:, 0]).tolist() == [3, 5, n - 1, n + 7]


def mapped(ram: np.ndarray, n: int) -> int:
    """How many of the first n pages have memory."""
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        entries = np.frombuffer(os.pread(pagemap.fileno(), 8 * n, ram.ctypes.data // PAGE * 8), np.uint64)
    return int(np.count_nonzero(entries >> np.uint64(63)))


@log_of_the_kernel
def test_fork() -> None:
    """The log stays with the parent's memory; what the child writes is the child's, and so is its own log."""
    ram = memory(10)
    ram[:] = 1
    log = DirtyLog(ram)
    log.take()
    ram[1] = 2
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ram[2] = 2
            with pytest.raises(RuntimeError, match="a child needs one of its own"):
                log.take()
            log.close()
            assert not is_watched(ram)
            with DirtyLog(ram) as own:
                own.take()
                ram[5] = 2
                assert taken(own) == [5]
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert taken(log) == [1]
    ram[[1, 3]] = 3
    assert taken(log) == [1, 3]
    log.close()


@log_of_the_kernel
def test_nothing_is_left_though_a_child_has_the_files() -> None:
    ram = memory(10)
    files = open_files()
    log = DirtyLog(ram)
    assert is_watched(ram)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 1)  # waits
        os._exit(0)
    os.close(reading)
    try:
        log.close()
        assert not is_watched(ram)
    finally:
        os.write(writing, b"!")
        os.waitpid(child, 0)
        os.close(writing)
    assert open_files() == files
    log.close()
    with pytest.raises(ValueError, match="the log is closed"):
        log.take()


@log_of_the_kernel
def test_a_log_that_nobody_holds_ends() -> None:
    ram = memory(10)
    files = open_files()
    log = DirtyLog(ram)
    assert repr(log) == "<DirtyLog: 10 pages>"
    del log
    gc.collect()
    assert not is_watched(ram)
    assert open_files() == files
    with DirtyLog(ram) as log:
        ram[1] = 1
        assert taken(log) == [1]
    assert repr(log) == "<DirtyLog: 10 pages, closed>"


@log_of_the_kernel
def test_one_log_at_a_time() -> None:
    """Beside each other many, even on parts of one mapping."""
    ram = memory(10)
    files = open_files()
    with DirtyLog(ram[:4]) as left, DirtyLog(ram[4:]) as right:
        with pytest.raises(OSError, match="the memory of array is watched already"):
            DirtyLog(ram[3:5])
        ram[3:5] = 1
        assert taken(left) == [3]
        assert taken(right) == [0]
    assert open_files() == files
    with DirtyLog(ram):
        pass


@log_of_the_kernel
def test_it_keeps_the_array_alive() -> None:
    ram = memory(1000)
    ram[7] = 1
    log = DirtyLog(ram)
    del ram
    gc.collect()
    assert taken(log) == [7]
    log.close()


@log_of_the_kernel
def test_after_discarding() -> None:
    """A page that is discarded has no memory, so it is told when it has some again."""
    ram = memory(10)
    ram[:] = 1
    with DirtyLog(ram) as log:
        log.take()
        advise(ram[2:5], mmap.MADV_DONTNEED)
        assert taken(log) == []
        ram[3] = 1
        assert taken(log) == [3]
        ram[3] = 2
        assert taken(log) == [3]


@log_of_the_kernel
def test_without_rights() -> None:
    done = run_python(
        """
        import ctypes, os, numpy as np, pagedup
        ram = pagedup.allocate(100 * 4096 * 16)
        log = pagedup.DirtyLog(ram)  # what it imports nobody may not be allowed to read
        log.close()
        if os.getuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
            ctypes.CDLL(None).prctl(4, 1)  # as it is in a program that is started without rights: PR_SET_DUMPABLE
        ram[:] = 1
        with pagedup.DirtyLog(ram) as log, open("/dev/zero", "rb", buffering=0) as zeros:
            print(len(log.take()) * os.sysconf("SC_PAGE_SIZE") == len(ram), log.take().tolist())
            zeros.readinto(ram[:1])
            print(log.take().tolist())
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True []\n[0]\n"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (lambda: memory(3).reshape(-1)[16 : 16 + 2 * PAGE], "begins 16 bytes behind the beginning of a page"),
        (lambda: memory(3).reshape(-1)[:-1], f"has {3 * PAGE - 1:,} bytes; a log is of whole pages of {PAGE:,}"),
        (lambda: memory(1)[:0], "has 0 bytes"),
        (lambda: memory(3)[::2], "not contiguous"),
        (lambda: np.frombuffer(mmap.mmap(-1, 2 * PAGE), np.uint8), "shared with others"),
    ],
)
def test_unsuitable_arrays(array: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DirtyLog(array())


def test_other_errors(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="array is a bytes; it must be a NumPy array"):
        DirtyLog(b"abc")  # type: ignore[arg-type]
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * PAGE))
    with pytest.raises(ValueError, match=f"the memory of array is a file \\({path}\\)"):
        DirtyLog(np.memmap(path, mode="c"))
    with pytest.raises(ValueError, match="4,294,967,296 pages"):
        DirtyLog(reserve((1 << 32) * PAGE))


@log_of_the_kernel
def test_memory_that_is_shared_in_place() -> None:
    ram = memory(10)
    ram[:] = 1
    pagedup.share_in_place([ram])
    with pytest.raises(ValueError, match="the memory of array is a file"):
        DirtyLog(ram)
    other = memory(10)
    other[:] = 1
    with DirtyLog(other):
        assert [left.why for left in pagedup.share_in_place([other]).left] == ["watched by userfaultfd"]


def test_kernels_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ram = memory(1)
    files = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(userfaultfd, "_SYSCALL", {platform.machine(): 1 << 20})
        with pytest.raises(OSError, match="the system call userfaultfd, which fails: Function not implemented"):
            DirtyLog(ram)
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "vax")
        with pytest.raises(OSError, match="cannot be kept on vax"):
            DirtyLog(ram)
    assert open_files() == files


@log_of_the_kernel
@pytest.mark.parametrize("name", ["_WP_ASYNC", "_USER_MODE_ONLY"])
def test_kernels_that_are_too_old(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """To ask for what no kernel has is as to ask an old one for what it lacks."""
    files = open_files()
    monkeypatch.setattr(userfaultfd, name, getattr(userfaultfd, name) | 1 << 30)
    with pytest.raises(OSError, match=r"a dirty log needs Linux 6\.7 or newer; this is "):
        DirtyLog(memory(1))
    assert open_files() == files
