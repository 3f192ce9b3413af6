"""ELF images: made ones against brute force, real ones as the loader made them in this process, and lying headers."""

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from pagedup.guests.images import Image, ImageError, Section, load
from tests.elf_files import RELATIVE, RELR, RELRSZ, shared_object
from tests.pe_files import PAGE

FORMS = [(64, "<", 62), (64, "<", 183), (64, ">", 22), (32, "<", 3), (32, "<", 40)]
SYMBOLIC = 6  # R_X86_64_GLOB_DAT, R_386_GLOB_DAT


def load_bytes(folder: Path, content: bytes) -> Image:
    path = folder / "made.so"
    path.write_bytes(content)
    return load(path)


@given(
    st.sampled_from(FORMS),
    st.integers(100, 3 * PAGE),
    st.lists(st.tuples(st.integers(0, 3 * PAGE), st.booleans(), st.integers(0, (1 << 64) - 1)), max_size=10),
    st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=3),
    st.integers(0, 1 << 32),
    st.sampled_from([0, 0x400000]),
)
def test_any_relocations(
    tmp_path_factory: pytest.TempPathFactory,
    form: tuple[int, str, int],
    size: int,
    drawn: list[tuple[int, bool, int]],
    places: list[int],
    seed: int,
    link_base: int,
) -> None:
    bits, order, machine = form
    word = bits // 8
    data = np.random.default_rng(seed).bytes(size)
    wanted = [(PAGE + at % (size - word), explicit, addend) for at, explicit, addend in drawn]
    rela = [(link_base + at, RELATIVE[machine], addend) for at, explicit, addend in wanted if explicit]
    rel = [(link_base + at, RELATIVE[machine]) for at, explicit, _ in wanted if not explicit]
    made = shared_object(data, rela=rela, rel=rel, bits=bits, order=order, machine=machine, base=link_base)
    image = load_bytes(tmp_path_factory.getbasetemp(), made.content)
    assert image.preferred_base == link_base
    assert not image.imports.any()
    way: Literal["little", "big"] = "little" if order == "<" else "big"
    previous = None
    for place in [link_base, *places]:
        base = place % ((1 << bits) - image.n_pages * PAGE) // PAGE * PAGE
        expected = bytearray(made.content.ljust(image.n_pages * PAGE, b"\0"))
        delta = base - link_base
        for at, _ in rel:
            field = slice(at - link_base, at - link_base + word)
            moved = int.from_bytes(expected[field], way) + delta
            expected[field] = (moved % (1 << bits)).to_bytes(word, way)
        for at, _, addend in rela:
            field = slice(at - link_base, at - link_base + word)
            expected[field] = ((addend + delta) % (1 << bits)).to_bytes(word, way)
        pages = image.pages(base)
        assert pages.tobytes() == expected
        if previous is not None:
            assert not ((pages != previous).any(1) & ~image.fixups).any()
        previous = pages


