"""Names of pages against their bytes: equal ones where the bytes are equal, at any bases."""

import os
import struct
import tracemalloc
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagedup.guests.images import Image, PageIdentities, identities, load
from tests.elf_files import shared_object
from tests.pe_files import DIR64, HIGH, HIGHLOW, PAGE, Fixup, Part, blocks, pe_file

BASE = 0x10000000


def load_all(folder: Path, contents: list[bytes]) -> list[Image]:
    images = []
    for number, content in enumerate(contents):
        path = folder / f"{number}.dll"
        path.write_bytes(content)
        images.append(load(path))
    return images


def names_of(images: list[Image], found: PageIdentities, bases: list[int]) -> tuple[list[tuple[int, int]], list[bytes]]:
    """The name and the bytes of each page of each image at its base."""
    names, contents = [], []
    for number, (image, base) in enumerate(zip(images, bases, strict=True)):
        items = found.of(number)
        names += list(zip(found.id[items].tolist(), found.parameter(items, base).tolist(), strict=True))
        contents += [page.tobytes() for page in image.pages(base)]
    return names, contents


def classes(values: Sequence[Hashable]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


# A template is a page's bytes, and its fields: place in the page, and what they point to, from the image's start.
@st.composite
def templates(draw: st.DrawFn, bits: int) -> list[tuple[bytes, dict[int, int]]]:
    width = bits // 8
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    bodies = [bytes(PAGE), random.bytes(PAGE), random.bytes(PAGE)]
    made = []
    for _ in range(draw(st.integers(2, 5))):
        slots = draw(st.lists(st.integers(0, PAGE // width - 1), max_size=3, unique=True))
        body = draw(st.sampled_from(bodies))
        target = draw(st.sampled_from([0x1000, 0x12345, 0x51000]))
        # A step of 0 or 4 makes pages whose fields are alike but for their differences.
        step = draw(st.sampled_from([0, 4]))
        made.append((body, {slot * width: target + step * n for n, slot in enumerate(slots)}))
    return made


@given(st.data(), st.sampled_from([32, 64]))
def test_equal_names_exactly_where_bytes_are_equal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, bits: int
) -> None:
    width = bits // 8
    pool = data.draw(templates(bits))
    contents = []
    for _ in range(data.draw(st.integers(1, 3))):
        base = data.draw(st.sampled_from([BASE, 2 * BASE]))
        body, fixups = bytearray(), []
        for number in data.draw(st.lists(st.integers(0, len(pool) - 1), min_size=1, max_size=5)):
            page, fields = pool[number]
            shift = data.draw(st.sampled_from([0, 0x10000, 0x20000, 0x20004]))
            page_at = PAGE + len(body)
            body += page
            for at, target in fields.items():
                place = page_at + at
                body[place - PAGE : place - PAGE + width] = (base + target + shift).to_bytes(width, "little")
                fixups.append((place, HIGHLOW if bits == 32 else DIR64))
        contents.append(pe_file([Part(".text", PAGE, bytes(body))], blocks(fixups), bits=bits, base=base))
    images = load_all(tmp_path_factory.getbasetemp(), contents)
    found = identities(images)
    assert found.fixups.tolist() == [bool(value) for image in images for value in image.fixups]
    near = st.sampled_from([0x20000000, 0x20010000, 0x20020000, 0x7FFF0000])
    bases = [data.draw(near) for _ in images]
    names, pages = names_of(images, found, bases)
    assert classes(names) == classes(pages)
    assert found.zero.tolist() == [page == bytes(PAGE) for page in pages]
    assert found.id.tolist() == classes(found.id.tolist()), "numbered as they first appear"
    # Two guests that each have all images: the same bases give the same names.
    others = [data.draw(near) for _ in images]
    more_names, more_pages = names_of(images, found, others)
    assert classes(names + more_names) == classes(pages + more_pages)


@given(st.data())
def test_equal_names_have_equal_bytes_whatever_the_fixups(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Fields that straddle pages, of mixed widths, that overlap, and halves of addresses."""
    contents = []
    for _ in range(2):
        random = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
        body = data.draw(st.sampled_from([bytes(3 * PAGE), random.bytes(PAGE) * 3, random.bytes(3 * PAGE)]))
        edge = st.sampled_from([2 * PAGE, 3 * PAGE]).flatmap(lambda at: st.integers(at - 9, at + 9))
        places = st.one_of(edge, st.integers(PAGE, PAGE + 64))
        fixups: list[Fixup] = data.draw(
            st.lists(st.tuples(places, st.sampled_from([HIGH, HIGHLOW, HIGHLOW, DIR64])), max_size=6)
        )
        contents.append(pe_file([Part(".text", PAGE, body)], blocks(fixups), bits=64, base=BASE))
    images = load_all(tmp_path_factory.getbasetemp(), [*contents, *contents])
    found = identities(images)
    for _ in range(3):
        bases = [data.draw(st.sampled_from([BASE, 0x1FFF0000, 0x7FFFFFFF0000])) for _ in images]
        names, pages = names_of(images, found, bases)
        bytes_of: dict[tuple[int, int], bytes] = {}
        for name, page in zip(names, pages, strict=True):
            assert bytes_of.setdefault(name, page) == page


@pytest.mark.parametrize(("shown", "shift", "bits"), [(1, 24, 8), (2, 16, 16), (3, 8, 24)])
def test_a_page_that_shows_the_end_of_a_field(tmp_path: Path, shown: int, shift: int, bits: int) -> None:
    """Its name changes with those bits of the base that it shows, and with no others."""
    content = pe_file([Part(".text", PAGE, os.urandom(2 * PAGE))], blocks([(2 * PAGE - 4 + shown, HIGHLOW)]), base=BASE)
    images = load_all(tmp_path, [content])
    found = identities(images)
    assert (found.shift[2], found.bits[2]) == (shift, bits)
    bases = [0x20000000, 0x20010000, 0x20FF0000, 0x21000000, 0x7FFE0000]
    names, pages = [], []
    for base in bases:
        of_base = names_of(images, found, [base])
        names.append(of_base[0][2])
        pages.append(of_base[1][2])
    assert classes(names) == classes(pages)


def test_the_same_code_in_two_images(tmp_path: Path) -> None:
    """Code that points to itself, linked into two images at other places."""
    body = bytearray(os.urandom(PAGE))

    def image(at: int, base: int) -> bytes:
        page = bytearray(body)
        struct.pack_into("<I", page, 100, base + at + 0x20)
        struct.pack_into("<I", page, 200, base + at + 0x30)
        parts = [Part(".a", PAGE, os.urandom(at - PAGE)), Part(".text", at, bytes(page))]
        return pe_file(parts, blocks([(at + 100, HIGHLOW), (at + 200, HIGHLOW)]), base=base)

    images = load_all(tmp_path, [image(2 * PAGE, BASE), image(18 * PAGE, 3 * BASE)])
    found = identities(images)
    first, second = 2, int(found.first[1]) + 18
    assert found.id[first] == found.id[second]
    there = 0x40010000
    assert found.parameter(np.array([first]), there + 0x10000) == found.parameter(np.array([second]), there)
    assert images[0].pages(there + 0x10000)[2].tobytes() == images[1].pages(there)[18].tobytes()


def test_elf_and_plain_files(tmp_path: Path) -> None:
    data = os.urandom(PAGE) + bytes(2 * PAGE)
    made = shared_object(data, rela=[(2 * PAGE + 8, 8, 0x100)], memory=PAGE).content
    (tmp_path / "text").write_bytes(data[:PAGE] + b"x")
    images = [*load_all(tmp_path, [made, made]), load(tmp_path / "text")]
    found = identities(images)
    assert found.first.tolist() == [0, 6, 12, 14]
    assert found.id[:6].tolist() == found.id[6:12].tolist()
    assert found.id[12] == found.id[1]
    assert found.zero.tolist() == [False, False, False, True, False, True] * 2 + [False] * 2
    assert found.parameter(slice(0, 6), 0x7000).tolist() == [0, 0, 0x7100, 0, 0, 0]


def test_nothing() -> None:
    found = identities([])
    assert (len(found.id), found.n_ids, found.first.tolist()) == (0, 0, [0])


def test_memory(tmp_path: Path) -> None:
    """At worst pages are full of fixups, which no two share."""
    n = 16 << 8
    fixups = [(PAGE * (1 + page) + at, HIGHLOW) for page in range(n) for at in range(0, PAGE, 64)]
    content = pe_file([Part(".text", PAGE, os.urandom(n * PAGE))], blocks(fixups))
    images = load_all(tmp_path, [content] * 8)
    tracemalloc.start()
    try:
        found = identities(images)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * sum(image.n_pages for image in images) * PAGE
    assert found.n_ids == images[0].n_pages
