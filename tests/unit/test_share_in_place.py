"""Sharing in place: the bytes stay, the memory goes, and each write stays the writer's own."""

import ctypes
import errno
import gc
import mmap
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pagedup
from pagedup.memory.live import pagemap_scan
from pagedup.memory.live.smaps import Mapping, read_mappings
from pagedup.sharing.in_place import backing
from pagedup.sharing.in_place.suitable import with_keys
from tests.in_place_memory import LIBC, PAGE, guarded, held
from tests.processes import run_python, under_sanitizer

MADV_DONTNEED, MADV_FREE, MADV_DONTFORK, MADV_WIPEONFORK, MADV_DONTDUMP = 4, 8, 10, 18, 16


def memory(contents: list[int]) -> np.ndarray:
    """A page for each number; equal numbers are equal pages, 0 is zero, and -1 is a page that is never touched."""
    array = guarded(len(contents) * PAGE)
    for i, content in enumerate(contents):
        if content >= 0:
            page = array[i * PAGE : (i + 1) * PAGE]
            page[:] = 0 if content == 0 else np.random.default_rng(content).integers(0, 256, PAGE, np.uint8)
    return array


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def stored_bytes(result: pagedup.InPlace) -> int:
    """What the files take that hold the copies."""
    return sum(os.fstat(b.file.fd).st_blocks * 512 for b in result._backings if b.file is not None)


def advise(array: np.ndarray, advice: int) -> None:
    assert LIBC.madvise(ctypes.c_void_p(address(array)), ctypes.c_size_t(array.nbytes), advice) == 0


