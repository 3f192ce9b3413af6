"""ELF cores: made ones against brute force and pyelftools, real ones of gdb and the kernel, and lying headers."""

import glob
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from pagedup.memory import Apart, Source
from tests.dumps import Load, elf_core, frames, holes, open_file, open_path, pages, table_end

PAGE = 4096
FORMS = [(bits, order) for bits in (32, 64) for order in "<>"]


def brute_force(loads: list[Load], content: bytes, by: str, size: int) -> tuple[dict[int, bytes], int, int]:
    """Frames by address, absent bytes and bytes in no whole frame, of segments that do not overlap."""
    place: dict[int, int] = {}
    memory: set[int] = set()
    for load in loads:
        address = getattr(load, by)
        place.update((address + at, load.offset + at) for at in range(load.filesz))
        memory.update(range(address, address + (load.filesz if load.memsz is None else load.memsz)))
    found = {}
    for base in sorted({address - address % size for address in place}):
        at = place.get(base, -1)
        if at >= 0 and all(place.get(base + i) == at + i for i in range(size)):
            found[base] = content[at : at + size]
    return found, len(memory - place.keys()), len(place) - len(found) * size


def agrees(source: Source, expected: tuple[dict[int, bytes], int, int], size: int) -> None:
    assert frames(source, size) == expected[0]
    assert source.apart.get(Apart.ABSENT, 0) == expected[1]
    assert source.apart.get(Apart.PARTIAL_PAGE, 0) == expected[2]
    assert all(source.apart.values())
    source.check()


@st.composite
def cores(draw: st.DrawFn) -> tuple[bytes, list[Load], int, str]:
    """An ELF core: the file, its segments, a frame size, and by which address they are placed."""
    size = draw(st.sampled_from([8, 8, 32, 4096]))
    bits, order = draw(st.sampled_from(FORMS))
    by = draw(st.sampled_from(["paddr", "vaddr"]))
    few = st.one_of(st.just(0), st.integers(0, 3 * size), st.integers(0, 3).map(lambda n: n * size))
    plan = draw(st.lists(st.tuples(few, few, few, few), min_size=1, max_size=6))
    address, parts = draw(st.integers(0, 2 * size)), []
    for gap, length, absent, _ in plan:
        address += gap
        parts.append((address, length, absent))
        address += length + absent
    offset = table_end(len(plan), bits) + (40 if bits == 32 else 64) + draw(st.integers(0, size))
    places = {}
    for index in draw(st.one_of(st.just(range(len(parts))), st.permutations(range(len(parts))))):
        offset += plan[index][3]
        places[index] = offset
        offset += parts[index][1]
    loads = [
        Load(places[i] if length else (1 << bits) - 1, length, memsz=length + absent, **{by: address})
        for i, (address, length, absent) in enumerate(parts)
    ]
    loads.insert(draw(st.integers(0, len(loads))), Load(1 << 30, 5, kind=4))  # a note that the file does not have
    loads = draw(st.one_of(st.just(loads), st.permutations(loads)))
    head = elf_core(loads, bits, order, extended=draw(st.booleans()))
    body = draw(st.randoms(use_true_random=False)).randbytes(max(offset, len(head)))
    return head + body[len(head) :], [load for load in loads if load.kind == 1], size, by


@given(cores())
def test_any_core(tmp_path_factory: pytest.TempPathFactory, core: tuple[bytes, list[Load], int, str]) -> None:
    content, loads, size, by = core
    if not any(load.paddr for load in loads):
        by = "vaddr"
    with open_file(tmp_path_factory.getbasetemp(), content, size) as source:
        agrees(source, brute_force(loads, content, by, size), size)


@given(cores())
def test_headers_as_pyelftools_reads_them(
    tmp_path_factory: pytest.TempPathFactory, core: tuple[bytes, list[Load], int, str]
) -> None:
    content, _, size, _ = core
    with open_file(tmp_path_factory.getbasetemp(), content, size) as source, open(source.text, "rb") as file:
        agrees(source, brute_force(*pyelftools_loads(file), size), size)


def pyelftools_loads(file: Any) -> tuple[list[Load], bytes, str]:
    segments = [segment.header for segment in ELFFile(file).iter_segments("PT_LOAD")]
    loads = [Load(s.p_offset, s.p_filesz, s.p_paddr, s.p_vaddr, s.p_memsz) for s in segments]
    file.seek(0)
    return loads, file.read(), "paddr" if any(load.paddr for load in loads) else "vaddr"


