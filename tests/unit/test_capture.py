"""Real memory as layouts: equal names exactly where bytes are equal, and everything else as scanning the bytes says."""

import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagedup import Extent, ZeroExtent, find_duplicates, summarize, summarize_guests
from pagedup.memory import Region, Source, open_sources
from pagedup.memory.layouts import ABSENT, Layout, NameKind, RegionKind
from pagedup.memory.layouts.capture import capture
from pagedup.sharing import find_duplicate_names, summarize_layout_regions, summarize_regions
from tests.dumps import Load, elf_core, lime, pages, table_end

PAGE = 4096


class Memory(Source):
    """Memory of our own as a source."""

    kind = "test"

    def __init__(self, extents: Sequence[Extent | ZeroExtent], name: str = "vm") -> None:
        super().__init__(name, name, 0)
        self.extents = list(extents)
        self.checked = 0

    def contents(self) -> list[memoryview]:
        return []

    def check(self) -> None:
        self.checked += 1

    def close(self) -> None:
        pass


def assert_same(sources: Sequence[Source], layouts: Sequence[Layout]) -> None:
    """The layouts say of the memory what its bytes do, page by page and address by address."""
    found = find_duplicates([source.extents for source in sources], frame_size=PAGE)
    named = find_duplicate_names(layouts)
    assert named.canonical.tolist() == found.canonical.tolist()
    assert named.addresses.tolist() == found.addresses.tolist()
    assert named.zero.tolist() == found.zero.tolist()
    assert summarize_guests(named) == summarize_guests(found)
    for factor in (1, 2, 512):
        assert summarize(named.coarsen(factor)) == summarize(found.coarsen(factor))


def captured(*texts: str | Path) -> list[Layout]:
    with ExitStack() as stack:
        sources = [stack.enter_context(source) for source in open_sources([str(text) for text in texts])]
        layouts = Layout.from_memory(sources)
        assert [layout.name for layout in layouts] == [source.name for source in sources]
        assert_same(sources, layouts)
    return layouts


def test_dumps_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "raw.img").write_bytes(pages(1, 2, 0, 1))
    with (tmp_path / "sparse.img").open("wb") as file:
        file.write(pages(1, 3))
        file.truncate(64 * PAGE)
        file.seek(63 * PAGE)
        file.write(pages(2))
    (tmp_path / "vm.lime").write_bytes(lime([(0, pages(5, 1)), (8 * PAGE, pages(0, 5))]))
    loads = [Load(table_end(2), 2 * PAGE, paddr=PAGE), Load(table_end(2) + 2 * PAGE, PAGE, paddr=16 * PAGE)]
    (tmp_path / "vm.elf").write_bytes(elf_core(loads) + pages(9, 1, 2))
    raw, sparse, lime_layout, elf = captured(
        *(tmp_path / name for name in ("raw.img", "sparse.img", "vm.lime", "vm.elf"))
    )

    assert raw.names[0] == raw.names[3] == sparse.names[0] == lime_layout.names[1]
    assert raw.names[2] == 0 and not sparse.names[2:63].any()
    assert raw.names[1] == sparse.names[63] == elf.names[-1]
    # 4 pages of 10, so holes are not spelt out; 3 of 17 neither
    assert lime_layout.runs.tolist() == [[0, 2], [8, 2]]
    assert elf.runs.tolist() == [[1, 2], [16, 1]]
    for layout in (raw, sparse, lime_layout, elf):
        named = layout.names[layout.names != 0]
        assert (named >> np.uint64(60) == NameKind.READ).all()
        assert set(layout.regions.tolist()) == {0}


def test_short_holes_are_absent_pages() -> None:
    memory = Memory([Extent(PAGE, pages(1, 2)), ZeroExtent(4 * PAGE, PAGE)])
    (layout,) = capture([memory], None)
    assert layout.runs.tolist() == [[0, 5]]
    assert layout.present.tolist() == [False, True, True, False, True]
    assert layout.names[layout.present].tolist()[2] == 0
    assert [layout.region_table[region].kind for region in layout.regions.tolist()] == [
        RegionKind.ABSENT, RegionKind.UNKNOWN, RegionKind.UNKNOWN, RegionKind.ABSENT, RegionKind.UNKNOWN,
    ]  # fmt: skip
    assert_same([memory], [layout])
    assert memory.checked == 1


def test_runs_far_apart_take_no_more_than_their_pages() -> None:
    memory = Memory(
        [
            Extent(0, pages(1)),
            Extent((1 << 64) - PAGE, pages(1)),
        ]
    )
    (layout,) = capture([memory], None)
    assert layout.runs.tolist() == [[0, 1], [(1 << 52) - 1, 1]]
    assert layout.n_pages == 2 and layout.names[0] == layout.names[1]
    assert_same([memory], [layout])


def test_runs_that_follow_each_other_are_one() -> None:
    extents: list[Extent | ZeroExtent] = [
        Extent(1 << 30, pages(1)),
        ZeroExtent((1 << 30) + PAGE, PAGE),
        Extent((1 << 30) + 2 * PAGE, pages(2)),
    ]
    (layout,) = capture([Memory(extents)], None)
    assert layout.runs.tolist() == [[1 << 18, 3]]


@pytest.mark.parametrize(
    "extent", [Extent(512, pages(1)), Extent(0, bytes(512)), ZeroExtent(PAGE, 1), ZeroExtent(1, PAGE)]
)
def test_what_is_no_whole_page(extent: Extent | ZeroExtent) -> None:
    with pytest.raises(ValueError, match=r"vm: [0-9,]+ bytes at 0x[0-9a-f]+ are no whole pages of 4,096 bytes"):
        capture([Memory([extent])], None)


