"""Live processes: real children that hold known pages, and every way in which one cannot be read."""

import errno
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pagedup.memory.pagemap as pagemap_module
from pagedup.memory import Extent, Source, open_sources
from pagedup.memory.pagemap import Pagemap

PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 8

# Maps known pages, tells their addresses, and then obeys one line at a time.
CHILD = """
import ctypes, mmap, os, sys
page, pages = mmap.PAGESIZE, 8
anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
private = mmap.mmap(-1, pages * page, flags=anonymous)
shared = mmap.mmap(-1, pages * page, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
with open(sys.argv[1], "rb") as opened:
    file = mmap.mmap(opened.fileno(), pages * page, access=mmap.ACCESS_COPY)
reserved = mmap.mmap(-1, 1 << 44, flags=anonymous | 0x4000, prot=0)  # MAP_NORESERVE
private.madvise(mmap.MADV_NOHUGEPAGE)
for index in (0, 1, 5):
    private[index * page:(index + 1) * page] = bytes([65 + index]) * page
shared[:] = b"s" * len(shared)
assert file[0] == file[3 * page] == ord("f")
file[2 * page] = ord("w")
def address(map):
    return ctypes.addressof(ctypes.c_char.from_buffer(map))
print(*map(address, (private, shared, file)), flush=True)
for line in sys.stdin:
    if line.strip() == "unmap":
        assert ctypes.CDLL(None).munmap(ctypes.c_void_p(address(private) + page), ctypes.c_size_t(page)) == 0
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
        self.private, self.shared, self.file = map(int, line.split())

    @property
    def text(self) -> str:
        return f"pid:{self.process.pid}"

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child(tmp_path / "mapped")
    yield child
    child.end()


def open_one(text: str) -> Source:
    (source,) = open_sources([text])
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
    with open_one(child.text) as source:
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
            assert isinstance(extent, Extent)
            size = len(memoryview(extent.buffer))
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
    with open(f"/proc/{child.process.pid}/pagemap", "rb") as file:
        try:
            pagemap_module._scan(file.fileno(), 0, PAGE)
        except OSError:
            pytest.skip("this kernel has no PAGEMAP_SCAN")
    begin = time.monotonic()
    with open_one(child.text):
        pass
    assert time.monotonic() - begin < 5


def test_both_ways_of_asking_agree(child: Child) -> None:
    ranges = []
    for line in Path(f"/proc/{child.process.pid}/maps").read_text().splitlines():
        start, end = (int(text, 16) for text in line.split()[0].split("-"))
        if end - start < 1 << 40 and end < 1 << 63:
            ranges.append((start, end))
    with open(f"/proc/{child.process.pid}/pagemap", "rb") as file:
        asking, reading = Pagemap(file.fileno()), Pagemap(file.fileno())
        reading._can_scan = False
        found = reading.anonymous_runs(ranges)
        assert len(found) > 3
        assert np.array_equal(asking.anonymous_runs(ranges), found)


def test_small_chunks_give_the_same_runs(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = [(child.private, child.private + PAGES * PAGE)]
    with open(f"/proc/{child.process.pid}/pagemap", "rb") as file:
        whole = Pagemap(file.fileno()).anonymous_runs(ranges)
        assert ((whole.astype(np.int64) - child.private) // PAGE).tolist() == [[0, 2], [5, 6]]
        monkeypatch.setattr(pagemap_module, "_REGIONS_A_CALL", 1)
        monkeypatch.setattr(pagemap_module, "_ENTRIES_A_READ", 1)
        for can_scan in (True, False):
            pagemap = Pagemap(file.fileno())
            pagemap._can_scan = can_scan
            assert np.array_equal(pagemap.anonymous_runs(ranges), whole)


def test_a_page_that_vanishes_is_left_out(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    told: list[bool] = []

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if not told:
            told.append(True)
            child.tell("unmap")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with open_one(child.text) as source:
        assert pages_at(source, child.private) == {i: bytes([65 + i]) * PAGE for i in (0, 5)}
        assert source.size == sum(len(memoryview(e.buffer)) for e in source.extents if isinstance(e, Extent))


def test_a_process_that_ends_midway(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    calls = []

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(offset)
        if len(calls) == 3:
            child.end()
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProcessLookupError, match=f"{child.text}: the process ended"):
        open_one(child.text)
    assert len(calls) >= 3
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_process_that_execs_while_it_is_opened(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then `maps` is of the program before, and empty, while the pagemap opened after it is of the next one."""
    real = os.open

    def open_(path: str, flags: int, *, dir_fd: int | None = None) -> int:
        if path == "pagemap":
            child.tell("exec")
        return real(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_)
    with pytest.raises(ProcessLookupError, match=f"{child.text}: the process ended [(]or began another program"):
        open_one(child.text)


def test_a_process_that_is_reaped_before_its_maps_are_read(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(OSError, match=rf"{child.text}: no room .* [0-9,]+ bytes: Cannot allocate") as caught:
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


def test_close_gives_everything_back(child: Child) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    source = open_one(child.text)
    assert len(os.listdir("/proc/self/fd")) == descriptors, "nothing stays open but the copy"
    held = memoryview(source.extents[0].buffer)  # type: ignore[union-attr]
    first = held[0]
    source.close()
    source.close()
    assert held[0] == first
    held.release()


def test_this_very_process() -> None:
    with open_one(f"pid:{os.getpid()}") as source:
        assert source.size > 0


def test_progress_reaches_the_end(child: Child) -> None:
    seen: list[tuple[str, int, int]] = []
    (source,) = open_sources([child.text], lambda phase, done, total: seen.append((phase, done, total)))
    source.close()
    copying = [(done, total) for phase, done, total in seen if phase.startswith("copying")]
    assert copying == sorted(copying)
    assert copying[-1] == (source.size, source.size)
    assert seen[-1] == ("opening", 1, 1)