def core_of(*parts: tuple[int, bytes], memsz: int | None = None, by: str = "paddr", skip: int = 0) -> bytes:
    """A core whose segments, given as (address, bytes), lie in this order in the file; `skip` bytes before each."""
    loads, body, at = [], b"", table_end(len(parts))
    for address, data in parts:
        loads.append(Load(at + skip, len(data), memsz=memsz, **{by: address}))
        body += b"\xee" * skip + data
        at += skip + len(data)
    return elf_core(loads) + body


def test_physical_and_virtual_addresses(tmp_path: Path) -> None:
    start = table_end(2)
    both = [Load(start, PAGE, paddr=0, vaddr=7 * PAGE), Load(start + PAGE, PAGE, paddr=PAGE, vaddr=9 * PAGE)]
    with open_file(tmp_path, elf_core(both) + pages(1, 2)) as source:
        assert (source.kind, source.name, source.size) == ("elf", "guest", 2 * PAGE)
        assert frames(source) == {0: pages(1), PAGE: pages(2)}
    virtual = [Load(load.offset, PAGE, vaddr=load.vaddr) for load in both]
    with open_file(tmp_path, elf_core(virtual) + pages(1, 2)) as source:
        assert frames(source) == {7 * PAGE: pages(1), 9 * PAGE: pages(2)}
    with open_file(tmp_path, elf_core([Load(table_end(1), PAGE)]) + pages(1)) as source:
        assert frames(source) == {0: pages(1)}, "one segment at 0, as a guest without a hole has"


@pytest.mark.parametrize("absent", [0, 1, PAGE, (1 << 62) - 2 * PAGE])
def test_what_is_not_in_the_file_is_absent(tmp_path: Path, absent: int) -> None:
    with open_file(tmp_path, core_of((PAGE, pages(1)), memsz=PAGE + absent)) as source:
        assert frames(source) == {PAGE: pages(1)}
        assert source.apart == ({Apart.ABSENT: absent} if absent else {})


def test_absent_here_but_there_elsewhere(tmp_path: Path) -> None:
    """Only what no header has in the file is absent."""
    start = table_end(3)
    loads = [
        Load(start, PAGE, paddr=0, memsz=4 * PAGE),
        Load(start + PAGE, PAGE, paddr=2 * PAGE),
        Load((1 << 64) - 1, 0, paddr=3 * PAGE, memsz=2 * PAGE),
    ]
    with open_file(tmp_path, elf_core(loads) + pages(1, 2)) as source:
        assert frames(source) == {0: pages(1), 2 * PAGE: pages(2)}
        assert source.apart == {Apart.ABSENT: 3 * PAGE}


def test_a_core_that_holds_no_bytes(tmp_path: Path) -> None:
    with open_file(tmp_path, elf_core([Load(0, 0, vaddr=PAGE, memsz=PAGE)])) as source:
        assert (source.size, source.extents, source.apart) == (0, [], {Apart.ABSENT: PAGE})


def test_segments_that_meet_are_one_run(tmp_path: Path) -> None:
    """A frame that straddles two segments is there if it is contiguous in the file, too."""
    data = os.urandom(3 * PAGE)
    cut = PAGE + 100
    with open_file(tmp_path, core_of((cut, data[cut:]), (0, data[:cut]))) as source:
        assert list(frames(source)) == [0, 2 * PAGE]
        assert source.apart == {Apart.PARTIAL_PAGE: PAGE}
    with open_file(tmp_path, core_of((0, data[:cut]), (cut, data[cut:]))) as source:
        assert b"".join(frames(source).values()) == data
        assert len(source.extents) == 1
    with open_file(tmp_path, core_of((0, data[:cut]), (cut, data[cut:]), skip=1)) as source:
        assert list(frames(source)) == [0, 2 * PAGE]


def test_the_last_page_of_the_address_space(tmp_path: Path) -> None:
    top = (1 << 64) - PAGE
    with open_file(tmp_path, core_of((PAGE, pages(1)), (top, pages(2)), memsz=PAGE)) as source:
        assert frames(source) == {PAGE: pages(1), top: pages(2)}
    with pytest.raises(OSError, match=r"program header 0 .*p_paddr 0xfffffffffffff001 .*beyond the 64-bit address"):
        open_file(tmp_path, core_of((top + 1, pages(2))))
    start = table_end(1, 32)
    with open_file(tmp_path, elf_core([Load(start, PAGE, paddr=(1 << 32) - PAGE)], 32) + pages(3)) as source:
        assert frames(source) == {(1 << 32) - PAGE: pages(3)}
    with pytest.raises(OSError, match="beyond the 32-bit address space"):
        open_file(tmp_path, elf_core([Load(start, PAGE, paddr=(1 << 32) - PAGE + 1)], 32) + pages(3))