def reasons(result: pagedup.InPlace) -> dict[str, int]:
    return {left.why: left.bytes for left in result.left}


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Whatever a test does, once its arrays are gone no file and no mapping of it is left."""
    gc.collect()
    before = set(backing._open)
    yield
    gc.collect()
    assert set(backing._open) == before


def test_the_example() -> None:
    array = memory([1, 2, 0, 1, 2, 3])
    before = array.copy()
    result = pagedup.share_in_place([array])
    assert np.array_equal(array, before)
    assert (result.pages, result.zero_pages, result.shared_pages, result.stored_pages) == (6, 1, 4, 2)
    assert (result.saved_pages, result.saved_bytes, result.left) == (3, 3 * PAGE, ())
    assert held(array) == 3
    assert abs(result.mappings - Path("/proc/self/maps").read_text().count("\n")) < 10
    assert result.max_mappings == int(Path("/proc/sys/vm/max_map_count").read_text())
    assert repr(result).startswith(f"<InPlace: {3 * PAGE:,} bytes saved; 1 zero pages, 4 others on 2 stored copies")


def test_a_write_is_the_writers_own() -> None:
    array = memory([1, 1, 1, 0, 0])
    before = array.copy()
    pagedup.share_in_place([array])
    array[PAGE + 5] ^= 255
    array[3 * PAGE] = 7
    before[PAGE + 5] ^= 255
    before[3 * PAGE] = 7
    assert np.array_equal(array, before)


def test_pages_that_were_never_touched_take_nothing_and_save_nothing() -> None:
    array = memory([-1] * 100 + [1, 1])
    result = pagedup.share_in_place([array])
    assert (result.pages, result.zero_pages, result.shared_pages) == (102, 0, 2)
    assert held(array) <= 1


def test_several_arrays_and_overlapping_ones() -> None:
    whole, other = memory([1, 2, 3, 4]), memory([4, 3, 2, 9])
    before = whole.copy(), other.copy()
    result = pagedup.share_in_place([whole, whole[PAGE:], whole[: 2 * PAGE].view(np.uint64), other])
    assert (result.pages, result.shared_pages, result.stored_pages) == (8, 6, 3)
    assert np.array_equal(whole, before[0]) and np.array_equal(other, before[1])


@pytest.mark.parametrize("start", [0, 1, 4095, 4096, 5000])
@pytest.mark.parametrize("length", [0, 1, PAGE - 1, PAGE, 2 * PAGE, 3 * PAGE + 17])
def test_parts_of_pages_stay_as_they_are(start: int, length: int) -> None:
    array = memory([1] * 8)
    before = array.copy()
    part = array[start : start + length]
    result = pagedup.share_in_place([part])
    first, last = -(-start // PAGE), (start + length) // PAGE
    whole = max(0, last - first)
    assert result.pages == whole
    assert result.shared_pages == (whole if whole > 1 else 0)
    assert sum(left.bytes for left in result.left) == length - whole * PAGE
    assert np.array_equal(array, before)


def test_a_small_array_of_the_heap() -> None:
    array = np.zeros(100, np.uint8)
    result = pagedup.share_in_place([array])
    assert (result.pages, result.saved_bytes) == (0, 0)
    assert reasons(result) == {"in pages that the arrays have a part of only": 100}


def test_no_array_at_all() -> None:
    assert pagedup.share_in_place([]).saved_bytes == 0


def test_numpys_own_memory() -> None:
    """In a process of its own: malloc may give out a part of its heap once that is large enough."""
    done = run_python(
        """
        import mmap
        import numpy as np
        import pagedup
        array = np.ones(64 << 20, np.uint8)
        mappings = pagedup.share_in_place([]).mappings
        result = pagedup.share_in_place([array])
        assert result.shared_pages == result.pages >= (64 << 20) // mmap.PAGESIZE - 1, result.left
        assert result.stored_pages <= 32 and result.mappings < mappings + 700, result
        assert array.min() == array.max() == 1
        """
    )
    assert done.returncode == 0, done.stderr


def test_a_read_only_array_and_read_only_memory() -> None:
    array = memory([1, 1, 2, 2])
    before = array.copy()
    array.flags.writeable = False
    assert LIBC.mprotect(ctypes.c_void_p(address(array)), ctypes.c_size_t(array.nbytes), mmap.PROT_READ) == 0
    result = pagedup.share_in_place([array])
    assert result.saved_pages == 2
    rights = {m.permissions for m in backing.read_own_mappings() if m.path.startswith("/memfd:pagedup")}
    assert rights == {"r--p"}
    assert np.array_equal(array, before)


@pytest.mark.parametrize(
    ("advice", "why"),
    [
        (MADV_DONTFORK, "not copied by fork"),
        (MADV_WIPEONFORK, "wiped by fork"),
        (MADV_DONTDUMP, "kept out of core dumps"),
    ],
)
def test_memory_with_a_property_that_would_be_lost(advice: int, why: str) -> None:
    array = memory([1, 1, 0, 1])
    advise(array[PAGE:], advice)
    result = pagedup.share_in_place([array])
    assert reasons(result) == {why: 3 * PAGE}
    assert (result.pages, result.saved_bytes) == (1, 0)
    assert held(array) == 4


@pytest.mark.skipif(under_sanitizer(), reason="AddressSanitizer makes nothing of mlock")
def test_locked_memory() -> None:
    array = memory([1, 1])
    if LIBC.mlock(ctypes.c_void_p(address(array)), ctypes.c_size_t(array.nbytes)):
        pytest.skip("mlock is not allowed here")
    assert reasons(pagedup.share_in_place([array])) == {"locked by mlock": 2 * PAGE}


@pytest.mark.skipif(under_sanitizer(), reason="AddressSanitizer makes nothing of mlockall")
def test_memory_that_will_be_locked() -> None:
    done = run_python(
        """
        import ctypes, mmap
        import pagedup
        array = pagedup.allocate(4 * mmap.PAGESIZE)
        array[:] = 1
        if ctypes.CDLL(None).mlockall(2):  # MCL_FUTURE
            print("not allowed")
        else:
            print([(left.why, left.bytes // mmap.PAGESIZE) for left in pagedup.share_in_place([array]).left])
        """
    )
    if done.stdout == "not allowed\n":
        pytest.skip("mlockall is not allowed here")
    assert done.stdout == "[('what is mapped is locked by mlockall', 4)]\n", done.stderr


def test_shared_memory_and_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\1" * 2 * PAGE)
    shared = np.frombuffer(mmap.mmap(-1, 2 * PAGE), np.uint8)
    with path.open("r+b") as file:
        private = np.frombuffer(mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE), np.uint8)
        both = np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8)
    result = pagedup.share_in_place([shared, private, both])
    assert reasons(result) == {"shared with others": 4 * PAGE, "a mapping of a file": 2 * PAGE}
    assert result.pages == 0


def test_hugetlbfs() -> None:
    try:
        area = mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
    except OSError:
        pytest.skip("no huge pages are set aside")
    array = np.frombuffer(area, np.uint8)
    array[:] = 1
    (left,) = pagedup.share_in_place([array]).left
    assert left.bytes == 2 << 20 and "hugetlbfs" in left.why


def test_memory_that_userfaultfd_watches() -> None:
    number = {"x86_64": 323, "aarch64": 282}.get(os.uname().machine)
    fd = LIBC.syscall(number, os.O_CLOEXEC | 1) if number else -1
    if fd < 0:
        pytest.skip("userfaultfd is not allowed here")
    import fcntl
    import struct

    array = memory([1, 1])
    fcntl.ioctl(fd, 0xC018AA3F, bytearray(struct.pack("=QQQ", 0xAA, 0, 0)))  # UFFDIO_API
    fcntl.ioctl(fd, 0xC020AA00, bytearray(struct.pack("=QQQQ", address(array), array.nbytes, 1, 0)))  # _REGISTER
    result = pagedup.share_in_place([array])
    os.close(fd)
    assert reasons(result) == {"watched by userfaultfd": 2 * PAGE}


def test_memory_under_a_protection_key() -> None:
    array = memory([1, 1, 1, 1])
    key = LIBC.pkey_alloc(0, 0)
    if key < 0:
        pytest.skip("the machine has no protection keys")
    at = ctypes.c_void_p(address(array) + PAGE)
    assert LIBC.pkey_mprotect(at, ctypes.c_size_t(PAGE), ctypes.c_int(3), ctypes.c_int(key)) == 0
    result = pagedup.share_in_place([array])
    assert reasons(result) == {"under a protection key": PAGE}
    assert result.shared_pages == 3
    assert LIBC.pkey_mprotect(at, ctypes.c_size_t(PAGE), ctypes.c_int(3), ctypes.c_int(0)) == 0
    assert LIBC.pkey_free(key) == 0


def test_which_mappings_have_a_protection_key() -> None:
    def mapping(start: int, key: int) -> str:
        return f"{start:x}-{start + 4096:x} rw-p 0 00:00 0 \nSize: 4 kB\nProtectionKey: {key:9}\nVmFlags: rd wr\n"

    keys = [3, 0, 12, 0, 1]
    text = "".join(mapping(0x1000 * (i + 1), key) for i, key in enumerate(keys))
    assert with_keys(text.encode()) == {0x1000, 0x3000, 0x5000}
    untold = "9000-a000 rw-p 0 00:00 0 \nSize: 4 kB\nVmFlags: rd\n"
    assert with_keys((text + untold).encode()) == {0x1000, 0x3000, 0x5000}
    assert with_keys(b"") == frozenset()


def test_the_heap_is_left_alone() -> None:
    done = run_python(
        """
        import ctypes, numpy as np, pagedup
        libc = ctypes.CDLL(None)
        libc.sbrk.restype = ctypes.c_void_p
        start = libc.sbrk(ctypes.c_long(1 << 20))
        array = np.frombuffer((ctypes.c_uint8 * (1 << 20)).from_address(start), np.uint8)
        array[:] = 1
        for left in pagedup.share_in_place([array]).left:
            print(left.why)
        """
    )
    assert done.returncode == 0, done.stderr
    assert "the heap of malloc; pagedup.allocate gives memory of its own" in done.stdout


def distinct(array: np.ndarray) -> int:
    """Different contents that are not zero."""
    return pagedup.find_duplicates(array).n_distinct


def test_memory_like_that_of_guests() -> None:
    """Guests of mostly zero pages, whose others are in runs that stand elsewhere too: first so, then after writes."""
    rng = np.random.default_rng(0)
    n = 20_000
    array = guarded(n * PAGE)
    pages = array.reshape(n, PAGE)
    at = 0
    while at < n:
        length = min(int(rng.geometric(0.25)), n - at)
        kind = rng.random()
        if kind < 0.2:
            pages[at : at + length] = rng.integers(0, 256, (length, PAGE), np.uint8)
        elif kind < 0.5 and at > length:
            start = int(rng.integers(0, at - length))
            pages[at : at + length] = pages[start : start + length]
        elif kind < 0.7:
            pages[at : at + length] = 0  # written, so that there is memory
        at += length
    before = array.copy()
    results = [pagedup.share_in_place([array])]
    assert np.array_equal(array, before)
    assert held(array) <= 1.05 * distinct(array)
    for i in rng.choice(n, n // 10, replace=False).tolist():
        pages[i, rng.integers(PAGE)] ^= 1
        before.reshape(n, PAGE)[i] = pages[i]
    assert np.array_equal(array, before)
    results.append(pagedup.share_in_place([array]))
    unused = sum(result.reclaim() for result in results)
    assert unused > 0
    assert np.array_equal(array, before)
    assert held(array) <= 1.05 * distinct(array)
    files = {backing.inode: backing for result in results for backing in result._backings}
    assert sum(os.fstat(b.file.fd).st_blocks * 512 for b in files.values() if b.file) <= held(array) * PAGE


def test_again_finds_what_is_new_and_keeps_what_is_shared() -> None:
    array = memory([1, 2, 1, 2, 3, 4])
    first = pagedup.share_in_place([array])
    again = pagedup.share_in_place([array])
    assert (again.saved_pages, again.shared_pages, again.stored_pages, again.left) == (0, 0, 0, ())
    array[4 * PAGE : 5 * PAGE] = array[:PAGE]  # what is stored already
    array[PAGE : 2 * PAGE] = array[5 * PAGE :]  # new, and in a mapping of a copy
    array[2 * PAGE : 3 * PAGE] = 0  # zero, and in a mapping of a copy
    before = array.copy()  # now 1 4 0 2 1 4
    third = pagedup.share_in_place([array])
    assert (third.zero_pages, third.shared_pages, third.stored_pages, third.left) == (1, 3, 1, ())
    assert np.array_equal(array, before)
    assert held(array) == 3
    assert first.reclaim() == 0  # both contents are still shown
    array[3 * PAGE] ^= 1
    assert first.reclaim() == PAGE
    before[3 * PAGE] ^= 1
    assert np.array_equal(array, before)


def test_calls_over_and_over_do_not_grow() -> None:
    array = memory(list(range(1, 33)) * 2)
    open_before = len(os.listdir("/proc/self/fd"))
    results = []
    for round_ in range(20):
        array[::PAGE] = round_
        result = pagedup.share_in_place([array])
        results.append(result)
        result.reclaim()
        for old in results:
            old.reclaim()
        assert held(array) <= 32
        assert sum(stored_bytes(r) for r in {id(r._backings[-1]): r for r in results}.values()) <= 40 * PAGE
    assert len(backing.read_own_mappings()) < result.mappings + 50
    assert len(os.listdir("/proc/self/fd")) < open_before + 50


def test_reclaim_returns_what_writes_have_made_dead() -> None:
    array = memory([1, 1, 2, 2, 3, 3])
    result = pagedup.share_in_place([array])
    assert stored_bytes(result) == 3 * PAGE
    array[0] ^= 1
    assert result.reclaim() == 0  # its other page still shows it
    array[PAGE] ^= 1
    assert result.reclaim() == PAGE
    assert stored_bytes(result) == 2 * PAGE
    assert result.reclaim() == 0
    array[2 * PAGE :: PAGE] ^= 1
    before = array.copy()
    assert result.reclaim() == 2 * PAGE
    assert stored_bytes(result) == 0
    assert np.array_equal(array, before)


def test_reclaim_minds_no_other_file_of_the_same_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inodes are numbered anew in each file system."""
    array = memory([1, 1, 2, 2])
    result = pagedup.share_in_place([array])
    array[: 2 * PAGE : PAGE] ^= 1
    real = backing.read_own_mappings

    def read() -> list[Mapping]:
        (of,) = {m.inode for m in real() if m.path.startswith("/memfd:pagedup")}
        return [Mapping(PAGE, 9 * PAGE, "r--p", of, "/another", frozenset(), 5 * PAGE), *real()]

    monkeypatch.setattr(backing, "read_own_mappings", read)
    assert result.reclaim() == PAGE


def test_reclaim_knows_pages_that_moved() -> None:
    """mremap, as an array that grows does it, takes the mapping elsewhere; the copy is still in use."""
    area = mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(area, np.uint8)
    array[:] = 7
    result = pagedup.share_in_place([array])
    LIBC.mremap.restype = ctypes.c_void_p
    moved = LIBC.mremap(ctypes.c_void_p(address(array)), ctypes.c_size_t(2 * PAGE), ctypes.c_size_t(2 * PAGE), 1 | 4, 0)
    if moved in (None, ctypes.c_void_p(-1).value):
        target = mmap.mmap(-1, 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        place = np.frombuffer(target, np.uint8).ctypes.data
        moved = LIBC.mremap(
            ctypes.c_void_p(address(array)),
            ctypes.c_size_t(2 * PAGE),
            ctypes.c_size_t(2 * PAGE),
            ctypes.c_int(3),
            ctypes.c_void_p(place),
        )
    array[2 * PAGE] = array[3 * PAGE] = 1
    assert result.reclaim() == 0
    there = np.frombuffer(memoryview((ctypes.c_uint8 * (2 * PAGE)).from_address(moved)).cast("B"), np.uint8)
    assert (there == 7).all()


@pytest.mark.skipif(under_sanitizer(), reason="AddressSanitizer keeps freed memory for a while")
def test_when_the_arrays_are_gone_so_is_everything() -> None:
    files, mappings = len(os.listdir("/proc/self/fd")), len(backing.read_own_mappings())
    array, owned = memory([1, 1, 2, 2, 3]), np.full(8 << 20, 9, np.uint8)
    result = pagedup.share_in_place([array, owned])
    view = array[PAGE:]
    assert len(os.listdir("/proc/self/fd")) == files + 1
    del array, owned
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == files + 1  # the view keeps its memory
    del view
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == files
    assert not [m for m in backing.read_own_mappings() if m.path.startswith("/memfd:pagedup")]
    assert len(backing.read_own_mappings()) <= mappings + 5
    assert result.reclaim() == 0


def test_a_result_that_is_dropped_loses_nothing() -> None:
    array = memory([1, 1, 2, 3])
    pagedup.share_in_place([array])
    gc.collect()
    array[2 * PAGE : 3 * PAGE] = array[:PAGE]
    result = pagedup.share_in_place([array])
    assert (result.shared_pages, result.stored_pages) == (1, 0)
    array[: 3 * PAGE : PAGE] ^= 1
    assert result.reclaim() == PAGE


def test_dontneed_brings_back_what_was_shared() -> None:
    array = memory([1, 1])
    before = array.copy()
    pagedup.share_in_place([array])
    array[:] = 5
    advise(array, MADV_DONTNEED)
    assert np.array_equal(array, before)
    assert LIBC.madvise(ctypes.c_void_p(address(array)), ctypes.c_size_t(array.nbytes), MADV_FREE) == -1
    assert ctypes.get_errno() == errno.EINVAL


@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["read", "O_DIRECT"])
def test_reading_into_shared_pages_afterwards(flags: int, tmp_path: Path) -> None:
    array = memory([1, 1, 0, 0])
    before = array.copy()
    pagedup.share_in_place([array])
    path = tmp_path / "file"
    path.write_bytes(b"\7" * PAGE)
    try:
        fd = os.open(path, os.O_RDONLY | flags)
    except OSError:
        pytest.skip("this file system knows no O_DIRECT")
    for page in (0, 2):
        assert os.preadv(fd, [array[page * PAGE : (page + 1) * PAGE].data], 0) == PAGE
        before[page * PAGE : (page + 1) * PAGE] = 7
    os.close(fd)
    assert np.array_equal(array, before)


@pytest.mark.parametrize("tells", [True, False], ids=["", "before 6.7"])
def test_huge_pages_are_split_and_counted(tells: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not tells:
        monkeypatch.setattr(pagemap_scan, "_PAGEMAP_SCAN", 0)
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("the kernel makes no huge pages")
    huge = 2 << 20
    array = guarded(9 * huge)
    advise(array, mmap.MADV_HUGEPAGE)
    array = array[-address(array) % huge :][: 8 * huge]
    array[:] = np.random.default_rng(0).integers(1, 256, array.nbytes, np.uint8)
    array[:huge] = 0  # as a whole: nothing to split
    array[huge : huge + PAGE] = 0
    array[2 * huge : 2 * huge + PAGE] = array[3 * huge : 3 * huge + PAGE]
    text = Path("/proc/self/smaps").read_text()
    if sum(map(int, re.findall(r"^AnonHugePages: +(\d+)", text, re.MULTILINE))) < 8 * huge // 1024:
        pytest.skip("the kernel has no huge pages left")
    before = array.copy()
    result = pagedup.share_in_place([array])
    assert (result.huge_pages_split, result.zero_pages, result.shared_pages) == (3, 513, 2)
    assert np.array_equal(array, before)
    assert held(array) * PAGE < 7 * huge + huge // 2
    assert [compound(array[i * huge : (i + 1) * huge]) for i in range(8)].count(True) in (0, 4)  # 0: not told


def test_a_huge_page_of_which_the_rest_is_not_the_arrays() -> None:
    huge = 2 << 20
    area = guarded(4 * huge)
    advise(area, mmap.MADV_HUGEPAGE)
    area = area[-address(area) % huge :][: 3 * huge]
    area[:] = np.random.default_rng(0).integers(1, 256, area.nbytes, np.uint8)
    with backing.own_pagemap() as pagemap:
        if (told := pagemap.huge_pages(address(area), address(area) + area.nbytes)) is None or len(told) != 1:
            pytest.skip("the kernel tells of no huge pages, or has none left")
    part = area[huge - 100 * PAGE : 2 * huge + 100 * PAGE]
    part[:] = 0
    before = area.copy()
    result = pagedup.share_in_place([part])
    assert (result.huge_pages_split, result.zero_pages, result.left) == (2, 712, ())
    assert np.array_equal(area, before)
    assert not compound(area)


def compound(array: np.ndarray) -> bool:
    """Whether any page of it is a part of a larger one, as far as this user may know."""
    n = array.nbytes // PAGE
    entries = np.fromfile("/proc/self/pagemap", np.uint64, n, offset=address(array) // PAGE * 8)
    numbers = (entries & np.uint64((1 << 55) - 1))[entries >> np.uint64(63) == 1].astype(np.int64)
    if not numbers.any():
        return False  # told to root alone
    with open("/proc/kpageflags", "rb", buffering=0) as file:
        flags = [int.from_bytes(os.pread(file.fileno(), 8, 8 * number), "little") for number in numbers.tolist()]
    return any(flag & (1 << 15 | 1 << 16) for flag in flags)  # COMPOUND_HEAD, COMPOUND_TAIL


def mappings_of(array: np.ndarray) -> int:
    """How many mappings the array lies in."""
    end = address(array) + array.nbytes
    return sum(m.start < end and m.end > address(array) for m in backing.read_own_mappings())


@pytest.mark.skipif(under_sanitizer(), reason="AddressSanitizer has mappings of its own")
def test_the_mappings_that_it_takes_are_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside zeros, untouched pages and unique ones, and where what was shared before is written again."""
    from pagedup.sharing.in_place import share

    looked_at: list[int] = []

    def read(text: bytes) -> list[Mapping]:
        found = read_mappings(text)
        looked_at.append(len(found))
        return found

    monkeypatch.setattr(share, "read_mappings", read)
    rng = np.random.default_rng(1)
    array = memory(rng.choice([-1, 0, 1, 2, 3, 4, 50, 51, 52], 400).tolist())
    apart = memory(rng.choice([-1, 0, 1, 2, 60], 100).tolist())
    middle = ctypes.c_void_p(address(apart) + 50 * PAGE)
    assert LIBC.mprotect(middle, ctypes.c_size_t(20 * PAGE), mmap.PROT_READ) == 0
    pages = array.reshape(-1, PAGE)
    for most in (0, 10, 10):  # the kernel does not join all that could be joined once pages were written
        before = mappings_of(array) + mappings_of(apart)
        result = pagedup.share_in_place([array, apart])
        assert result.left == ()
        foreseen = result.mappings_wanted - 1024 - looked_at.pop()
        assert abs(mappings_of(array) + mappings_of(apart) - before - foreseen) <= most
        pages[rng.choice(400, 40)] = rng.integers(0, 6, (40, 1))


def test_content_that_stands_many_times_in_a_row() -> None:
    """A few copies of it in a row take less memory than a mapping for each page would."""
    array = memory([7, 8] + [1] * 5000 + [7, 8] + [1] * 3000 + [9] * 2 + [2])
    before = array.copy()
    first = pagedup.share_in_place([array])
    assert np.array_equal(array, before)
    assert 3 <= first.stored_pages <= 30
    assert mappings_of(array) < 500
    held_then, mapped = held(array), mappings_of(array)
    assert held_then <= first.stored_pages + 1
    again = pagedup.share_in_place([array])
    assert (again.saved_pages, again.shared_pages, again.stored_pages, again.left) == (0, 0, 0, ())
    # Written, and written back: each page goes where it was.
    pages = array.reshape(-1, PAGE)
    some = np.random.default_rng(0).choice(np.arange(2, 5002), 1000, replace=False)
    pages[some, 5] ^= 1
    pages[some, 5] ^= 1
    third = pagedup.share_in_place([array])
    assert (third.shared_pages, third.stored_pages) == (1000, 0)
    assert np.array_equal(array, before)
    assert (held(array), mappings_of(array)) == (held_then, mapped)
    assert sum(result.reclaim() for result in (first, again, third)) == 0
    # What is no longer shown is freed, and what is left is used again.
    pages[2:4900, 5] ^= 1
    pages[5004:8004, 5] ^= 1
    assert first.reclaim() <= (first.stored_pages - 3) * PAGE
    pages[2:4900, 5] ^= 1
    pages[5004:8004, 5] ^= 1
    fourth = pagedup.share_in_place([array])
    assert (fourth.shared_pages, fourth.stored_pages) == (7898, 0)
    assert np.array_equal(array, before)
    assert held(array) <= held_then


FEW_MAPPINGS = """
    import ctypes, mmap, sys
    import numpy as np, pagedup
    PAGE, room = mmap.PAGESIZE, int(sys.argv[1])
    array = pagedup.allocate(6000 * PAGE)
    pages = array.reshape(-1, PAGE)
    pages[:, :8] = np.arange(1, 6001, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    pages[3000:3400] = pages[:400]  # one long run
    for i in range(0, 400, 2):  # and two hundred of one page
        pages[4000 + i] = pages[1000 + i]
    before = array.copy()
    # Every other page of this gets other rights, and so is a mapping.
    limit = int(open("/proc/sys/vm/max_map_count").read())
    libc = ctypes.CDLL(None)
    eaten = pagedup.allocate(2 * limit * PAGE)
    used = open("/proc/self/maps").read().count("\\n")
    for i in range((limit - 1024 - used - room) // 2):
        libc.mprotect(ctypes.c_void_p(eaten.ctypes.data + (2 * i + 1) * PAGE), ctypes.c_size_t(PAGE), 1)
    result = pagedup.share_in_place([array])
    assert np.array_equal(array, before)
    assert result.mappings <= limit - 1024 + 100, result.mappings  # what the interpreter made meanwhile
    print(result.saved_pages, sum(left.bytes for left in result.left) // PAGE, result.mappings_wanted > limit)
    for left in result.left:
        print(left.why)
    """


@pytest.mark.skipif(under_sanitizer(), reason="AddressSanitizer has mappings of its own")
@pytest.mark.parametrize("room", [-60, 4, 100, 2000])
def test_few_mappings_the_longest_runs_first(room: int) -> None:
    done = run_python(FEW_MAPPINGS, room)
    assert done.returncode == 0, done.stderr
    first, *why = done.stdout.splitlines()
    saved, left, wants_more = first.split()
    if room == 2000:
        assert (saved, left, wants_more, why) == ("600", "0", "False", [])
        return
    assert wants_more == "True"
    assert re.fullmatch(r"more mappings than vm.max_map_count \([\d,]+\) allows; [\d,]+ would do", why[0])
    if room < 0:
        assert (saved, left) == ("0", "1200")
    else:
        assert int(saved) >= 400
        assert int(left) == 1200 - 2 * int(saved)


@pytest.mark.skipif(under_sanitizer(), reason="AddressSanitizer has mappings of its own")
def test_no_mapping_to_be_had_at_all() -> None:
    """What the kernel refuses, though it was planned, stays as it is."""
    done = run_python(
        """
        import ctypes, mmap
        import numpy as np, pagedup
        from pagedup.sharing.in_place import share
        PAGE = mmap.PAGESIZE
        limit = share._max_mappings()
        array = pagedup.allocate(2000 * PAGE)
        array.reshape(-1, PAGE)[:, 0] = np.arange(2000) % 7 + 1
        before = array.copy()
        eaten = pagedup.allocate(2 * limit * PAGE)
        libc = ctypes.CDLL(None)
        for i in range(limit):
            if libc.mprotect(ctypes.c_void_p(eaten.ctypes.data + (2 * i + 1) * PAGE), ctypes.c_size_t(PAGE), 1):
                break
        # A few are left for what the call itself needs.
        last = ctypes.c_void_p(eaten.ctypes.data + (2 * i - 161) * PAGE)
        assert libc.mprotect(last, ctypes.c_size_t(161 * PAGE), 3) == 0
        share._max_mappings = lambda: 10 * limit
        result = share.share_in_place([array])
        assert np.array_equal(array, before)
        array[:] = 1
        print([(left.why, left.bytes // PAGE) for left in result.left], result.shared_pages)
        """
    )
    assert done.returncode == 0, done.stderr
    assert "refused by the kernel (no room for a mapping more)" in done.stdout


def test_fork_after() -> None:
    array = memory([1, 1, 2, 2, 0, 3])
    before = array.copy()
    result = pagedup.share_in_place([array])
    read, write = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.read(read, 1)  # the parent has written, and tried to reclaim
            fine = np.array_equal(array, before)
            array[0] ^= 3
            array[4 * PAGE] = 9
            again = pagedup.share_in_place([array])
            mine = before.copy()
            mine[0] ^= 3
            mine[4 * PAGE] = 9
            fine &= np.array_equal(array, mine) and again.reclaim() == 0 and result.reclaim() == 0
            status = 0 if fine else 2
        finally:
            os._exit(status)
    array[: 4 * PAGE : PAGE] ^= 1
    before[: 4 * PAGE : PAGE] ^= 1
    assert result.reclaim() == 0
    os.write(write, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(read)
    os.close(write)
    assert result.reclaim() == 0  # nor when it has ended: nobody can tell here who else it has made
    assert np.array_equal(array, before)
    array[:PAGE] = array[PAGE : 2 * PAGE] = array[5 * PAGE :]
    later = pagedup.share_in_place([array])  # what is stored after the fork is not the child's
    assert later.stored_pages == 2
    array[::PAGE] ^= 255
    assert later.reclaim() == 2 * PAGE


def test_writers_must_stand_still() -> None:
    """A thread that writes during the call: nobody else's bytes change; its writes may be lost."""
    done = run_python(
        """
        import mmap, threading
        import numpy as np, pagedup
        PAGE = mmap.PAGESIZE
        array = pagedup.allocate(4096 * PAGE)
        pages = array.reshape(-1, PAGE)
        pages[:, :2] = (np.arange(4096) % 64 + 1).astype(np.uint16)[:, None].view(np.uint8)
        before = pages[::2].copy()
        stop = threading.Event()
        def write():
            n = 0
            while not stop.is_set():
                n += 1
                pages[1::2, 100] = n % 251
        writer = threading.Thread(target=write)
        writer.start()
        try:
            results = [pagedup.share_in_place([array]) for _ in range(5)]
        finally:
            stop.set()
            writer.join()
        assert np.array_equal(pages[::2], before)
        pages[1::2, 100] = 7
        assert (pages[1::2, 100] == 7).all() and np.array_equal(pages[::2], before)
        """
    )
    assert done.returncode == 0, done.stderr


def test_a_write_between_is_seen_where_that_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that comes between looking and replacing: the run is left, and said. Other zeros are gone by then."""
    from pagedup.sharing.in_place import share
    from pagedup.sharing.in_place.replace import replace

    array = memory([1, 2, 1, 2, 0, 3, 4, 4])
    pagedup.share_in_place([array[6 * PAGE :]])
    array[6 * PAGE : 7 * PAGE] = 0  # a zero page in the place of a copy

    def late(*arguments: object) -> object:
        array[2 * PAGE] ^= 1
        array[4 * PAGE] = 1
        array[6 * PAGE] = 1
        return replace(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(share, "replace", late)
    before = array.copy()
    before[2 * PAGE] ^= 1
    before[4 * PAGE] = 1
    before[6 * PAGE] = 1
    result = pagedup.share_in_place([array])
    assert np.array_equal(array, before)
    assert reasons(result) == {"written during the call": 3 * PAGE}
    assert result.zero_pages == 1 and result.shared_pages == 2


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        (np.zeros(PAGE, np.uint8), TypeError, "arrays is one ndarray; give a list of NumPy arrays, such as [array]"),
        (5, TypeError, "arrays is one int; give a list of NumPy arrays, such as [array]"),
        ([bytearray(PAGE)], TypeError, "array 0 is a bytearray; it must be a NumPy array"),
        (
            [np.zeros(9, np.uint8), np.zeros((9, 9), np.uint8)[:, 1:3]],
            ValueError,
            "array 1 is not contiguous; give the array that it is a part of, or contiguous parts",
        ),
    ],
)
def test_what_cannot_be_shared(arrays: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        pagedup.share_in_place(arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize("nbytes", [0, -1])
def test_allocate_refuses(nbytes: int) -> None:
    with pytest.raises(ValueError, match=f"^nbytes is {nbytes}; it must be 1 or more$"):
        pagedup.allocate(nbytes)


def test_allocate() -> None:
    array = pagedup.allocate(5 * PAGE + 3)
    assert (array.shape, array.dtype, array.flags.writeable) == ((5 * PAGE + 3,), np.dtype(np.uint8), True)
    assert address(array) % PAGE == 0
    assert not array.any()
    (mapping,) = [m for m in read_mappings(Path("/proc/self/smaps").read_bytes()) if m.start <= address(array) < m.end]
    assert mapping.private and mapping.anonymous
    with pytest.raises((OSError, OverflowError, ValueError)):
        pagedup.allocate(sys.maxsize)
