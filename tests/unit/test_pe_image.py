"""PE images: made ones against brute force, and files that lie."""

import os
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagedup.guests.images import Image, ImageError, Section, load
from tests.pe_files import (
    ABSOLUTE,
    CODE,
    DATA,
    DIR64,
    HIGH,
    HIGHADJ,
    HIGHLOW,
    LOW,
    PAGE,
    PE_AT,
    RDATA,
    SECTION,
    Fixup,
    Part,
    blocks,
    image_base_at,
    import_table,
    mapped,
    pe_file,
    relocated,
)

KINDS = [ABSOLUTE, HIGH, LOW, HIGHLOW, HIGHADJ, DIR64]
WIDTH = {ABSOLUTE: 1, HIGH: 2, LOW: 2, HIGHLOW: 4, HIGHADJ: 2, DIR64: 8}


def load_bytes(folder: Path, content: bytes, name: str = "made.dll") -> Image:
    path = folder / name
    path.write_bytes(content)
    return load(path)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, list[Part], list[Fixup], int, bool]:
    """A file, its sections, its fixups, 32 or 64 bit, and whether its header follows the base."""
    bits = draw(st.sampled_from([32, 64]))
    random = draw(st.randoms(use_true_random=False))
    parts, at = [], PAGE
    for number in range(draw(st.integers(1, 3))):
        data = random.randbytes(draw(st.integers(1, 2 * PAGE + 600)))
        size = draw(st.one_of(st.none(), st.integers(1, 3 * PAGE)))
        parts.append(Part(f".s{number}", at, data, size, draw(st.sampled_from([CODE, RDATA, DATA]))))
        end = at + (len(data) if size is None else size) + PAGE * draw(st.integers(0, 1))
        at = end + -end % PAGE
    places = st.one_of(st.integers(PAGE, at - 8), st.integers(1, at // PAGE - 1).map(lambda page: page * PAGE - 3))
    chosen = draw(st.lists(st.tuples(places, st.sampled_from(KINDS)), max_size=12))
    if draw(st.booleans()):
        chosen = sorted(set(chosen))
    follows = draw(st.booleans())
    content = pe_file(parts, blocks(chosen), bits=bits, base=0x10000000, dynamic_base=follows)
    return content, parts, chosen, bits, follows


@given(files(), st.lists(st.integers(1, (1 << 64) - 1), min_size=3, max_size=5))
def test_any_image_at_any_base(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[bytes, list[Part], list[Fixup], int, bool],
    places: list[int],
) -> None:
    content, parts, fixups, bits, follows = made
    image = load_bytes(tmp_path_factory.getbasetemp(), content)
    size = image.n_pages * PAGE
    expected = mapped([*parts, *relocation_part(parts, fixups)], content, size)
    assert image.pages().tobytes() == expected
    header = [(image_base_at(bits), HIGHLOW if bits == 32 else DIR64)] if follows else []
    changed = np.zeros(image.n_pages, bool)
    for place in places:
        base = place % ((1 << bits) - size) & ~0xFFFF
        after = relocated(expected, [*fixups, *header], base - image.preferred_base)
        pages = image.pages(base)
        assert pages.tobytes() == after
        changed |= (pages != image.pages()).any(1)
    assert not (changed & ~image.fixups).any()


def relocation_part(parts: list[Part], fixups: list[Fixup]) -> list[Part]:
    end = max(part.at + (part.size or len(part.data)) for part in parts)
    return [Part(".reloc", end + -end % PAGE, blocks(fixups))] if fixups else []


@pytest.mark.parametrize(
    ("at", "kind", "pages"),
    [
        (2 * PAGE, HIGHLOW, [2]),
        (2 * PAGE - 1, HIGHLOW, [2]),  # of the low 16 bits no base changes one
        (2 * PAGE - 2, HIGHLOW, [2]),
        (2 * PAGE - 3, HIGHLOW, [1, 2]),
        (2 * PAGE - 4, HIGHLOW, [1]),
        (2 * PAGE - 1, HIGH, [1, 2]),
        (2 * PAGE - 7, DIR64, [1, 2]),
        (2 * PAGE - 5, DIR64, [1, 2]),
        (2 * PAGE - 2, DIR64, [2]),
        (PAGE, LOW, []),
        (PAGE, ABSOLUTE, []),
    ],
)
def test_pages_with_fixups(tmp_path: Path, at: int, kind: int, pages: list[int]) -> None:
    parts = [Part(".text", PAGE, os.urandom(2 * PAGE), flags=CODE)]
    image = load_bytes(tmp_path, pe_file(parts, blocks([(at, kind)]), bits=64, dynamic_base=False))
    assert np.flatnonzero(image.fixups).tolist() == pages
    changed = (image.pages(0xFEDCBA9876540000) != image.pages()).any(1)
    assert np.flatnonzero(changed).tolist() == pages


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("follows", [True, False])
def test_the_header_tells_the_base_of_images_that_take_part_in_aslr(tmp_path: Path, bits: int, follows: bool) -> None:
    image = load_bytes(tmp_path, pe_file([Part(".text", PAGE, b"x")], b"", bits=bits, dynamic_base=follows))
    at, base = image_base_at(bits), 0x6B130000
    told = int.from_bytes(image.pages(base).tobytes()[at : at + bits // 8], "little")
    assert told == (base if follows else image.preferred_base)
    assert image.fixups.tolist() == [follows, False]
    assert image.relocatable, "without a directory there is nothing to relocate, but it can be"


def test_what_is_told_of_an_image(tmp_path: Path) -> None:
    table, places = import_table(2 * PAGE, {"KERNEL32.dll": 600, "a.dll": 1}, 8)
    parts = [
        Part(".text", PAGE, b"\xcc" * 10, flags=CODE),
        Part(".rdata", 2 * PAGE, table, flags=RDATA),
        Part(".data", 4 * PAGE, b"d" * 5000, size=3 * PAGE + 1, flags=DATA),
    ]
    content = pe_file(parts, blocks([(4 * PAGE, DIR64)]), bits=64, base=0x180000000, imports=2 * PAGE)
    image = load_bytes(tmp_path, content)
    assert (image.kind, image.machine, image.preferred_base, image.n_pages) == ("pe", "x86-64", 0x180000000, 9)
    assert image.name == str(tmp_path / "made.dll")
    assert image.sections == (
        Section("header", "rdata", 0, 1),
        Section(".text", "text", 1, 1),
        Section(".rdata", "rdata", 2, 2),
        Section(".data", "data", 4, 4),
        Section(".reloc", "rdata", 8, 1),
    )
    assert image.relocatable and image.granularity == 1 << 16
    assert np.flatnonzero(image.fixups).tolist() == [0, 4]
    assert image.imported == ("KERNEL32.dll", "a.dll")
    assert np.flatnonzero(image.imports).tolist() == [2, 3]
    assert places["a.dll"] // PAGE == 3
    pages = image.pages()
    assert pages.dtype == np.uint8 and pages.shape == (9, PAGE)
    assert not pages[6:8].any(), "memory behind the file's bytes is zero"


def test_bases_that_cannot_be(tmp_path: Path) -> None:
    parts = [Part(".text", PAGE, b"x")]
    image = load_bytes(tmp_path, pe_file(parts, b""))
    for base in (0x10001000, 0x1000FFFF, -0x10000, 1 << 32, (1 << 32) - PAGE, 0xFFFF8000):
        with pytest.raises(ValueError, match=r"the base -?0x[0-9a-f]+ "):
            image.pages(base)
    image.pages(0xFFFF0000)
    fixed = load_bytes(tmp_path, pe_file(parts, None))
    assert not fixed.relocatable and not fixed.fixups.any()
    fixed.pages(fixed.preferred_base)
    with pytest.raises(ValueError, match="cannot be relocated"):
        fixed.pages(0x20000000)


def test_a_file_that_was_cut_meanwhile(tmp_path: Path) -> None:
    image = load_bytes(tmp_path, pe_file([Part(".text", PAGE, b"x" * 5000)], b""))
    os.truncate(image.name, 2000)
    with pytest.raises(ImageError, match=r"made\.dll: the file shrank: nothing is left at offset 0x7d0"):
        image.pages()


def test_section_that_the_file_has_more_of_than_memory(tmp_path: Path) -> None:
    """Whole pages are mapped: what lies in the file behind the size is seen up to the page's end."""
    data = os.urandom(3 * PAGE)
    image = load_bytes(tmp_path, pe_file([Part(".text", PAGE, data, size=10), Part(".b", 2 * PAGE, b"")], b""))
    assert image.pages()[1].tobytes() == data[:PAGE]


def test_drivers_are_mapped_as_the_file_is(tmp_path: Path) -> None:
    """Sections aligned to less than a page."""
    parts = [Part(".text", 512, os.urandom(900)), Part("b", 1536, b"b" * 5000)]
    content = bytearray(pe_file(parts, None, alignment=512))
    image = load_bytes(tmp_path, bytes(content))
    assert image.pages().tobytes() == bytes(content).ljust(image.n_pages * PAGE, b"\0")
    assert image.sections == (Section("image", "text", 0, image.n_pages),)
    struct.pack_into("<I", content, SECTIONS_AT + 20, 1024)
    with pytest.raises(ImageError, match=r"PointerToRawData of section 0 at offset 0x14c .* SectionAlignment is 0x200"):
        load_bytes(tmp_path, bytes(content))


SECTIONS_AT = PE_AT + 24 + 224
WHOLE = pe_file([Part(".text", PAGE, bytes(range(1, 256)) * 20)], blocks([(PAGE, HIGHLOW), (PAGE + 4, HIGHLOW)]))


@pytest.mark.parametrize("size", range(64, len(WHOLE), 37))
def test_truncated_anywhere(tmp_path: Path, size: int) -> None:
    with pytest.raises(ImageError) as caught:
        load_bytes(tmp_path, WHOLE[:size])
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "made.dll: ")) and "\n" not in message
    assert "0x" in message


OPTIONAL = PE_AT + 24
LIES = [
    (0x3C, "<I", 0xFFFFFFFF, "e_lfanew at offset 0x3c is 0xffffffff, beyond"),
    (PE_AT + 6, "<H", 0xFFFF, "table of 65,535 sections"),
    (PE_AT + 20, "<H", 4, "SizeOfOptionalHeader at offset 0x54 is 0x4; it must be at least 0x60"),
    (PE_AT + 20, "<H", 0xFFFF, "optional header .* takes 65,535 bytes"),
    (OPTIONAL, "<H", 0x107, r"Magic at offset 0x58 is 0x107; it must be 0x10b \(PE32\)"),
    (OPTIONAL + 28, "<I", 0x401000, "ImageBase at offset 0x74 is 0x401000; it must be a multiple of 64 KiB"),
    (OPTIONAL + 56, "<I", 0xFFFFFFFF, "SizeOfImage at offset 0x90 makes an image of 4,294,967,296 bytes"),
    (OPTIONAL + 56, "<I", 0x40000000, "SizeOfImage at offset 0x90 makes an image of 1,073,741,824 bytes"),
    (OPTIONAL + 56, "<I", 0, "SizeOfImage at offset 0x90 is 0x0"),
    (OPTIONAL + 56, "<I", PAGE, r"VirtualSize of section 0 at offset .* ends beyond SizeOfImage 0x1000"),
    (OPTIONAL + 60, "<I", 0, "SizeOfHeaders at offset 0x94 is 0x0"),
    (OPTIONAL + 60, "<I", 100, "SizeOfHeaders at offset 0x94 is 0x64; it must include the optional header"),
    (OPTIONAL + 60, "<I", 0xFFFFFFF0, "SizeOfHeaders at offset 0x94 is 0xfffffff0"),
    (OPTIONAL + 96 + 8 * 5, "<I", 0xFFFFFF00, "data directory 5 at offset 0xe0 is 0xffffff00; .* beyond the image"),
    (OPTIONAL + 96 + 8 * 5 + 4, "<I", 0xFFFFFFF0, "data directory 5 .* beyond the image"),
    (OPTIONAL + 96 + 8 * 1, "<II", (PAGE, 40), "."),
    (SECTIONS_AT + 8, "<I", 0xFFFFFFFF, "VirtualSize of section 0 at offset .* ends beyond SizeOfImage"),
    (SECTIONS_AT + 12, "<I", 0xFFFFF000, "VirtualSize of section 0 .* ends beyond SizeOfImage"),
    (SECTIONS_AT + 12, "<I", 0x1010, "VirtualAddress of section 0 .* multiple of the page size"),
    (SECTIONS_AT + 12, "<I", 0, "VirtualAddress of section 0 .* overlaps 'header' before it"),
    (SECTIONS_AT + SECTION + 12, "<I", PAGE, "VirtualAddress of section 1 .* overlaps '.text' before it"),
    (SECTIONS_AT + 16, "<I", 0xFFFFFFFF, r"PointerToRawData of section 0 .* beyond the file's .*truncated"),
    (SECTIONS_AT + 20, "<I", 0xFFFFFFFF, r"PointerToRawData of section 0 at offset .* is 0xffffffff; .*truncated"),
]


@pytest.mark.parametrize(("at", "form", "value", "message"), LIES)
def test_lying_headers(tmp_path: Path, at: int, form: str, value: int | tuple[int, ...], message: str) -> None:
    content = bytearray(WHOLE)
    struct.pack_into(form, content, at, *(value if isinstance(value, tuple) else (value,)))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=message) as caught:
            load_bytes(tmp_path, bytes(content))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def with_relocations(data: bytes) -> bytes:
    return pe_file([Part(".text", PAGE, b"x" * PAGE)], data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<II", PAGE, 0), "SizeOfBlock at address 0x2004 of the image is 0x0; it must be even, at least 8"),
        (struct.pack("<II", PAGE, 7), "SizeOfBlock at address 0x2004 of the image is 0x7"),
        (struct.pack("<IIHH", PAGE, 11, 0, 0), "SizeOfBlock at address 0x2004 of the image is 0xb"),
        (struct.pack("<II", PAGE, 16), "SizeOfBlock .* is 0x10; .* not beyond the directory's end 0x2008"),
        (struct.pack("<II", PAGE, 0xFFFFFFFE), "SizeOfBlock .* is 0xfffffffe"),
        (struct.pack("<II", PAGE, 8) + b"\1\2\3\4", "block at address 0x2008 of the image is cut off: 4 bytes"),
        (blocks([(0x7FFFF000, HIGHLOW)]), "address 0x7ffff000 of the image is beyond its end 0x3000"),
        (blocks([(3 * PAGE - 3, HIGHLOW)]), "address 0x2ffd of the image is beyond its end 0x3000"),
        (struct.pack("<IIHH", 0xFFFFFFFF, 12, 0x3FFF, 0), "address 0x100000ffe of the image is beyond"),
        (blocks([(PAGE, 5)]), "address 0x1000 of the image is of type 5, which is not known for machine 0x14c"),
        (struct.pack("<IIH", PAGE, 10, HIGHADJ << 12), "HIGHADJ, but its parameter is missing"),
    ],
)
def test_lying_relocations(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_bytes(tmp_path, with_relocations(data))


def test_lying_imports(tmp_path: Path) -> None:
    end = 2 * PAGE
    for descriptor, message in [
        ((0, 0, 0, 0xFFFFFFF0, PAGE), "Name of import descriptor 0"),
        ((0, 0, 0, PAGE, 0xFFFFFFF0), "the table of import descriptor 0 .* has no end"),
        ((0xFFFFFFF0, 0, 0, PAGE, PAGE), "the table of import descriptor 0 .* has no end"),
        ((PAGE + 1024, 0, 0, PAGE, end - 4), "FirstThunk 0x1ffc of import descriptor 0 with 2 entries is beyond"),
    ]:
        data = bytearray(b"name\0".ljust(PAGE, b"\0"))
        data[1024:1036] = struct.pack("<III", 1, 1, 0)
        data[2048:2068] = struct.pack("<5I", *descriptor)
        with pytest.raises(ImageError, match=message):
            load_bytes(tmp_path, pe_file([Part(".text", PAGE, bytes(data))], None, imports=PAGE + 2048))
    endless = (struct.pack("<5I", 0, 0, 0, PAGE, PAGE + 1) * (PAGE // 20)).ljust(PAGE, b"\1")
    with pytest.raises(ImageError, match="import descriptor 204"):
        load_bytes(tmp_path, pe_file([Part(".text", PAGE, endless)], None, imports=PAGE))


def test_import_tables_that_are_followed_for_hours(tmp_path: Path) -> None:
    """Tens of thousands of descriptors, whose tables all end at the end of the image, at other places."""
    n = 50_000
    size = 4 << 20
    data = bytearray(b"\1" * size)
    data[: 20 * n] = b"".join(struct.pack("<5I", 0, 0, 0, PAGE + size - 16, PAGE + 20 * n + i) for i in range(n))
    data[-16:] = bytes(16)
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"the table of import descriptor \d+ overlaps those before it"):
        load_bytes(tmp_path, pe_file([Part(".text", PAGE, bytes(data))], None, imports=PAGE))
    assert time.monotonic() - began < 5


def test_many_relocations_take_no_time(tmp_path: Path) -> None:
    """A million of them, and a hundred thousand blocks."""
    n = 4096
    fixups = [(PAGE * (1 + page) + at, HIGHLOW) for page in range(n) for at in range(0, PAGE, 16)]
    body = os.urandom(n * PAGE)
    content = pe_file([Part(".text", PAGE, body)], blocks(fixups) + struct.pack("<II", 0, 8) * 100_000)
    began = time.monotonic()
    image = load_bytes(tmp_path, content)
    pages = image.pages(0x20000000)
    assert time.monotonic() - began < 5
    fields = pages[1 : n + 1].reshape(-1, 16)[:, :4].copy().view("<u4")
    before = np.frombuffer(body, np.uint8).reshape(-1, 16)[:, :4].copy().view("<u4")
    assert (fields == before + np.uint32(0x10000000)).all()


def test_a_program_for_dos_is_a_plain_file(tmp_path: Path) -> None:
    for content in (b"MZ", b"MZ".ljust(64, b"\0"), b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 1 << 20)):
        assert load_bytes(tmp_path, content.ljust(100, b"\0")).kind == "file"
    other = WHOLE.replace(b"PE\0\0", b"NE\0\0", 1)
    assert load_bytes(tmp_path, other).kind == "file"
