"""pagedup.tlb: what it refuses, what a few accesses come to by hand, how much a TLB covers, and the geometries."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pagedup.tlb import PAGE_SIZES, Cache, Geometry, Tlb, Translations, microarchitecture, reach
from pagedup.tlb.microarchitectures import MICROARCHITECTURES, by_cpuinfo

SMALL, LARGE, HUGE = PAGE_SIZES
GIB = 512  # ranges of 2 MiB
LINES = Cache(512, 8)
NO_CACHES = Geometry(
    name="none",
    caches={},
    l1={},
    data=(LINES, LINES, LINES),
    l2_cycles=7,
    data_cycles=(4, 14, 50),
    memory_ns=100,
    ghz=4,
)
TINY = replace(
    NO_CACHES,
    name="tiny",
    caches={"first": Cache(2), "second": Cache(8, 2)},
    l1={SMALL: "first", LARGE: "first"},
    l2={SMALL: "second", LARGE: "second"},
)


def at(*pages: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """An address in each of these pages of 4 KiB."""
    return np.array(pages, np.uint64) * np.uint64(SMALL) + np.uint64(8)


def references(one: Translations) -> int:
    return one.references + one.host_references


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "ways", "said"),
    [
        (0, 0, "entries is 0"),
        (-1, 0, "entries is -1"),
        ((1 << 26) + 1, 0, "entries is 67108865"),
        (4, -1, "ways is -1"),
        (4, 5, "ways is 5, of 4 entries"),
        (12, 4, "which makes 3 sets"),
        (6, 4, "which makes 1.5 sets"),
    ],
)
def test_a_cache_that_cannot_be(entries: int, ways: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cache(entries, ways)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"l1": {8192: "first"}}, "l1 has pages of 8192 bytes"),
        ({"l2": {SMALL + 1: "second"}}, "l2 has pages of 4097 bytes"),
        ({"smashed": {8192: SMALL}}, "smashed has pages of 8192 bytes"),
        ({"smashed": {LARGE: HUGE}}, "smashed.2097152. is 1073741824"),
        ({"smashed": {LARGE: 8192}}, "smashed.2097152. is 8192"),
        ({"l1": {SMALL: "third"}}, "l1.4096. is 'third'; it must be one of caches, which has first, second"),
        ({"l2": {LARGE: "third"}}, "l2.2097152. is 'third'"),
        ({"nested": "third"}, "nested is 'third'"),
        ({"walk": ("", "third", "")}, "walk.1. is 'third'"),
        ({"host_walk": ("", "", "third")}, "host_walk.2. is 'third'"),
        ({"l2_cycles": -1}, "l2_cycles is -1"),
        ({"data_cycles": (4, -14, 50)}, "data_cycles.1. is -14"),
        ({"memory_ns": -0.5}, "memory_ns is -0.5"),
        ({"ghz": float("nan")}, "ghz is nan"),
        ({"caches": {str(i): Cache(1) for i in range(17)}, "l1": {}, "l2": {}}, "caches has 17; there can be 16"),
    ],
)
def test_a_geometry_that_cannot_be(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(TINY, **changed)


def mixed(size: int, *places: int, n: int = 2 * GIB) -> list[int]:
    """Pages of 4 KiB, but in these places."""
    sizes = [SMALL] * n
    for place in places:
        sizes[place] = size
    return sizes


@pytest.mark.parametrize(
    ("memory", "changed", "said"),
    [
        (0, {}, "memory is 0"),
        (-LARGE, {}, "memory is -2097152"),
        (LARGE + SMALL, {}, "memory is 2101248; it must be a multiple of 2 MiB"),
        ((1 << 48) + LARGE, {}, "memory is 281474978807808"),
        (2 * LARGE, {"page_size": 8192}, "page_size.0. is 8192; it must be 4096, 2097152 or 1073741824"),
        (2 * LARGE, {"page_size": [SMALL, 0]}, "page_size.1. is 0"),
        (2 * LARGE, {"page_size": [SMALL]}, r"page_size has the shape \(1,\); it must be \(2,\)"),
        (2 * LARGE, {"page_size": [[SMALL, SMALL]]}, r"page_size has the shape \(1, 2\)"),
        (2 * LARGE, {"host_page_size": [SMALL, 5]}, "host_page_size.1. is 5"),
        (2 * LARGE, {"host_page_size": [SMALL] * 3}, "host_page_size has the shape"),
        (2 * LARGE, {"page_size": HUGE}, "page_size.0:512. is 1 GiB in parts"),
        (1 << 31, {"page_size": mixed(HUGE, GIB)}, "page_size.512:1024. is 1 GiB in parts"),
        (1 << 31, {"page_size": mixed(HUGE, *range(1, GIB + 1))}, "page_size.0:512. is 1 GiB in parts"),
        (1 << 31, {"host_page_size": mixed(HUGE, *range(GIB - 1))}, "host_page_size.0:512. is 1 GiB in parts"),
        (LARGE, {"table_page_size": 8192}, "table_page_size is 8192"),
    ],
)
def test_a_memory_that_cannot_be(memory: int, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Tlb(TINY, memory, **changed)


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        (at(0).astype(np.int64), "addresses is an array of int64 with 1 dimensions"),
        (at(0, 1).reshape(1, 2), "addresses is an array of uint64 with 2 dimensions"),
        ([4096], "addresses is a list"),
        (np.array([0, LARGE, 2 * LARGE], np.uint64), r"addresses\[1\] is 2097152; the memory has 2097152 bytes"),
        (np.array([2**64 - 1], np.uint64), r"addresses\[0\] is 18446744073709551615"),
    ],
)
def test_addresses_that_cannot_be_and_nothing_is_accessed(addresses: Any, said: str) -> None:
    tlb = Tlb(TINY, LARGE)
    with pytest.raises(ValueError, match=said):
        tlb.access(addresses)
    assert tlb.access(at(0)).misses == (1, 0, 0)  # a refused batch did not bring it in
    assert tlb.access(np.array([LARGE - 1], np.uint64)).accesses == 1


def test_what_is_refused_leaves_the_memory_as_it_was() -> None:
    tlb = Tlb(TINY, LARGE)
    tlb.access(at(0))
    large: dict[str, Any] = {"page_size": LARGE}
    for changed in ({"page_size": 1}, large | {"host_page_size": 1}, large | {"table_page_size": 1}):
        with pytest.raises(ValueError, match="page_size"):
            tlb.remap(**changed)
    assert tlb.access(at(0)).l1_hits == (1, 0, 0)


# --- walks by hand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", range(3))
@pytest.mark.parametrize("own", range(3))
def test_references_of_a_nested_walk(own: int, host: int) -> None:
    """Four levels less those that a large page saves, of both: (g + 1) (h + 1) - 1."""
    sizes = PAGE_SIZES[own], PAGE_SIZES[host]
    tlb = Tlb(NO_CACHES, HUGE, sizes[0], host_page_size=sizes[1], table_page_size=sizes[1], data=False)
    one = tlb.access(at(0, 0, 513))
    levels, host_levels = 4 - own, 4 - host
    assert references(one) == 3 * ((levels + 1) * (host_levels + 1) - 1)
    assert one.references == 3 * levels
    assert one.misses[min(own, host)] == one.accesses == 3
    assert one.references_found == (0, 0, 0, references(one))
    assert one.cycles == 3 * 7 + references(one) * 400
    assert one.data_found == (0, 0, 0, 0)
    assert one.data_cycles == 0


@pytest.mark.parametrize(("size", "levels"), [(SMALL, 4), (LARGE, 3), (HUGE, 2)])
def test_references_of_a_native_walk(size: int, levels: int) -> None:
    one = Tlb(NO_CACHES, HUGE, size, data=False).access(at(0, 0))
    assert (one.references, one.host_references) == (2 * levels, 0)


def test_tables_in_pages_of_their_own_size() -> None:
    """Four tables of the guest, each behind five or four reads, and the page behind three or two."""
    for host, table, right in [(SMALL, LARGE, 4 * 4 + 4), (LARGE, SMALL, 4 * 5 + 3), (HUGE, HUGE, 4 * 3 + 2)]:
        one = Tlb(NO_CACHES, HUGE, host_page_size=host, table_page_size=table, data=False).access(at(0))
        assert references(one) == right


def test_hits_by_hand() -> None:
    """A first level of two entries, a second of four sets of two: pages 0, 4 and 8 are in one set."""
    tlb = Tlb(TINY, LARGE, data=False)
    one = tlb.access(at(0, 1, 0, 1))
    assert (one.l1_hits, one.l2_hits, one.misses) == ((2, 0, 0), (0, 0, 0), (2, 0, 0))
    one = tlb.access(at(2, 0, 1))  # 0 was the least recently used of the first level; then 1 is
    assert (one.l1_hits, one.l2_hits, one.misses) == ((0, 0, 0), (2, 0, 0), (1, 0, 0))
    assert one.cycles == 3 * 7 + 4 * 400
    one = tlb.access(at(4, 8, 0))  # 8 makes 0 leave the second level, too
    assert (one.l1_hits, one.l2_hits, one.misses) == ((0, 0, 0), (0, 0, 0), (3, 0, 0))
    one = tlb.access(at(1, 2))  # other sets
    assert one.l2_hits == (2, 0, 0)


def test_small_and_large_pages_share_a_unified_tlb() -> None:
    tlb = Tlb(TINY, 2 * LARGE, [SMALL, LARGE], data=False)
    one = tlb.access(at(0, 512, 0, 1023))
    assert (one.l1_hits, one.misses) == ((1, 1, 0), (1, 1, 0))
    assert tlb.access(at(1, 512)).l1_hits == (0, 1, 0)


def test_a_smashed_page_is_many_entries_of_the_second_level() -> None:
    geometry = replace(TINY, l1={}, l2={HUGE: "second"}, smashed={HUGE: LARGE})
    one = Tlb(geometry, HUGE, HUGE, data=False).access(at(0, 511, 512, 1023))
    assert (one.l2_hits, one.misses) == ((0, 0, 2), (0, 0, 2))


def test_page_walk_caches_and_the_nested_tlb_save_reads() -> None:
    caches = {"walk": Cache(4), "host walk": Cache(4), "nested": Cache(4)}
    geometry = replace(NO_CACHES, caches=caches, walk=("walk",) * 3, host_walk=("host walk",) * 3, nested="nested")
    tlb = Tlb(geometry, LARGE, host_page_size=SMALL, data=False)
    first = tlb.access(at(0))
    # Tables of the guest lie side by side: after the first one's, the host's walks are of one read, but the page's own.
    assert (first.references, first.host_references, first.nested_hits) == (4, 4 + 1 + 1 + 1 + 3, 0)
    second = tlb.access(at(1))
    assert (second.references, second.walk_hits) == (1, (1, 0, 0))
    assert second.host_references == 1
    third = tlb.access(at(1))
    assert (third.host_references, third.nested_hits) == (0, 1)


def test_lines_by_hand() -> None:
    """With data caches: eight entries of a table share a line, and what is accessed goes there, too."""
    tlb = Tlb(NO_CACHES, LARGE)
    one = tlb.access(at(0))
    assert (one.references_found, one.data_found) == ((0, 0, 0, 4), (0, 0, 0, 1))
    one = tlb.access(at(7, 0))
    assert (one.references_found, one.data_found) == ((8, 0, 0, 0), (1, 0, 0, 1))
    assert (one.cycles, one.data_cycles) == (2 * 7 + 8 * 4, 4 + 400)
    one = tlb.access(at(8))
    assert one.references_found == (3, 0, 0, 1)


def test_remap_empties_all_caches() -> None:
    tlb = Tlb(TINY, LARGE)
    tlb.access(at(0, 1))
    assert tlb.access(at(0, 1)).l1_hits == (2, 0, 0)
    tlb.remap(SMALL)
    one = tlb.access(at(0))
    assert (one.misses, one.references_found, one.data_found) == ((1, 0, 0), (0, 0, 0, 4), (0, 0, 0, 1))
    tlb.remap(LARGE, host_page_size=LARGE, table_page_size=LARGE)
    assert references(tlb.access(at(0))) == 15


# --- least recently used -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [1, 2, 3, 16, 72])
def test_as_many_pages_as_entries_all_hit_and_one_more_never_does(entries: int) -> None:
    geometry = replace(TINY, caches={"first": Cache(entries)}, l2={})
    tlb = Tlb(geometry, LARGE, data=False)
    dice = np.random.default_rng(entries)
    tlb.access(at(*range(entries)))
    for _ in range(20):
        assert tlb.access(at(*dice.integers(0, entries, 100))).l1_hits == (100, 0, 0)
    tlb.access(at(*range(entries + 1)))
    for _ in range(5):
        assert tlb.access(at(*range(entries + 1))).misses == (entries + 1, 0, 0)


@pytest.mark.parametrize("hit", range(4))
def test_a_hit_makes_an_entry_the_newest(hit: int) -> None:
    """Whether it was the oldest, the newest, or between: the entries leave in the order of their last accesses."""
    order = [page for page in range(4) if page != hit] + [hit]
    for gone in range(1, 5):
        tlb = Tlb(replace(TINY, caches={"first": Cache(4)}, l2={}), LARGE, data=False)
        tlb.access(at(0, 1, 2, 3, hit, *range(10, 10 + gone)))
        there = order[gone:]
        assert tlb.access(at(*there)).l1_hits == (len(there), 0, 0)
        assert tlb.access(at(*order[:gone])).misses == (gone, 0, 0)


@pytest.mark.parametrize("ways", [1, 2, 4, 8])
def test_the_same_of_each_set(ways: int) -> None:
    sets = 8
    tlb = Tlb(replace(TINY, caches={"first": Cache(sets * ways, ways)}, l2={}), LARGE, data=False)
    full = at(*range(sets * ways))
    tlb.access(full)
    for _ in range(5):
        assert tlb.access(np.random.default_rng(ways).permutation(full)).l1_hits == (len(full), 0, 0)
    in_one = at(*range(0, sets * (ways + 1), sets))
    tlb.access(in_one)
    assert tlb.access(in_one).misses == (ways + 1, 0, 0)
    assert tlb.access(at(*range(1, sets * ways, sets))).l1_hits == (ways, 0, 0)  # another set is as it was


# --- reach ---------------------------------------------------------------------------------------------------------

UNIFIED = replace(
    TINY,
    caches={"first": Cache(8), "second": Cache(64, 4), "huge": Cache(2)},
    l1=dict.fromkeys(PAGE_SIZES, "first"),
    l2={SMALL: "second", LARGE: "second"},
)


def test_reach_of_one_page_size() -> None:
    assert reach(UNIFIED, SMALL) == (8 * SMALL, 64 * SMALL)
    assert reach(UNIFIED, LARGE) == (8 * 512 * SMALL, 64 * 512 * SMALL)
    assert reach(UNIFIED, HUGE) == (8 * HUGE, 0)  # the second level holds none


def test_reach_of_mixtures() -> None:
    """Half in 4 KiB: for each 2 MiB page, 512 small ones, until 8 entries are full."""
    first, second = reach(UNIFIED, {SMALL: 0.5, LARGE: 0.5})
    assert first == pytest.approx(8 / 513 * 2 * LARGE)
    assert second == pytest.approx(64 / 513 * 2 * LARGE)
    assert reach(UNIFIED, {SMALL: 0.5, LARGE: 0.25, HUGE: 0.25})[1] == 0
    assert reach(UNIFIED, {SMALL: 1, HUGE: 0}) == reach(UNIFIED, SMALL)
    apart = replace(UNIFIED, l1={SMALL: "first", HUGE: "huge"})
    # 1 GiB of small pages has filled its eight entries long before the two others are.
    assert reach(apart, {SMALL: 0.5, HUGE: 0.5})[0] == 2 * 8 * SMALL
    # The other way round, with next to nothing in small pages.
    assert reach(apart, {SMALL: 1e-9, HUGE: 1 - 1e-9})[0] == pytest.approx(2 * HUGE)


def test_reach_of_smashed_pages() -> None:
    geometry = replace(UNIFIED, l2=dict.fromkeys(PAGE_SIZES, "second"), smashed={HUGE: LARGE})
    assert reach(geometry, HUGE) == (8 * HUGE, 64 * LARGE)
    assert reach(geometry, {LARGE: 0.3, HUGE: 0.7})[1] == pytest.approx(64 * LARGE)


def test_a_working_set_of_the_reach_hits() -> None:
    geometry = microarchitecture("Zen 4")
    first, second = (int(covered) for covered in reach(geometry, SMALL))
    tlb = Tlb(geometry, 1 << 30, data=False)
    addresses = np.arange(0, second - 128 * SMALL, SMALL, dtype=np.uint64)  # each set has room for an entry of a table
    tlb.access(addresses)
    assert tlb.access(addresses).l2_hits == (len(addresses), 0, 0)
    tlb.access(addresses[: first // SMALL])
    assert tlb.access(addresses[: first // SMALL]).l1_hits == (first // SMALL, 0, 0)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({SMALL: 0.5}, "shares add up to 0.5; it must be 1"),
        ({SMALL: 0.5, LARGE: 0.6}, "shares add up to 1.1"),
        ({}, "shares add up to 0"),
        ({SMALL: 1.5, LARGE: -0.5}, "shares.4096. is 1.5"),
        ({SMALL: 1, LARGE: -0.5}, "shares.2097152. is -0.5"),
        ({8192: 1}, "shares has pages of 8192 bytes"),
        (8192, "shares has pages of 8192 bytes"),
    ],
)
def test_shares_that_cannot_be(shares: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        reach(UNIFIED, shares)


# --- microarchitectures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MICROARCHITECTURES)
@pytest.mark.parametrize("data", [False, True])
def test_every_microarchitecture_translates(name: str, data: bool) -> None:
    geometry = microarchitecture(name)
    assert geometry.name == name
    assert geometry.source
    pages = np.random.default_rng(1).integers(0, 1 << 19, 5000)
    for own, host in [(SMALL, None), (SMALL, SMALL), (LARGE, SMALL), (HUGE, HUGE)]:
        one = Tlb(geometry, 1 << 31, own, host_page_size=host, data=data).access(at(*pages))
        assert one.accesses == 5000
        assert one.cycles > 0
        assert (one.data_cycles > 0) == data
        assert sum(one.references_found) == references(one)
        entry = PAGE_SIZES.index(min(own, host or own))
        assert one.l1_hits[entry] + one.l2_hits[entry] + one.misses[entry] == 5000
    assert all(covered > 0 for covered in reach(geometry, {SMALL: 0.5, LARGE: 0.5}))


def test_an_unknown_microarchitecture() -> None:
    with pytest.raises(ValueError, match="there is no microarchitecture 'Zen 1'; there are Zen 2, Zen 3"):
        microarchitecture("Zen 1")


def cpuinfo(vendor: str, family: int, model: int) -> str:
    one = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: 99\n\n"
    return one + one.replace("processor\t: 0", "processor\t: 1")


@pytest.mark.parametrize(
    ("vendor", "family", "model", "name"),
    [
        ("AuthenticAMD", 23, 0x31, "Zen 2"),
        ("AuthenticAMD", 25, 0x01, "Zen 3"),
        ("AuthenticAMD", 25, 0x21, "Zen 3"),
        ("AuthenticAMD", 25, 0x11, "Zen 4"),
        ("AuthenticAMD", 25, 0x61, "Zen 4"),
        ("AuthenticAMD", 26, 0x02, "Zen 5"),
        ("GenuineIntel", 6, 85, "Skylake-SP"),
        ("GenuineIntel", 6, 106, "Ice Lake-SP"),
        ("GenuineIntel", 6, 143, "Sapphire Rapids"),
    ],
)
def test_a_cpu_is_known_by_its_numbers(vendor: str, family: int, model: int, name: str) -> None:
    assert by_cpuinfo(cpuinfo(vendor, family, model)).name == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (cpuinfo("AuthenticAMD", 6, 143), "vendor AuthenticAMD, family 6, model 143 is none of Zen 2"),
        (cpuinfo("GenuineIntel", 6, 84), "family 6, model 84"),
        (cpuinfo("GenuineIntel", 6, 86), "family 6, model 86"),
        ("CPU implementer\t: 0x41\n", "vendor unknown, family unknown, model unknown"),
        ("", "vendor unknown"),
    ],
)
def test_a_cpu_that_is_not_known(text: str, said: str) -> None:
    with pytest.raises(LookupError, match=said):
        by_cpuinfo(text)


# --- threads -------------------------------------------------------------------------------------------------------


def test_threads_take_turns() -> None:
    """What each call counts is its own, so that together they are all."""
    tlb = Tlb(TINY, 1 << 30, host_page_size=SMALL)
    counted: list[int] = []

    def work(seed: int) -> None:
        dice = np.random.default_rng(seed)
        for _ in range(50):
            counted.append(tlb.access(at(*dice.integers(0, 1 << 18, 200))).accesses)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted == [200] * 200