@given(st.sampled_from([(64, 62), (32, 3)]), st.sets(st.integers(0, 900), max_size=300))
def test_relr(tmp_path_factory: pytest.TempPathFactory, form: tuple[int, int], words: set[int]) -> None:
    """Encoded as a linker does: an address, then bits for the words behind it."""
    bits, machine = form
    word = bits // 8
    left, encoded = sorted(PAGE + word * number for number in words), []
    while left:
        at = left.pop(0)
        encoded.append(at)
        at += word
        while True:
            here = [place for place in left if place < at + (bits - 1) * word]
            if not here:
                break
            encoded.append(1 | sum(1 << 1 + (place - at) // word for place in here))
            left = left[len(here) :]
            at += (bits - 1) * word
    data = os.urandom(1000 * word)
    made = shared_object(data, relr=encoded, bits=bits, machine=machine)
    image = load_bytes(tmp_path_factory.getbasetemp(), made.content)
    before, after = (image.pages(base).reshape(-1).view(f"<u{word}").astype(np.uint64) for base in (0, 0x7654000))
    moved = np.flatnonzero(before != after) * word
    assert moved.tolist() == sorted(PAGE + word * number for number in words)
    assert set((after - before).tolist()) <= {0, 0x7654000} | {0x7654000 - (1 << 32) + (1 << 64)}


def test_what_is_told_of_an_image(tmp_path: Path) -> None:
    made = shared_object(
        bytes(2 * PAGE),
        rela=[(PAGE + 8, 8, 0x123), (2 * PAGE, SYMBOLIC, 0), (2 * PAGE - 4, SYMBOLIC, 0)],
        needed=["libc.so.6", "libm.so.6"],
        memory=5 * PAGE,
    )
    image = load_bytes(tmp_path, made.content)
    assert (image.kind, image.machine, image.n_pages, image.granularity) == ("elf", "x86-64", 9, PAGE)
    assert image.sections == (Section(".data", "data", 0, 9),)
    assert image.imported == ("libc.so.6", "libm.so.6")
    assert np.flatnonzero(image.fixups).tolist() == [1]
    assert np.flatnonzero(image.imports).tolist() == [1, 2]
    assert image.pages(0x5000)[1, 8:16].tobytes() == struct.pack("<Q", 0x5123)
    with pytest.raises(ValueError, match="no multiple of 0x1000"):
        image.pages(0x800)


def test_a_program_that_is_not_relocated(tmp_path: Path) -> None:
    made = shared_object(bytes(PAGE), rela=[(0x401000, 8, 0x123)], kind=2, base=0x400000)
    image = load_bytes(tmp_path, made.content)
    assert not image.relocatable and not image.fixups.any()
    assert image.pages()[1, :2].tobytes() == b"\x23\x01"
    with pytest.raises(ValueError, match="cannot be relocated; the only base is 0x400000"):
        image.pages(0x500000)


@pytest.mark.parametrize("kind", [0, 1, 4, 0xFE00])
def test_what_is_not_mapped_is_a_plain_file(tmp_path: Path, kind: int) -> None:
    assert load_bytes(tmp_path, shared_object(b"x", kind=kind).content).kind == "file"


MADE = shared_object(bytes(64), rela=[(PAGE, 8, 1)], needed=["a"])
P = MADE.fields["table"]
HUGE = (1 << 64) - 1


@pytest.mark.parametrize("size", [4, 5, 16, 19, 20, 63, 64, 100, 175, 176, 4095, 4097, len(MADE.content) - 1])
def test_truncated_anywhere(tmp_path: Path, size: int) -> None:
    with pytest.raises(ImageError, match=r"made\.so: .* 0x") as caught:
        load_bytes(tmp_path, MADE.content[:size])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("at", "form", "value", "message"),
    [
        (4, "B", 3, "EI_CLASS at offset 0x4 is 3"),
        (5, "B", 0, "EI_DATA at offset 0x5 is 0"),
        (18, "H", 8, "e_machine at offset 0x12 is 8"),
        (32, "Q", HUGE, "program headers from offset 0xffffffffffffffff on are beyond"),
        (54, "H", 32, "e_phentsize at offset 0x36 is 32; it must be 56"),
        (56, "H", 0, "e_phnum at offset 0x38 is 0"),
        (56, "H", 0xFFFF, "e_phnum at offset 0x38 is 65535"),
        (56, "H", 0xFFFE, "e_phnum at offset 0x38 is 65534; so many program headers"),
        (P, "I", 4, "none of the 2 program headers is LOAD"),
        (P + 8, "Q", HUGE, "p_offset of program header 0 at offset 0x48 is 0xffffffffffffffff; .*truncated"),
        (P + 8, "Q", 1, "p_offset of program header 0 at offset 0x48 is 0x1; "),
        (P + 16, "Q", 1, "p_offset of program header 0 .* modulo the page size"),
        (P + 16, "Q", HUGE & ~0xFFF, "p_vaddr of program header 0 .* beyond the address space"),
        (P + 32, "Q", HUGE, "p_filesz of program header 0 at offset 0x60 is 0xffffffffffffffff; it is more"),
        (P + 40, "Q", HUGE >> 1, "p_memsz of program header 0 at offset 0x68 makes an image of 9,223,"),
        (P + 40, "Q", 1 << 32, "p_memsz of program header 0 at offset 0x68 makes an image of 4,294,967,296 bytes"),
        (P + 56, "I", 1, "p_vaddr of program header 1 .* not behind those"),
        (P + 56 + 16, "Q", HUGE, r"the dynamic section \(PT_DYNAMIC\) takes"),
        (P + 56 + 40, "Q", HUGE, r"the dynamic section \(PT_DYNAMIC\) takes"),
    ],
)
def test_lying_headers(tmp_path: Path, at: int, form: str, value: int, message: str) -> None:
    content = bytearray(MADE.content)
    struct.pack_into("<" + form, content, at, value)
    with pytest.raises(ImageError, match=message):
        load_bytes(tmp_path, bytes(content))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({7: HUGE}, "the relocation table takes 24 bytes at address 0xffffffffffffffff"),
        ({8: HUGE}, "the relocation table at address .* are no whole entries of 24"),
        ({8: 24 << 40}, "the relocation table takes"),
        ({9: 8}, "DT_RELAENT in the dynamic section is 8; it must be 24"),
        ({17: PAGE, 18: 16, 19: 24}, "DT_RELENT in the dynamic section is 24; it must be 16"),
        ({5: HUGE}, "DT_NEEDED takes"),
        ({RELR: PAGE, RELRSZ: 7}, "DT_RELRSZ 0x7"),
        ({RELR: HUGE, RELRSZ: 8}, "DT_RELR takes 8 bytes"),
        ({23: PAGE, 2: 23}, "are no whole entries of 16"),
        ({0x60000011: 1}, "DT_ANDROID_RELA in the dynamic section"),
    ],
)
def test_lying_dynamic_sections(tmp_path: Path, tags: dict[int, int], message: str) -> None:
    made = shared_object(bytes(64), rela=[(PAGE, 8, 1)], needed=["a"], tags=tags)
    with pytest.raises(ImageError, match=message):
        load_bytes(tmp_path, made.content)