# The kernel's text in a crash core: the same physical memory, named before the RAM that holds it, stored twice.


def aliased(data: bytes, start: int, alias: bytes) -> bytes:
    return core_of((start, alias), (PAGE, data), by="paddr")


@pytest.mark.parametrize(("start", "size"), [(1, 1), (1, 4), (3, 2), (4, 1), (4, 3), (0, 2), (0, 8), (5, 1)])
def test_an_alias_is_counted_once(tmp_path: Path, start: int, size: int) -> None:
    """RAM of four pages from page 1 on, and `size` pages from `start` on a second time."""
    whole = {page: os.urandom(PAGE) for page in range(9)}
    ram = b"".join(whole[page] for page in range(1, 5))
    alias = b"".join(whole[page] for page in range(start, start + size))
    with open_file(tmp_path, aliased(ram, start * PAGE, alias)) as source:
        named = sorted({*range(1, 5), *range(start, start + size)})
        assert frames(source) == {page * PAGE: whole[page] for page in named}
        assert source.apart == {}


def test_an_alias_at_odd_addresses(tmp_path: Path) -> None:
    data = os.urandom(4 * PAGE)
    with open_file(tmp_path, aliased(data, PAGE + 77, data[77 : PAGE + 99])) as source:
        assert b"".join(frames(source).values()) == data


@pytest.mark.parametrize("at", [0, 1, PAGE - 1, (1 << 20) - 1, 1 << 20, (1 << 20) + PAGE - 1])
def test_an_alias_with_other_bytes(tmp_path: Path, at: int) -> None:
    data = os.urandom((1 << 20) + PAGE)
    alias = bytearray(data)
    alias[at] ^= 1
    with pytest.raises(OSError, match="overlap with different bytes") as caught:
        open_file(tmp_path, aliased(data, PAGE, bytes(alias)))
    message = str(caught.value)
    assert "program header 0 (at offset 0x40)" in message
    assert "program header 1 (at offset 0x78)" in message
    assert f"address {PAGE + at:#x} is at offsets {table_end(2) + at:#x} and" in message


@pytest.mark.parametrize("shared", [1, PAGE])
def test_the_smallest_overlap(tmp_path: Path, shared: int) -> None:
    first, second = pages(1, 2), pages(3, 4)
    with pytest.raises(OSError, match=f"different bytes: address {2 * PAGE - shared:#x} "):
        open_file(tmp_path, core_of((0, first), (2 * PAGE - shared, second)))
    with open_file(tmp_path, core_of((0, first), (2 * PAGE, second))) as source:
        assert b"".join(frames(source).values()) == first + second


def test_many_names_for_the_same_bytes(tmp_path: Path) -> None:
    """As QEMU writes with paging: one header a virtual address; and the bytes are not even compared."""
    start = table_end(70_000) + 64
    loads = [Load(start + PAGE * (i % 3), PAGE * (3 - i % 3), paddr=PAGE * (i % 3), vaddr=i) for i in range(70_000)]
    began = time.monotonic()
    with open_file(tmp_path, elf_core(loads, extended=True) + pages(1, 2, 3)) as source:
        assert frames(source) == {0: pages(1), PAGE: pages(2), 2 * PAGE: pages(3)}
    assert time.monotonic() - began < 5


def test_one_piece_of_the_file_at_two_addresses(tmp_path: Path) -> None:
    """It would make of a small file any amount of memory."""
    start = table_end(3)
    loads = [Load(start, 2 * PAGE, paddr=0), Load(start, PAGE, paddr=0), Load(start + PAGE, PAGE, paddr=5 * PAGE)]
    with pytest.raises(OSError, match=r"program header 0 .* and program header 2 .* at different addresses"):
        open_file(tmp_path, elf_core(loads) + pages(1, 2))


@pytest.mark.parametrize("shared", [0, 1])
def test_a_byte_of_the_file_at_two_addresses(tmp_path: Path, shared: int) -> None:
    start = table_end(2)
    loads = [Load(start, PAGE, paddr=0), Load(start + PAGE - shared, PAGE, paddr=5 * PAGE)]
    content = elf_core(loads) + pages(1, 2)
    if shared:
        with pytest.raises(OSError, match="at different addresses"):
            open_file(tmp_path, content)
    else:
        with open_file(tmp_path, content) as source:
            assert frames(source) == {0: pages(1), 5 * PAGE: pages(2)}


