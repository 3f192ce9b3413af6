"""Live processes: real children that hold known pages, and every way in which one cannot be read."""

import errno
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pagedup.memory.live.pagemap as pagemap_module
from benchmarks import ksm
from pagedup.memory import Apart, Extent, LiveOptions, LiveSource, NamedExtent, Source, SourceTextError, open_sources
from pagedup.memory.live import pagemap_scan, take
from pagedup.memory.live import same_memory as same_memory_module
from pagedup.memory.live.pagemap import Page, Pagemap
from pagedup.memory.live.remote import RemoteMemory
from pagedup.memory.live.same_memory import same_memory
from pagedup.memory.live.smaps import read_mappings
from tests.processes import succeed, under_sanitizer

PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 8

# Maps known pages, tells their addresses, and then obeys one line at a time.
CHILD = """
import ctypes, mmap, os, sys, time
page, pages, parent = mmap.PAGESIZE, 8, os.getpid()
anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
private = mmap.mmap(-1, pages * page, flags=anonymous)
shared = mmap.mmap(-1, pages * page, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
with open(sys.argv[1], "rb") as opened:
    file = mmap.mmap(opened.fileno(), pages * page, access=mmap.ACCESS_COPY)
reserved = mmap.mmap(-1, 1 << 44, flags=anonymous | 0x4000, prot=0)  # MAP_NORESERVE
private.madvise(mmap.MADV_NOHUGEPAGE)
for index in (0, 1, 5):
    private[index * page:(index + 1) * page] = bytes([65 + index]) * page
assert private[7 * page] == 0  # which maps the zero page
closed = mmap.mmap(-1, pages * page, flags=anonymous)
closed.madvise(mmap.MADV_NOHUGEPAGE)
closed[:2 * page] = b"c" * (2 * page)
shared[:] = b"s" * len(shared)
assert file[0] == file[3 * page] == ord("f")
file[2 * page] = ord("w")
def address(map):
    return ctypes.addressof(ctypes.c_char.from_buffer(map))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address(closed)), ctypes.c_size_t(len(closed)), 0) == 0
print(*map(address, (private, shared, file, closed)), flush=True)
for line in sys.stdin:
    if line.strip() == "unmap":
        assert ctypes.CDLL(None).munmap(ctypes.c_void_p(address(private) + page), ctypes.c_size_t(page)) == 0
    if line.strip() == "write":
        private[page:page + 5] = b"other"
    if line.strip() == "guard":
        if ctypes.CDLL(None).madvise(ctypes.c_void_p(address(private)), ctypes.c_size_t(3 * page), 102):
            print("refused", flush=True)  # MADV_GUARD_INSTALL, of Linux 6.13
            continue
    if line.strip() == "mergeable":
        private.madvise(mmap.MADV_MERGEABLE)
    if line.strip() == "fork" and os.fork() == 0:
        sys.stdin.close()
        while os.getppid() == parent:
            time.sleep(0.02)
        os._exit(0)
    if line.strip() == "exec":
        os.execv(sys.executable, [sys.executable, "-c", "print('done', flush=True); input()"])
    print("done", flush=True)
"""


class Child:
    def __init__(self, file: Path) -> None:
        file.write_bytes(b"f" * (PAGES * PAGE))
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.end()
        self.private, self.shared, self.file, self.closed = map(int, line.split())

    @property
    def text(self) -> str:
        return f"pid:{self.process.pid}"

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def tell(self, line: str) -> None:
        assert self.ask(line) == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child(tmp_path / "mapped")
    yield child
    child.end()


@pytest.fixture
def unstepped() -> Iterator[None]:
    with ksm.unstepped():
        yield


def open_one(text: str) -> Source:
    (source,) = open_sources([text])
    return source


