"""Content names, their numbering, and what a Layout refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagedup.guests import SpecError
from pagedup.guests.cache_files import MadeUpFiles
from pagedup.guests.numbering import COMMON_SET_BITS, Numbering
from pagedup.memory.layouts import ABSENT, ZERO, Layout, LayoutRegion, LayoutSource, NameKind, RegionKind
from pagedup.memory.layouts.names import (
    BASE_BITS,
    GUEST_BITS,
    IMAGE_BITS,
    NUMBER_BITS,
    PAGE_BITS,
    file_name,
    kind_bits,
)
from pagedup.memory.source import Apart


def number(bits: int) -> st.SearchStrategy[int]:
    top = (1 << bits) - 1
    return st.sampled_from([0, 1, top - 1, top]) | st.integers(0, top)


FIELDS = {
    NameKind.FILE: (IMAGE_BITS, PAGE_BITS),
    NameKind.REBASED: (IMAGE_BITS, PAGE_BITS, BASE_BITS),
    NameKind.IMPORTS: (IMAGE_BITS, PAGE_BITS, BASE_BITS),
    NameKind.OWN: (GUEST_BITS, NUMBER_BITS),
    NameKind.COMMON: (COMMON_SET_BITS, 60 - COMMON_SET_BITS),
    NameKind.READ: (60,),
    NameKind.REAL: (60,),
    NameKind.MOVED: (60,),
}


def name_of(kind: NameKind, fields: tuple[int, ...]) -> int:
    """As names.py says in words: the fields one below the other, from bit 59 down."""
    name, at = int(kind), 60
    name <<= 60
    for bits, value in zip(FIELDS[kind], fields, strict=True):
        at -= bits
        name |= value << at
    return name


parts = st.sampled_from(list(FIELDS)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.tuples(*map(number, FIELDS[kind])))
)


@given(parts, parts)
def test_names_of_different_parts_differ(one: Any, other: Any) -> None:
    assert (name_of(*one) == name_of(*other)) == (one == other)
    assert name_of(*one) not in (ZERO, ABSENT)
    assert 0 < name_of(*one) < 1 << 64
    assert NameKind(name_of(*one) >> 60) == one[0]


def test_kinds_that_stand_alone() -> None:
    assert (ZERO, ABSENT) == (0, 2**64 - 1)
    assert kind_bits(NameKind.ZERO) == ZERO and ABSENT >> 60 == NameKind.ABSENT
    assert len({int(kind) for kind in NameKind}) == len(NameKind) and max(NameKind) == 15
    assert all(sum(bits) <= 60 for bits in FIELDS.values())


@given(number(IMAGE_BITS), number(PAGE_BITS))
def test_file_names_by_their_fields(image: int, page: int) -> None:
    assert file_name(image, page) == name_of(NameKind.FILE, (image, page))


@given(st.integers(0, (1 << IMAGE_BITS) - 4), st.integers(0, 3 << PAGE_BITS))
def test_pages_beyond_an_image_take_the_next_numbers(image: int, page: int) -> None:
    assert file_name(image, page) == file_name(image + (page >> PAGE_BITS), page % (1 << PAGE_BITS))


def test_pages_of_a_body_of_files() -> None:
    n_pages = (1 << PAGE_BITS) + 5
    names = MadeUpFiles(1, n_pages, 0.0).names(np.arange(n_pages))  # an odd number, whose bits a carry meets
    assert names.dtype == np.uint64 and len(np.unique(names)) == n_pages
    for page in (0, 1, n_pages - 6, n_pages - 5, n_pages - 1):
        assert names[page] == file_name(1, page)
    assert names[-1] < MadeUpFiles(3, 1, 0.0).names(np.arange(1))[0]


# --- numbering ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3 << PAGE_BITS)), max_size=30))
def test_images_have_ranges_apart(wanted: list[tuple[int, int]]) -> None:
    numbering = Numbering()
    first = {key: numbering.image(key[0], key[1]) for key in wanted}
    assert all(numbering.image(*key) == number for key, number in first.items())  # asked again, the same
    taken: set[int] = set()
    for (_, n_pages), begin in first.items():
        own = set(range(begin, begin + max(1, -(-n_pages >> PAGE_BITS))))
        assert not own & taken
        taken |= own
    assert taken == set(range(len(taken)))


def test_images_end_where_names_do() -> None:
    numbering = Numbering()
    assert numbering.image("all", 1 << (IMAGE_BITS + PAGE_BITS)) == 0
    with pytest.raises(SpecError, match=r"file_cache\.files: 16,385 GiB are too many to name; 16,384 are possible"):
        numbering.image("one more", 1)
    with pytest.raises(SpecError):
        Numbering().image("at once", (1 << (IMAGE_BITS + PAGE_BITS)) + 1)


def test_kinds_of_memory_have_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    numbering = Numbering()
    assert [numbering.common(key) for key in "abcab"] == [0, 1, 2, 0, 1]
    monkeypatch.setattr("pagedup.guests.numbering.COMMON_SET_BITS", 2)
    assert numbering.common("d") == 3
    with pytest.raises(SpecError, match="more than 4 kinds"):
        numbering.common("e")


# --- layouts ------------------------------------------------------------------------------------------------------

TABLE = (LayoutRegion(RegionKind.HEAP, "x"), LayoutRegion(RegionKind.ABSENT))


def layout(**changed: Any) -> Layout:
    fields: dict[str, Any] = {
        "name": "a",
        "names": np.array([1, 0, ABSENT, 7], np.uint64),
        "regions": np.array([0, 0, 1, 0], np.uint8),
        "region_table": TABLE,
        "runs": np.array([[0, 3], [10, 1]], np.uint64),
        "space": "s",
    }
    return Layout(**{**fields, **changed})


def runs(*pairs: tuple[int, int]) -> Any:
    return np.array(pairs, np.uint64).reshape(-1, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"names": np.zeros(4, np.int64)}, r"names is int64 with the shape \(4,\); it must be uint64 of 1 dimension$"),
        ({"names": np.zeros((2, 2), np.uint64)}, r"names is uint64 with the shape \(2, 2\)"),
        ({"regions": np.zeros(4, np.int64)}, "regions is int64"),
        ({"runs": np.array([[0, 5], [10, -1]])}, r"runs is int64 .* uint64 of 2 dimensions$"),
        ({"runs": np.zeros(4, np.uint64)}, r"runs is uint64 with the shape \(4,\)"),
        ({"runs": np.zeros((4, 3), np.uint64)}, r"runs has the shape \(4, 3\); it must be \(k, 2\)"),
        ({"regions": np.zeros(3, np.uint8)}, "regions has 3 pages, and names has 4"),
        ({"regions": np.array([0, 0, 2, 0], np.uint8)}, "regions has the number 2, and region_table 2 entries"),
        ({"region_table": TABLE * 129}, "region_table has 258 regions; at most 256 are possible"),
        ({"region_table": ()}, "regions has the number 1, and region_table 0 entries"),
        ({"runs": runs((0, 3))}, "runs has 3 pages, and names has 4"),
        ({"runs": runs()}, "runs has 0 pages, and names has 4"),
        ({"runs": runs((0, 3), (2, 1))}, "runs: the one from page 0x2 on overlaps another"),
        ({"runs": runs((10, 3), (0, 1))}, "runs: the one from page 0x0 on overlaps another, is out of order"),
        ({"runs": runs((1 << 52, 4))}, "runs: the one from page 0x10000000000000 on .* beyond 2"),
        ({"runs": runs(((1 << 52) - 3, 4))}, "beyond 2"),
        ({"runs": runs((0, (1 << 64) - 1), (0, 5))}, "runs has 18,446,744,073,709,551,620 pages"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout(**changed)


@pytest.mark.parametrize(
    "good",
    [runs((0, 4)), runs(((1 << 52) - 4, 4)), runs((0, 2), (2, 2)), runs((0, 0), (5, 4), (9, 0)), runs((3, 1), (7, 3))],
)
def test_runs_that_fit(good: Any) -> None:
    assert layout(runs=good).n_pages == 4


def test_the_most_regions() -> None:
    assert len(layout(region_table=TABLE * 128).region_table) == 256


def test_what_is_present() -> None:
    one = layout()
    assert one.n_pages == 4
    assert one.present.tolist() == [True, True, False, True]
    assert repr(one) == "<Layout 'a': 4 pages, 2 regions>"
    assert [str(region) for region in (*TABLE, LayoutRegion(RegionKind.FREE))] == ["heap: x", "absent", "free"]


def test_an_empty_layout() -> None:
    empty = layout(names=np.empty(0, np.uint64), regions=np.empty(0, np.uint8), runs=runs(), region_table=())
    assert (empty.n_pages, empty.present.tolist()) == (0, [])
    assert LayoutSource("a", "a.npz", empty).contents() == []


def test_as_a_source() -> None:
    source = LayoutSource("vm", "vm.npz", layout())
    assert (source.kind, source.size, source.apart) == ("layout", 3 * 4096, {Apart.ABSENT: 4096})
    assert b"".join(source.contents()) == layout().names.tobytes()
    assert source.extents == []
    whole = replace(layout(), names=np.arange(4, dtype=np.uint64))
    assert (LayoutSource("vm", "vm.npz", whole).size, LayoutSource("vm", "vm.npz", whole).apart) == (4 * 4096, {})