@pytest.mark.parametrize("stored", [(), (0,), (3,), (0, 3), (1, 2, 5)])
@pytest.mark.parametrize("shift", [0, 0x508])
def test_holes_are_known_and_not_read(tmp_path: Path, stored: tuple[int, ...], shift: int) -> None:
    unit = 64 * 1024
    path = tmp_path / "sparse.core"
    start = unit + shift
    with path.open("wb") as file:
        file.write(elf_core([Load(start, 6 * unit, paddr=1 << 30)]))
        file.truncate(start + 6 * unit)
        for index in stored:
            file.seek(start + index * unit)
            file.write(os.urandom(unit))
    content = path.read_bytes()[start:]
    with open_path(path) as source:
        assert b"".join(frames(source).values()) == content
        if os.stat(path).st_blocks * 512 > (len(stored) + 1) * (unit + PAGE):
            pytest.skip("this file system keeps no holes")
        assert holes(source) >= (6 - len(stored)) * (unit - 2 * PAGE)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 63, 64, 119])
def test_headers_cut_off(tmp_path: Path, size: int) -> None:
    whole = core_of((0, pages(1)))
    content = whole[: max(size, 4)]
    with pytest.raises(OSError, match=r"are missing; truncated\?\)"):
        open_file(tmp_path, content)


@pytest.mark.parametrize("missing", [1, PAGE - 1, PAGE, 2 * PAGE])
def test_a_truncated_core(tmp_path: Path, missing: int) -> None:
    whole = core_of((0, pages(1)), (PAGE, pages(2)))
    with pytest.raises(OSError, match=rf"p_offset .* p_filesz .*\({missing:,} bytes are missing in all; truncated\?\)"):
        open_file(tmp_path, whole[:-missing])