def open_bytes(text: str, **options: Any) -> Source:
    """For frames smaller than pages all bytes are kept."""
    (source,) = open_sources([text], frame_size=PAGE // 8, live=LiveOptions(**options))
    return source


def pages_at(source: Source, address: int) -> dict[int, bytes]:
    """Which of the pages from `address` on the source holds, by index."""
    found = {}
    for extent in source.extents:
        assert isinstance(extent, Extent)
        view = memoryview(extent.buffer)
        for offset in range(0, len(view), PAGE):
            index = (extent.address + offset - address) // PAGE
            if 0 <= index < PAGES:
                found[index] = bytes(view[offset : offset + PAGE])
    return found


def test_only_present_private_anonymous_pages(child: Child) -> None:
    with open_bytes(child.text) as source:
        assert (source.name, source.kind) == (child.text, "process")
        assert source.detail.startswith("python")
        assert pages_at(source, child.private) == {i: bytes([65 + i]) * PAGE for i in (0, 1, 5)}
        assert pages_at(source, child.shared) == {}
        assert pages_at(source, child.file) == {2: b"w" + b"f" * (PAGE - 1)}
        source.check()


def test_extents_are_ascending_runs(child: Child) -> None:
    with open_one(child.text) as source:
        end = -1
        total = 0
        for extent in source.extents:
            assert isinstance(extent, NamedExtent)
            size = extent.size
            assert extent.address > end, "runs that touch are one extent"
            assert extent.address % PAGE == 0 and size % PAGE == 0 and size > 0
            end = extent.address + size
            total += size
        assert total == source.size


def resident(child: Child) -> dict[str, str]:
    lines = Path(f"/proc/{child.process.pid}/smaps_rollup").read_text().splitlines()[1:]
    values = dict(line.split(":", 1) for line in lines)
    return {key: values[key] for key in ("Rss", "Anonymous", "Swap", "Private_Dirty")}


def test_nothing_is_faulted_in(child: Child) -> None:
    before = resident(child)
    with open_one(child.text):
        pass
    assert resident(child) == before


def test_a_huge_reservation_takes_no_time(child: Child) -> None:
    present = pagemap_scan.PRESENT
    with open(f"/proc/{child.process.pid}/pagemap", "rb") as file:
        try:
            pagemap_scan.scan(file.fileno(), 0, PAGE, either=present, told=present)
        except OSError:
            pytest.skip("this kernel has no PAGEMAP_SCAN")
    begin = time.monotonic()
    with open_one(child.text):
        pass
    assert time.monotonic() - begin < 5


def as_pages(runs: np.ndarray, begin: int) -> list[tuple[int, Page]]:
    """Each page's number from `begin` on, and its kind."""
    return [((at - begin) // PAGE, Page(kind)) for start, end, kind in runs.tolist() for at in range(start, end, PAGE)]


def test_both_ways_of_asking_agree(child: Child) -> None:
    with open(f"/proc/{child.process.pid}/pagemap", "rb") as file:
        asking, reading = Pagemap(file.fileno()), Pagemap(file.fileno())
        reading._can_scan = False
        kinds = set()
        for line in Path(f"/proc/{child.process.pid}/maps").read_text().splitlines():
            start, end = (int(text, 16) for text in line.split()[0].split("-"))
            if end - start < 1 << 40 and end < 1 << 63:
                told, found = as_pages(asking.runs(start, end), start), as_pages(reading.runs(start, end), start)
                kinds |= {kind for _, kind in told}
                quick = as_pages(asking.runs(start, end, tell_shared=False), start)
                assert quick == [(at, Page.OWN if kind == Page.SHARED else kind) for at, kind in told]
                # Only the ioctl knows the zero page.
                assert found == [(at, Page.SHARED if kind == Page.ZERO else kind) for at, kind in told]
        assert kinds >= {Page.OWN, Page.FILE} and (not asking._can_scan or Page.ZERO in kinds)


def test_small_chunks_give_the_same_pages(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, end = child.private, child.private + PAGES * PAGE
    with open(f"/proc/{child.process.pid}/pagemap", "rb") as file:
        whole = as_pages(Pagemap(file.fileno()).runs(begin, end), begin)
        assert whole == [(0, Page.OWN), (1, Page.OWN), (5, Page.OWN), (7, Page.ZERO)]
        monkeypatch.setattr(pagemap_scan, "_REGIONS_A_CALL", 1)
        monkeypatch.setattr(pagemap_module, "_ENTRIES_A_READ", 1)
        assert as_pages(Pagemap(file.fileno()).runs(begin, end), begin) == whole


@pytest.mark.parametrize("a_call", [511, 512, 513, 1500, 2000, 4096])
def test_scattered_pages_are_told_once(monkeypatch: pytest.MonkeyPatch, a_call: int) -> None:
    """The kernel buffers 512 regions; with more than these it does not say right where it ended."""
    monkeypatch.setattr(pagemap_scan, "_REGIONS_A_CALL", a_call)
    n = 8000
    with mmap.mmap(-1, n * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        pages = np.frombuffer(memory, np.uint8).reshape(n, PAGE)
        touched = np.arange(0, n - 10, 2)
        pages[touched, 0] = 1
        begin = pages.ctypes.data
        with open("/proc/self/pagemap", "rb") as file:
            told = as_pages(Pagemap(file.fileno()).runs(begin, begin + n * PAGE), begin)
        assert told == [(at, Page.OWN) for at in touched.tolist()]
        del pages


def test_huge_pages_are_told() -> None:
    huge = 2 << 20
    with mmap.mmap(-1, 4 * huge, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        pages = np.frombuffer(memory, np.uint8)
        begin = -(-pages.ctypes.data // huge) * huge
        pages[begin - pages.ctypes.data + huge] = 1
        with open("/proc/self/pagemap", "rb") as file:
            pagemap = Pagemap(file.fileno())
            told = pagemap.huge_pages(begin, begin + 3 * huge)
            if told is None or not len(told):
                pytest.skip("the kernel tells of no huge pages, or makes none")
            assert told[:, :2].tolist() == [[begin + huge, begin + 2 * huge]]
            part = pagemap.huge_pages(begin, begin + huge + 5 * PAGE)
            assert part is not None and part[:, :2].tolist() == [[begin + huge, begin + huge + 5 * PAGE]]
        del pages


def test_what_is_apart_is_counted(child: Child) -> None:
    with open_bytes(child.text) as source:
        assert source.apart[Apart.ABSENT] >= 4 * PAGE
        assert source.apart[Apart.ZERO_MAPPED] >= PAGE
        assert source.apart[Apart.SHARED_MAPPING] >= len(pages_at(source, child.shared)) + PAGES * PAGE
        # All of it is what the kernel says is resident, less what is not: absent and zero-mapped pages.
        known = source.size + source.apart[Apart.SHARED_MAPPING] + source.apart.get(Apart.ALREADY_SHARED, 0)
        rss = int(resident(child)["Rss"].split()[0]) * 1024
        assert abs(known - rss) <= 8 * PAGE
        assert Apart.NOT_MERGEABLE not in source.apart


def test_guard_pages_are_absent_and_not_in_swap(child: Child) -> None:
    with open_bytes(child.text) as source:
        before = source.apart
    if child.ask("guard") != "done\n":
        pytest.skip("this kernel has no MADV_GUARD_INSTALL")
    with open_bytes(child.text) as source:
        assert pages_at(source, child.private).keys() == {5}
        assert source.apart.get(Apart.SWAPPED, 0) == before.get(Apart.SWAPPED, 0)
        if not under_sanitizer():  # which has memory of its own that comes and goes
            assert source.apart[Apart.ABSENT] == pytest.approx(before[Apart.ABSENT] + 2 * PAGE, abs=PAGE)


def test_a_mapping_that_grows_while_smaps_is_read_counts_once() -> None:
    told = b"1000-3000 rw-p 0 00:00 0 \nVmFlags: rd\n1000-5000 rw-p 0 00:00 0 \n2000-4000 rw-p 0 00:00 0 [heap]\n"
    assert [(mapping.start, mapping.end) for mapping in read_mappings(told)] == [(0x1000, 0x3000), (0x3000, 0x5000)]


def test_memory_that_nobody_may_touch_is_read(child: Child) -> None:
    with open_bytes(child.text) as source:
        assert pages_at(source, child.closed) == dict.fromkeys((0, 1), b"c" * PAGE)


def test_regions_name_the_mappings(child: Child) -> None:
    with open_one(child.text) as source:
        assert isinstance(source, LiveSource)
        names = {region.name for region in source.regions if region.start <= child.file < region.end}
        assert len(names) == 1 and names.pop().endswith("/mapped")
        assert [r.name for r in source.regions if r.start <= child.private < r.end] == ["[anonymous]"]
        for extent in source.extents:
            assert any(region.start <= extent.address < region.end for region in source.regions)


def test_pages_shared_since_a_fork_are_apart(child: Child) -> None:
    with open_bytes(child.text) as source:
        alone = source.size
        assert source.apart.get(Apart.ALREADY_SHARED, 0) < alone // 8
    child.tell("fork")
    child.tell("write")  # which takes a copy of its own of one page
    with open_bytes(child.text) as source:
        assert pages_at(source, child.private) == {1: b"other" + b"B" * (PAGE - 5)}
        assert source.apart[Apart.ALREADY_SHARED] > alone // 2
        assert source.size + source.apart[Apart.ALREADY_SHARED] == pytest.approx(alone, rel=0.1)


def test_only_what_is_marked_mergeable(unstepped: None, child: Child) -> None:
    with open_sources([child.text], live=LiveOptions(mergeable=True))[0] as source:
        assert source.extents == [] and source.size == 0
        assert source.apart[Apart.NOT_MERGEABLE] > 0
    child.tell("mergeable")
    with open_bytes(child.text, mergeable=True) as source:
        assert pages_at(source, child.private) == {i: bytes([65 + i]) * PAGE for i in (0, 1, 5)}
        assert source.size == 3 * PAGE


def test_a_second_look(child: Child) -> None:
    with open_one(child.text) as source:
        assert isinstance(source, LiveSource)
        private = child.private + np.array([0, 1, 5], np.uint64) * np.uint64(PAGE)
        assert source.look_again(private).tolist() == [False, False, False]
        child.tell("write")
        assert source.look_again(private[:1]).tolist() == [False]
        assert source.look_again(private).tolist() == [False, True, False]
        assert source.look_again(private).tolist() == [False, False, False], "what is new was taken over"
        child.tell("unmap")
        assert source.look_again(private).tolist() == [False, True, False], "a page that is gone has changed"
        assert source.look_again(np.empty(0, np.uint64)).tolist() == []
        child.end()
        with pytest.raises(ProcessLookupError, match=f"{child.text}: the process ended"):
            source.look_again(private)


def test_many_pages_at_a_second_look() -> None:
    """More pieces than one call takes, and runs longer than a task; against a plain comparison."""
    n = 6000
    with mmap.mmap(-1, n * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        pages = np.frombuffer(memory, np.uint8).reshape(n, PAGE)
        rng = np.random.default_rng(5)
        pages[:] = rng.integers(0, 256, (n, 1), np.uint8)
        begin = pages.ctypes.data
        with open_one(f"pid:{os.getpid()}") as source:
            assert isinstance(source, LiveSource)
            looked = np.flatnonzero((rng.random(n) < 0.5) | (np.arange(n) > 4000))
            written = rng.random(n) < 0.3
            pages[written, rng.integers(0, PAGE, np.count_nonzero(written))] ^= 1
            changed = source.look_again(begin + looked.astype(np.uint64) * np.uint64(PAGE))
            assert np.array_equal(changed, written[looked])
        del pages


def test_a_spool_holds_the_copy(child: Child, tmp_path: Path) -> None:
    with open_bytes(child.text, spool=str(tmp_path)) as source:
        assert pages_at(source, child.private) == {i: bytes([65 + i]) * PAGE for i in (0, 1, 5)}
        assert [path.name for path in tmp_path.iterdir()] == ["mapped"], "the copy has no name"
        (copy,) = {
            line.split()[4]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "(deleted)" in line and str(tmp_path) in line
        }
        assert int(copy) > 0


def test_all_bytes_take_more_room(child: Child, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For frames smaller than pages, and beside a dump."""
    image = tmp_path / "image"
    image.write_bytes(b"i" * PAGE)
    with open_one(child.text) as source:
        size = source.size
    monkeypatch.setattr(take, "available_memory", lambda: size)
    for texts, frame_size in (([child.text], PAGE // 2), ([child.text, str(image)], PAGE)):
        with pytest.raises(OSError, match=rf"{child.text}: scanning takes [0-9,]+ bytes of memory") as caught:
            open_sources(texts, frame_size=frame_size)
        needed = int(str(caught.value).partition("takes ")[2].partition(" bytes")[0].replace(",", ""))
        assert needed == pytest.approx(size + size // frame_size * 80 + (16 << 20), abs=32 * PAGE)
    monkeypatch.setattr(take, "available_memory", lambda: size // 2 + (16 << 20))
    open_one(child.text).close()


def test_too_many_processes_for_the_limit_of_files(child: Child) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0) for _ in range(64)]  # which leaves no gap below the last
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 4, before[1]))
    try:
        with pytest.raises(OSError, match=rf"{child.text}: Too many open files: .*ulimit -n") as caught:
            open_one(child.text)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in taken:
            os.close(fd)
    assert caught.value.errno == errno.EMFILE


def test_a_spool_that_is_no_folder(child: Child, tmp_path: Path) -> None:
    folder = str(tmp_path / "none")
    with pytest.raises(FileNotFoundError) as caught:
        open_sources([child.text], live=LiveOptions(spool=folder))
    assert caught.value.filename == folder


def test_a_spool_for_which_the_file_is_too_large(child: Child, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            open_sources([child.text], live=LiveOptions(spool=str(tmp_path)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path) and "free" not in str(caught.value)


def test_a_spool_that_is_full(child: Child, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"bytes free, and [0-9,]+ are needed") as caught:
        open_sources([child.text], live=LiveOptions(spool=str(tmp_path)))
    assert caught.value.filename == str(tmp_path)


def test_a_page_that_vanishes_is_left_out(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    before_reading(monkeypatch, 1, lambda: child.tell("unmap"))
    with open_bytes(child.text) as source:
        assert pages_at(source, child.private) == {i: bytes([65 + i]) * PAGE for i in (0, 5)}
        assert source.size == sum(len(memoryview(e.buffer)) for e in source.extents if isinstance(e, Extent))


def test_where_process_vm_readv_is_forbidden(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some containers do; then the mem file alone must do."""
    with open_bytes(child.text) as source:
        expected = {extent.address: bytes(memoryview(extent.buffer)) for extent in source.extents}  # type: ignore[union-attr]
    real = RemoteMemory.__init__

    def forbidden(self: RemoteMemory, pid: int, fd: int) -> None:
        real(self, pid, fd)
        self._readv = lambda *arguments: -1  # type: ignore[assignment]

    monkeypatch.setattr(RemoteMemory, "__init__", forbidden)
    with open_bytes(child.text) as source:
        found = {extent.address: bytes(memoryview(extent.buffer)) for extent in source.extents}  # type: ignore[union-attr]
    assert found == expected


def before_reading(monkeypatch: pytest.MonkeyPatch, call: int, act: Callable[[], object]) -> None:
    """Act right before this call that reads memory."""
    real = RemoteMemory.read
    calls: list[int] = []

    def read(self: RemoteMemory, pieces: np.ndarray, room: np.ndarray) -> np.ndarray:
        calls.append(len(pieces))
        if len(calls) == call:
            act()
        return real(self, pieces, room)

    monkeypatch.setattr(RemoteMemory, "read", read)


@pytest.mark.parametrize("phase", ["reading", "copying", "comparing"])
def test_a_process_that_ends_midway(child: Child, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    real = LiveSource.read

    def read(self: LiveSource, begun: str, *arguments: Any) -> Any:
        if begun == phase:
            child.end()
        return real(self, begun, *arguments)

    monkeypatch.setattr(LiveSource, "read", read)
    with pytest.raises(ProcessLookupError, match=f"{child.text}: the process ended"):
        open_one(child.text)
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_process_that_execs_while_it_is_opened(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then `smaps` is of the program before, and empty, while the pagemap opened after it is of the next one."""
    real = os.open

    def open_(path: str, flags: int, *, dir_fd: int | None = None) -> int:
        if path == "pagemap":  # smaps is open by then
            child.tell("exec")
        return real(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_)
    with pytest.raises(ProcessLookupError, match=f"{child.text}: the process ended [(]or began another program"):
        open_one(child.text)


def test_a_process_that_is_reaped_before_its_pagemap_is_read(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Pagemap.runs

    def runs(self: Pagemap, start: int, end: int) -> np.ndarray:
        child.end()
        return real(self, start, end)

    monkeypatch.setattr(Pagemap, "runs", runs)
    with pytest.raises(ProcessLookupError, match=f"{child.text}: the process ended"):
        open_one(child.text)


def test_a_process_that_is_reaped_before_its_mappings_are_read(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    def alive(self: Pagemap) -> bool:
        child.end()
        return True

    monkeypatch.setattr(Pagemap, "alive", alive)
    with pytest.raises(ProcessLookupError, match=f"{child.text}: the process ended"):
        open_one(child.text)


def test_no_room_for_the_copy(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(OSError, match=r"no room .* [0-9,]+ bytes of live memory: Cannot allocate") as caught:
        open_one(child.text)
    assert caught.value.errno == errno.ENOMEM


def test_a_process_that_is_gone(child: Child) -> None:
    child.process.kill()
    os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError, match=r"the process ended"):  # a zombie: its number is still taken
        open_one(child.text)
    child.end()
    with pytest.raises(ProcessLookupError, match="no such process"):
        open_one(child.text)


def test_a_kernel_thread() -> None:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[6]) & 0x00200000:
                break
    else:
        pytest.skip("no kernel thread is visible here")
    with pytest.raises(OSError, match=r"is a kernel thread|no permission"):
        open_one(f"pid:{folder.name}")


def test_a_thread_is_not_a_process() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        with pytest.raises(OSError, match=f"is a thread of process {os.getpid()}"):
            open_one(f"pid:{thread.native_id}")
    finally:
        release.set()
        thread.join()


# Its child has its memory and waits; the parent waits for the child, as vfork() does.
VFORK = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(void)
{
    if (vfork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dprintf(1, "%d %d\n", getppid(), getpid());
        pause();
        _exit(0);
    }
    return 0;
}
"""


def test_two_processes_with_one_memory(child: Child, tmp_path: Path) -> None:
    (tmp_path / "vfork.c").write_text(VFORK)
    program = str(tmp_path / "vfork")
    succeed(["gcc", "-Wno-deprecated-declarations", "-o", program, f"{program}.c"])
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = list(map(int, parent.stdout.readline().split()))
        try:
            assert pids[0] == parent.pid
            one, other = (f"pid:{pid}" for pid in pids)
            with pytest.raises(SourceTextError, match=f"{other}: is the same source as {one}; its memory"):
                open_sources([one, child.text, other])
            with pytest.raises(SourceTextError, match=f"{one}: is the same source as {other}; its memory"):
                open_sources([child.text, other, one])
            for pid in pids:
                open_one(f"pid:{pid}").close()
        finally:
            os.kill(pids[1], signal.SIGKILL)


def test_where_the_kernel_does_not_tell_of_one_memory(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    same = [child.process.pid, os.getpid(), child.process.pid]
    assert same_memory(same) == (0, 2)
    assert same_memory([*same, 1 << 22]) is None  # no such process
    monkeypatch.setattr(same_memory_module, "_KCMP", {})
    assert same_memory(same) is None


def test_close_gives_everything_back(child: Child) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    source = open_bytes(child.text)
    held = memoryview(source.extents[0].buffer)  # type: ignore[union-attr]
    first = held[0]
    source.close()
    source.close()
    assert held[0] == first
    held.release()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_this_very_process() -> None:
    with open_one(f"pid:{os.getpid()}") as source:
        assert source.size > 0


def test_progress_reaches_the_end(child: Child) -> None:
    seen: list[tuple[str, int, int]] = []
    (source,) = open_sources([child.text], lambda phase, done, total: seen.append((phase, done, total)))
    source.close()
    for what in ("reading", "copying", "comparing"):
        steps = [(done, total) for phase, done, total in seen if phase.startswith(what)]
        assert steps == sorted(steps) and steps[-1][0] == steps[-1][1] <= source.size
    assert (f"reading {child.text}", source.size, source.size) in seen
    assert ("opening", 1, 1) in seen