@pytest.mark.parametrize(
    ("relr", "message"),
    [
        ([3], "begins with bits, 0x3, not an address"),
        ([1 << 40], "relocation of address 0x10000000000 is not within"),
        ([2 * PAGE - 16, HUGE], "lists a word beyond the image's end"),
        ([PAGE, *[HUGE] * 50], "lists more words than the image has"),
        ([2 * PAGE - 8, 1, 1 << 63 | 1], "lists a word beyond the image's end"),
    ],
)
def test_lying_relr(tmp_path: Path, relr: list[int], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_bytes(tmp_path, shared_object(bytes(64), relr=relr).content)


@pytest.mark.parametrize("at", [HUGE, 1 << 32, 2 * PAGE - 7])
@pytest.mark.parametrize("type_", [8, SYMBOLIC])
def test_relocations_outside(tmp_path: Path, at: int, type_: int) -> None:
    with pytest.raises(ImageError, match=f"relocation of address {at:#x} is not within the image's 8,192 bytes at 0x0"):
        load_bytes(tmp_path, shared_object(bytes(64), rela=[(at, type_, 0)]).content)


# Real ones


def mapped_objects() -> dict[Path, int]:
    """Shared objects and programs that this process has mapped, and where."""
    found: dict[Path, int] = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        match = re.match(r"([0-9a-f]+)-\S+ \S+ 0+ \S+ \d+\s+(/.*)$", line)
        if match and not match[2].endswith("(deleted)"):
            path = Path(match[2])
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    found.setdefault(path, int(match[1], 16))
    return found


@pytest.mark.parametrize("name", ["libc.so", "libm.so", "python", "numpy/_core", "_dedupcore"])
def test_as_the_real_loader_made_it(name: str) -> None:
    """Text, constants, and what is read-only once it is relocated; symbols of other images left out."""
    objects = {path: base for path, base in mapped_objects().items() if name in str(path)}
    if not objects:
        pytest.skip(f"nothing with {name!r} in its name is mapped here")
    compared = moved = 0
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        for path, base in objects.items():
            image = load(path)
            if not image.relocatable:
                assert base == image.preferred_base
            pages = image.pages(base)
            for section in image.sections:
                if section.name == ".data":
                    continue  # it has been written to since
                for page in range(section.first_page, section.first_page + section.n_pages):
                    if image.imports[page]:
                        continue
                    memory.seek(base + page * PAGE)
                    assert memory.read(PAGE) == pages[page].tobytes(), (path, section, page)
                    compared += 1
                    moved += int(image.fixups[page])
    assert compared > 10
    assert moved or name in ("libm.so", "_dedupcore"), "all their pointers lie in pages with symbols of others"


def test_relocations_as_pyelftools_reads_them() -> None:
    for path in mapped_objects():
        image = load(path)
        with path.open("rb") as file:
            elf = ELFFile(file)
            loads = [segment.header for segment in elf.iter_segments("PT_LOAD")]
            base = loads[0].p_vaddr // PAGE * PAGE
            assert (image.preferred_base, image.relocatable) == (base, elf.header.e_type == "ET_DYN")
            end = max(load_.p_vaddr + load_.p_memsz for load_ in loads)
            assert image.n_pages == -(-(end - base) // PAGE)
            dynamic: Any = next(segment for segment in elf.iter_segments() if isinstance(segment, DynamicSegment))
            assert image.imported == tuple(tag.needed for tag in dynamic.iter_tags("DT_NEEDED"))
            tables = dynamic.get_relocation_tables()
            everything = [relocation for table in tables.values() for relocation in table.iter_relocations()]
            kinds = [(entry["r_offset"], entry.entry.get("r_info_type", 8)) for entry in everything]  # of RELR none
            fields = {at for at, kind in kinds if kind == 8}
            others = {at for at, kind in kinds if kind not in (0, 8)}
        own = set((image.fields.at + base).tolist())
        assert own == fields, path
        pages = {place // PAGE for at in others for place in (at - base, at - base + 7)}
        assert set(np.flatnonzero(image.imports).tolist()) == pages


SOURCE = """
extern int printf(const char *, ...);
static const char *const names[] = {NAMES};
const char *const *all(void) { return names; }
int (*print)(const char *, ...) = printf;
"""


@pytest.mark.parametrize("how", [["-Wl,-z,pack-relative-relocs"], ["-Wl,-z,max-page-size=2097152"], []])
def test_as_gcc_links_and_ctypes_loads(tmp_path: Path, how: list[str]) -> None:
    """DT_RELR, and holes between segments, in an object that this test loads."""
    if not shutil.which("gcc"):
        pytest.skip("not installed: gcc")
    names = ", ".join(f'"name {number}"' for number in range(3000))
    source, target = tmp_path / "some.c", tmp_path / "some.so"
    source.write_text(SOURCE.replace("NAMES", names))
    command = ["gcc", "-shared", "-fPIC", "-O1", *how, "-o", str(target), str(source)]
    if subprocess.run(command, capture_output=True, text=True).returncode:
        pytest.skip(f"this gcc does not know {how}")
    child = f"""
import ctypes, sys
loaded = ctypes.CDLL({str(target)!r})
base = next(int(line.split("-")[0], 16) for line in open("/proc/self/maps") if {str(target)!r} in line)
with open("/proc/self/mem", "rb", buffering=0) as memory:
    for first, count in {[(s.first_page, s.n_pages) for s in load(target).sections]}:
        memory.seek(base + first * {PAGE})
        sys.stdout.buffer.write(memory.read(count * {PAGE}))
print(base, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, check=True)
    image = load(target)
    assert not how or "2097152" not in how[0] or image.n_pages > 1000
    covered = np.concatenate([np.arange(s.first_page, s.first_page + s.n_pages) for s in image.sections])
    real = np.frombuffer(done.stdout, np.uint8).reshape(-1, PAGE)
    ours = image.pages(int(done.stderr))[covered]
    written = np.array([s.name == ".data" for s in image.sections for _ in range(s.n_pages)])
    same = (real == ours).all(1)
    assert same[~written & ~image.imports[covered]].all()
    assert (image.fixups[covered] & same).sum() >= 4, "the table of 3000 names"