HUGE = (1 << 63) + 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (elf_core([], kind=0), "no core: e_type at offset 0x10 is ET_NONE"),
        (elf_core([], kind=1), "no core: e_type at offset 0x10 is ET_REL"),
        (elf_core([], kind=2), "no core: e_type at offset 0x10 is ET_EXEC"),
        (elf_core([], kind=3), "no core: e_type at offset 0x10 is ET_DYN"),
        (elf_core([], kind=0xFE00), "no core: e_type at offset 0x10 is type 0xfe00"),
        (elf_core([]), "without a LOAD segment"),
        (elf_core([Load(0, 5, kind=4)]), "without a LOAD segment"),
        (b"\x7fELF\x03\x01" + bytes(60), "EI_CLASS at offset 0x4 is 3"),
        (b"\x7fELF\x02\x00" + bytes(60), "EI_DATA at offset 0x5 is 0"),
        (elf_core([Load(0, 8)], phentsize=0), "e_phentsize is 0; it must be 56 in 64-bit ELF"),
        (elf_core([Load(0, 8)], 32, phentsize=56), "e_phentsize is 56; it must be 32 in 32-bit ELF"),
        (elf_core([Load(0, 8)], phoff=HUGE), r"table of 1 program headers .*at offset 0x8000000000000005"),
        (elf_core([Load(0, 8)], phoff=65), r"1 bytes are missing"),
        (elf_core([Load(0, 8)], phnum=0xFFFE), r"65,534 program headers .*bytes are missing"),
        (elf_core([Load(0, 8)], phnum=0xFFFF), "e_phnum is 0xffff, .*e_shoff is 0"),
        (elf_core([Load(0, 8)], extended=True, shentsize=40), "e_shentsize is 40; it must be 64"),
        (elf_core([Load(0, 8)], extended=True, shoff=HUGE), r"section header 0 \(e_shoff\) takes 64 bytes"),
        (elf_core([Load(0, 8, memsz=1 << 63)], extended=True, shoff=64), "table of 2,147,483,648 program headers"),
        (elf_core([Load(HUGE, 8)]), "p_offset 0x8000000000000005"),
        (elf_core([Load(0, HUGE)]), "p_filesz 0x8000000000000005"),
        (elf_core([Load((1 << 64) - 1, 8)]), "p_offset 0xffffffffffffffff"),
        (elf_core([Load((1 << 64) - 1, (1 << 64) - 1)]), "p_offset 0xffffffffffffffff"),
        (elf_core([Load(0, 9, memsz=8)]), "p_filesz 0x9 is larger than p_memsz 0x8"),
        (elf_core([Load(0, 8, paddr=(1 << 64) - 1)]), "p_paddr 0xffffffffffffffff"),
        (elf_core([Load(0, 8, vaddr=HUGE, memsz=HUGE)]), "p_vaddr 0x8000000000000005"),
    ],
)
def test_lying_headers(tmp_path: Path, content: bytes, message: str) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=message) as caught:
        open_file(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("what", ["apart", "aliases", "descending", "one byte", "no bytes", "no load"])
def test_many_headers(tmp_path: Path, what: str) -> None:
    """Neither quadratic nor by a claimed size; each kind has another way to be slow."""
    n = 100_000
    start = table_end(n) + 64
    size = 8
    loads = {
        "apart": lambda i: Load(start + size * i, size, paddr=3 * size * i),
        "descending": lambda i: Load(start + size * (n - i), size, paddr=size * i),
        "aliases": lambda i: Load(start + size * i, size, paddr=size * (i % 2)),
        "one byte": lambda i: Load(start + 2 * i, 1, paddr=3 * i),
        "no bytes": lambda i: Load(1 << 60, 0, paddr=i, memsz=(1 << 63) - 1),
        "no load": lambda i: Load(1 << 60, 1 << 60, kind=4),
    }[what]
    head = elf_core([loads(i) for i in range(n)], extended=True)
    content = head + bytes(size * (n + 1))
    began = time.monotonic()
    try:
        open_file(tmp_path, content, frame_size=8).close()
    except OSError as error:
        assert what == "no load", error
    assert time.monotonic() - began < 10


def test_file_that_shrinks_while_read(tmp_path: Path) -> None:
    with open_file(tmp_path, core_of((0, pages(1, 2, 3)))) as source:
        os.truncate(source.text, 2 * PAGE)
        with pytest.raises(OSError, match=re.escape(f"{source.text}: the file shrank")):
            source.check()


# Real cores of a process with pages that are known.

CHILD = """
import ctypes, mmap, os, signal, sys
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER: anyone, where Yama asks
pages = mmap.mmap(-1, 16 * 4096)
for page in range(0, 16, 2):
    pages[page * 4096:(page + 1) * 4096] = bytes([page + 1]) * 4096
print(ctypes.addressof(ctypes.c_char.from_buffer(pages)), flush=True)
if sys.argv[1] == "crash":
    os.kill(os.getpid(), signal.SIGABRT)
signal.pause()
"""
KNOWN = [bytes([page + 1]) * PAGE if page % 2 == 0 else bytes(PAGE) for page in range(16)]


@contextmanager
def child(folder: Path, what: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process with known pages, and their address."""

    def allow_core() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    with subprocess.Popen(
        [sys.executable, "-X", "faulthandler=0", "-c", CHILD, what],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        preexec_fn=allow_core,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def check_real_core(path: Path, address: int) -> Source:
    """The known pages, and all else as pyelftools finds it."""
    with open_path(path) as source, path.open("rb") as file:
        found = frames(source)
        assert [found[address + at] for at in range(0, 16 * PAGE, PAGE)] == KNOWN
        loads, content, by = pyelftools_loads(file)
        assert by == "vaddr"
        expected = {
            load.vaddr + at: content[load.offset + at : load.offset + at + PAGE]
            for load in loads
            for at in range(0, load.filesz, PAGE)
        }
        assert found == expected
        absent = sum((load.memsz or 0) - load.filesz for load in loads)
        assert source.apart == ({Apart.ABSENT: absent} if absent else {})
        return source


@pytest.mark.gdb
def test_core_of_gcore(tmp_path: Path) -> None:
    with child(tmp_path, "wait") as (process, address):
        command = [shutil.which("gcore") or "gcore", "-o", str(tmp_path / "core"), str(process.pid)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        check_real_core(tmp_path / f"core.{process.pid}", address)


def test_core_of_the_kernel(tmp_path: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith("|") or "/" in pattern:
        pytest.skip(f"kernel.core_pattern is {pattern!r}: the core of a process is not left in its folder")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("the size of cores is limited here (ulimit -H -c)")
    with child(tmp_path, "crash") as (process, address):
        assert process.wait(60) == -signal.SIGABRT
    (core,) = map(Path, glob.glob(str(tmp_path / pattern.partition("%")[0]) + "*"))
    source = check_real_core(core, address)
    assert source.apart[Apart.ABSENT] > 100 * PAGE, "the texts of programs and libraries are files, not in the core"


def test_a_program_is_no_core() -> None:
    with pytest.raises(OSError, match=r"is an ELF file, but no core: e_type at offset 0x10 is ET_(EXEC|DYN)"):
        open_path(Path(sys.executable).resolve())
