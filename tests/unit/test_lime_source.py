"""LiME dumps: made ones against brute force, and lying headers."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagedup.memory import Apart
from tests.dumps import frames, lime, lime_header, open_file, pages

PAGE = 4096


@st.composite
def dumps(draw: st.DrawFn) -> tuple[list[tuple[int, bytes]], int]:
    """Ranges (address, bytes) that do not overlap, in any order, and a frame size."""
    size = draw(st.sampled_from([8, 32, 4096]))
    few = st.one_of(st.integers(0, 3 * size), st.integers(0, 3).map(lambda n: n * size))
    address, ranges = 0, []
    random = draw(st.randoms(use_true_random=False))
    for gap, length in draw(st.lists(st.tuples(few, few), min_size=1, max_size=6)):
        address += gap
        ranges.append((address, random.randbytes(length + 1)))
        address += length + 1
    return draw(st.one_of(st.just(ranges), st.permutations(ranges))), size


@given(dumps())
def test_any_dump(tmp_path_factory: pytest.TempPathFactory, dump: tuple[list[tuple[int, bytes]], int]) -> None:
    ranges, size = dump
    expected, total = {}, 0
    for address, data in ranges:
        memory = {address + at: data[at : at + 1] for at in range(len(data))}
        total += len(data)
        for base in {at - at % size for at in memory}:
            content = b"".join(memory.get(base + at, b"") for at in range(size))
            if len(content) == size:
                expected[base] = content
    with open_file(tmp_path_factory.getbasetemp(), lime(ranges), size) as source:
        assert source.kind == "lime"
        assert frames(source, size) == expected
        partial = total - size * len(expected)
        assert source.apart == ({Apart.PARTIAL_PAGE: partial} if partial else {})
        source.check()


def test_a_padded_dump_is_a_raw_image(tmp_path: Path) -> None:
    with open_file(tmp_path, bytes(PAGE) + pages(1, 2)) as source:
        assert (source.kind, frames(source)) == ("raw", {0: pages(0), PAGE: pages(1), 2 * PAGE: pages(2)})


def test_the_ends_of_the_address_space(tmp_path: Path) -> None:
    top = (1 << 64) - PAGE
    with open_file(tmp_path, lime([(top, pages(1)), (0, pages(2))])) as source:
        assert frames(source) == {0: pages(2), top: pages(1)}


@pytest.mark.parametrize("cut", [1, PAGE, 2 * PAGE - 1, 2 * PAGE])
def test_a_truncated_range(tmp_path: Path, cut: int) -> None:
    content = lime([(0, pages(1)), (2 * PAGE, pages(2, 3))])
    with pytest.raises(OSError, match=rf"e_addr at offset 0x1030 .*\({cut:,} bytes are missing; truncated\?\)"):
        open_file(tmp_path, content[:-cut])


@pytest.mark.parametrize("left", [1, 4, 31])
def test_a_truncated_header(tmp_path: Path, left: int) -> None:
    content = lime([(0, pages(1)), (2 * PAGE, b"")])
    message = rf"a LiME header takes 32 bytes at offset 0x1020.*\({32 - left} bytes are missing"
    with pytest.raises(OSError, match=message):
        open_file(tmp_path, content[: 32 + PAGE + left])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lime_header(0, PAGE - 1, version=2) + pages(1), "version at offset 0x4 is 2; only LiME version 1"),
        (lime_header(0, PAGE - 1) + pages(1) + pages(2), r"magic at offset 0x1020 is 0x02020202; .*0x4c694d45"),
        (lime_header(5, 4) + pages(1), "e_addr at offset 0x10 is 0x4, below s_addr 0x5"),
        (lime_header(1 << 63, 5) + pages(1), "e_addr at offset 0x10 is 0x5, below s_addr 0x8000000000000000"),
        (lime_header(0, (1 << 64) - 1) + pages(1), r"range of 18,446,744,073,709,551,616 bytes.*missing"),
        (lime([(0, pages(1, 2)), (PAGE, pages(2))]), "headers at offsets 0x0 and 0x2020 overlap: e_addr 0x1fff"),
        (lime([(PAGE, pages(2)), (0, pages(1, 2))]), "headers at offsets 0x1020 and 0x0 overlap: e_addr 0x1fff"),
        (lime([(0, pages(1)), (PAGE - 1, pages(1))]), "e_addr 0xfff is not below s_addr 0xfff"),
        (lime([(0, pages(1)), (0, pages(1))]), "overlap"),
    ],
)
def test_lying_headers(tmp_path: Path, content: bytes, message: str) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=message) as caught:
        open_file(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_ranges_that_meet(tmp_path: Path) -> None:
    with open_file(tmp_path, lime([(0, pages(1)), (PAGE, pages(2))])) as source:
        assert frames(source) == {0: pages(1), PAGE: pages(2)}


def test_many_ranges(tmp_path: Path) -> None:
    n = 100_000
    content = b"".join(lime_header(2 * i, 2 * i) + b"x" for i in range(n))
    began = time.monotonic()
    with open_file(tmp_path, content) as source:
        assert source.apart == {Apart.PARTIAL_PAGE: n}
    assert time.monotonic() - began < 10