def test_nothing_to_capture() -> None:
    assert capture([], None) == []
    (layout,) = capture([Memory([])], None)
    assert layout.n_pages == 0
    assert_same([Memory([])], [layout])


def test_captures_apart_are_never_compared() -> None:
    """Both are of three pages that are unique, so the numbers of their classes agree, and mean different bytes."""
    (one,), (other,) = (
        capture([Memory([Extent(0, pages(1, 2, 3))])], None),
        capture([Memory([Extent(0, pages(4, 5, 6))], "other")], None),
    )
    assert one.names.tolist() == other.names.tolist()
    with pytest.raises(ValueError, match=r"other and vm were named apart, so their names cannot be compared"):
        find_duplicate_names([one, other])


def test_saved_and_read_again(tmp_path: Path) -> None:
    memory = [Memory([Extent(0, pages(1, 0, 2))]), Memory([Extent(0, pages(2, 2)), Extent(1 << 30, pages(1))], "b")]
    layouts = capture(memory, None)
    for index, layout in enumerate(layouts):
        layout.save(str(tmp_path / f"{index}.npz"))
    assert_same(memory, [Layout.load(str(tmp_path / f"{index}.npz")) for index in range(2)])


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 5), max_size=8)), max_size=4), max_size=3)
)
def test_names_are_equal_where_bytes_are(guests: list[list[tuple[int, list[int]]]]) -> None:
    sources: list[Source] = []
    for guest in guests:
        at, extents = 0, []
        for gap, fills in guest:
            at += gap * PAGE
            extents.append(Extent(at, pages(*fills)))
            at += len(fills) * PAGE
        sources.append(Memory(extents))
    layouts = capture(sources, None)
    assert_same(sources, layouts)
    assert len({layout.space for layout in layouts}) == min(len(layouts), 1)
    contents: dict[int, set[bytes]] = {}
    for source, layout in zip(sources, layouts, strict=True):
        held = {
            extent.address // PAGE + index: bytes(memoryview(extent.buffer)[index * PAGE : (index + 1) * PAGE])
            for extent in source.extents
            if isinstance(extent, Extent)
            for index in range(memoryview(extent.buffer).nbytes // PAGE)
        }
        numbers = [page for first, length in layout.runs.tolist() for page in range(first, first + length)]
        for page, name in zip(numbers, layout.names.tolist(), strict=True):
            assert (name == ABSENT) == (page not in held)
            if name != ABSENT:
                assert (name == 0) == (not any(held[page]))
                contents.setdefault(name, set()).add(held[page])
    assert all(len(held) == 1 for held in contents.values())
    assert len(set().union(*contents.values())) == len(contents)


def test_regions_of_the_source() -> None:
    memory: Any = Memory([Extent(0, pages(1, 2, 3)), Extent(5 * PAGE, pages(3))])
    memory.regions = [
        Region(0, 2 * PAGE, "[heap]"),
        Region(2 * PAGE, 8 * PAGE, "libc.so"),
        Region(9 << 30, 10 << 30, "x"),
    ]
    (layout,) = capture([memory], None)
    rows = summarize_layout_regions(find_duplicate_names([layout]), [layout])
    expected = summarize_regions(find_duplicates([memory.extents], frame_size=PAGE), [memory.regions])
    assert [(row.name.removeprefix("unknown: "), row.pages, row.unique, row.saved_within) for row in rows] == [
        (row.name, row.pages, row.unique, row.saved_within) for row in expected
    ]


def test_more_regions_than_can_be_numbered() -> None:
    memory: Any = Memory([Extent(0, pages(*range(1, 200)) + pages(*range(1, 200)))])
    memory.regions = [Region(page * PAGE, (page + 1) * PAGE, f"file {page}") for page in range(398)]
    (layout,) = capture([memory], None)
    assert len(layout.region_table) == 256
    assert [str(layout.region_table[region]) for region in layout.regions[[0, 253, 254, 397]].tolist()] == [
        "unknown: file 0", "unknown: file 253", "unknown", "unknown",
    ]  # fmt: skip


HOLDER = """
import mmap, sys
memory = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(512):
    memory[page * 65536 : page * 65536 + 8] = (page % 7 + 1).to_bytes(8, "little")
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_live_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        try:
            (layout,) = captured(f"pid:{process.pid}")
        finally:
            process.kill()
    summary = summarize(find_duplicate_names([layout]))
    assert summary.saved_within_guests >= 512 - 7
    assert layout.n_pages < 1 << 16  # its addresses span 2^47 bytes
    assert any(region.of == "[heap]" for region in layout.region_table)
    path = tmp_path / "process.npz"
    layout.save(str(path))
    assert path.stat().st_size <= 4 * layout.n_pages + 8192


def test_numbers_are_those_of_the_lowest_page_plus_one() -> None:
    """docs: the class's number among all that was read together."""
    (one, two) = capture([Memory([Extent(0, pages(7, 0, 7))]), Memory([Extent(0, pages(0, 8, 7))])], None)
    read = NameKind.READ << 60
    assert one.names.tolist() == [read | 1, 0, read | 1]
    assert two.names.tolist() == [0, read | 5, read | 1]
    assert struct.pack("<Q", int(two.names[1]))[-1] == 0x60
