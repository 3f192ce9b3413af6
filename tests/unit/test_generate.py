"""Generated guests one by one: what ASLR, snapshots, hours, placement and the file cache do to them."""

import hashlib
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pagedup import summarize
from pagedup.guests import (
    Content,
    FileCache,
    Free,
    GuestSpec,
    ImageSet,
    Kernel,
    Placement,
    ProcessSet,
    SpecError,
    generate,
)
from pagedup.guests.cache_files import STRETCH
from pagedup.memory.layouts import ABSENT, Layout, NameKind, RegionKind
from pagedup.memory.layouts.names import BASE_BITS
from pagedup.sharing import find_duplicate_names, summarize_layout_regions
from tests.processes import run_python, under_sanitizer

PAGE = 4096
MIB = 1 << 20
IMAGES = (
    ImageSet(name="kernel", role="kernel", text="1 MiB", rdata="64 KiB", data="64 KiB", text_fixups=0.5),
    ImageSet(name="drivers", role="driver", count=3, text="64 KiB", text_fixups=0.5),
    ImageSet(
        name="dlls", role="library", count=10, text="128 KiB", rdata="64 KiB", data="64 KiB",
        text_fixups=0.5, rdata_fixups=0.25, imports=0.25,
    ),
    ImageSet(name="exe", role="executable", text="256 KiB", rdata="64 KiB", text_fixups=0.5),
)  # fmt: skip
PROCESSES = (ProcessSet(name="service", count=2, executable="exe", libraries=10, heap="256 KiB"),)


def spec(**changed: Any) -> GuestSpec:
    fields: dict[str, Any] = {"system": "windows-7-x86", "memory": "16 MiB", "images": IMAGES, "processes": PROCESSES}
    return GuestSpec(**{**fields, **changed})


def of_kind(layout: Layout, *kinds: NameKind) -> NDArray[np.uint64]:
    """The names of these kinds, ascending."""
    return np.sort(layout.names[np.isin(layout.names >> np.uint64(60), kinds)])


def in_region(layout: Layout, *kinds: RegionKind) -> NDArray[np.uint64]:
    wanted = [number for number, region in enumerate(layout.region_table) if region.kind in kinds]
    return np.sort(layout.names[np.isin(layout.regions, wanted)])


def digest(layouts: list[Layout]) -> str:
    hasher = hashlib.blake2b(digest_size=8)
    for layout in layouts:
        hasher.update(layout.names.astype("<u8").tobytes() + layout.regions.tobytes())
        hasher.update("|".join(map(str, layout.region_table)).encode())
    return hasher.hexdigest()


# --- determinism --------------------------------------------------------------------------------------------------

ALL = spec(
    system="linux",
    memory="64 MiB",
    start="snapshot",
    hours=2.0,
    churn=0.05,
    kernel=Kernel(data="2 MiB", content=Content(zero=0.1, common=0.2, repeated=0.1)),
    processes=(
        ProcessSet(
            name="a", count=2, executable="exe", libraries=7, heap="2 MiB", content=Content(zero=0.2, common=0.1),
            large_pages=True,
        ),
        ProcessSet(name="b", libraries=3, heap="300 KiB"),
    ),
    file_cache=FileCache(size="4 MiB", growth="1 MiB", files="20 MiB", hot=0.3, written=0.1),
    free=Free(zero=0.5, stale=0.2),
    placement=Placement(fragmentation=0.6),
)  # fmt: skip


def test_known_guests() -> None:
    """Of any machine and any version. Another digest is another generator: what was published cannot be had again."""
    assert digest(generate(ALL, 2, 7)) == "0fd127818a36ca4a"
    assert digest(generate([spec(), spec(system="windows-xp", start="snapshot")], 2)) == "78e68704020d633a"


def test_same_seed_same_guests_and_another_seed_others() -> None:
    assert digest(generate(ALL, 2, 7)) == digest(generate(ALL, 2, 7, threads=3))
    assert len({digest(generate(ALL, 2, seed)) for seed in (0, 1, 7, 1 << 64, 1 << 200)}) == 5
    one, other = generate(ALL, 1, 0)[0], generate(ALL, 1, 1)[0]
    assert one.space != other.space
    assert generate(ALL, 1, 0)[0].space == one.space != generate(ALL, 2, 0)[0].space


def test_names_and_count() -> None:
    assert [layout.name for layout in generate(spec(name="vm"), 3)] == ["vm-1", "vm-2", "vm-3"]
    assert [layout.name for layout in generate([spec(), spec(name="b"), spec()], 1)] == ["guest-1", "b-1", "guest-2"]
    assert len(generate([spec(guests=2), spec(name="b", guests=3)])) == 5
    assert generate([]) == []
    phases: list[tuple[str, int, int]] = []
    generate(spec(), 2, progress=lambda *step: phases.append(step))
    assert phases == [("generating", 1, 2), ("generating", 2, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "count is 0"),
        ((-1,), "count is -1"),
        ((1, -1), "seed is -1"),
        ((1 << 20,), "1,048,576 guests; fewer than"),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(spec(), *arguments)


# --- ASLR ---------------------------------------------------------------------------------------------------------

SHARED = (RegionKind.KERNEL_TEXT, RegionKind.IMAGE_TEXT, RegionKind.IMAGE_RDATA)


@pytest.mark.parametrize("system", ["windows-xp", "windows-7-x86", "windows-7-x64", "windows-10-x64", "linux"])
def test_without_aslr_images_are_equal_in_all_guests(system: str) -> None:
    guests = generate(spec(system=system, aslr=False), 4)
    first = in_region(guests[0], *SHARED)
    assert len(first) > 400
    assert all((in_region(guest, *SHARED) == first).all() for guest in guests)
    assert not (first >> np.uint64(60) == NameKind.OWN).any()


@pytest.mark.parametrize("system", ["windows-7-x86", "windows-7-x64", "windows-10-x64", "linux"])
def test_with_aslr_only_pages_without_fixups_are(system: str) -> None:
    guests = generate(spec(system=system), 3, 1)
    file = of_kind(guests[0], NameKind.FILE)
    assert all((of_kind(guest, NameKind.FILE) == file).all() for guest in guests)
    plain = generate(spec(system=system, aslr=False), 1)[0]
    assert (of_kind(plain, NameKind.FILE) == file).all()
    moved = [of_kind(guest, NameKind.REBASED) for guest in guests]
    bases = np.uint64((1 << BASE_BITS) - 1)
    assert all((own & ~bases == moved[0] & ~bases).all() for own in moved)  # the same pages, each at its own base
    assert all(len(own) > 50 for own in moved)


def base_of(layout: Layout, image: int) -> int:
    """The base that all rebased pages of an image are at."""
    names = of_kind(layout, NameKind.REBASED)
    own = names[(names >> np.uint64(46)) & np.uint64((1 << 14) - 1) == np.uint64(image)]
    (base,) = set((own & np.uint64((1 << BASE_BITS) - 1)).tolist())
    return int(base)


def test_windows_draws_one_of_256_bases_a_boot() -> None:
    """Image numbers are given in the order of loading: the kernel, 3 drivers, 10 libraries, the program."""
    small = GuestSpec(
        system="windows-7-x86",
        memory="4 MiB",
        images=tuple(
            ImageSet(name=role, role=role, count=2 if role == "library" else 1, text="64 KiB", text_fixups=1.0)
            for role in ("kernel", "driver", "library", "executable")
        ),
        processes=(ProcessSet(name="p", executable="executable", libraries=2),),
    )
    guests = generate(small, 400, 5)
    drawn = np.array([[base_of(guest, image) for image in range(5)] for guest in guests])
    assert (drawn[:, 2] == drawn[:, 3]).all()  # all libraries move together
    assert (drawn[:, 2] != drawn[:, 4]).any() and (drawn[:, 0] != drawn[:, 2]).any()
    for column, bases in ((0, 64), (1, 64), (2, 256), (4, 254)):
        assert drawn[:, column].min() >= 0 and drawn[:, column].max() < bases
        counts = np.bincount(drawn[:, column], minlength=bases)
        pairs = int((counts * (counts - 1) // 2).sum())
        expected = 400 * 399 / 2 / bases
        assert abs(pairs - expected) < 5 * expected**0.5, (column, pairs, expected)
    text = [in_region(guest, RegionKind.IMAGE_TEXT)[:32] for guest in guests]  # of the libraries, lowest numbers first
    for one, other in combinations(range(60), 2):
        assert (text[one] == text[other]).all() == (drawn[one, 2] == drawn[other, 2])
        assert (text[one] == text[other]).any() == (drawn[one, 2] == drawn[other, 2])


def test_linux_relocates_in_each_process() -> None:
    """With ASLR each process fills its own pages in; without it those of one set agree, and others differ."""
    two = (ProcessSet(name="a", count=2, libraries=10), ProcessSet(name="b", libraries=10))
    (random,) = generate(spec(system="linux", processes=two), 1)
    assert not len(of_kind(random, NameKind.IMPORTS))
    (fixed,) = generate(spec(system="linux", processes=two, aslr=False), 1)
    copies = Counter(Counter(of_kind(fixed, NameKind.IMPORTS).tolist()).values())
    assert set(copies) == {1, 2} and copies[1] == copies[2]


def test_sets_of_processes_are_told_apart_by_more_than_their_place() -> None:
    def one(*names: str) -> GuestSpec:
        sets = tuple(ProcessSet(name=name, libraries=10) for name in names)
        return spec(name="-".join(names), system="linux", aslr=False, processes=sets)

    guests = generate([one("a"), one("b"), one("c", "a")], 1)
    a, b, ca = (set(of_kind(guest, NameKind.IMPORTS).tolist()) for guest in guests)
    assert a and b and not a & b and a < ca


# --- what guests have in common -----------------------------------------------------------------------------------


def test_two_kinds_share_what_is_the_same_in_both() -> None:
    """One system with the same images: their pages are one. Another system: nothing is."""
    kinds = [spec(name="a", aslr=False), spec(name="b", aslr=False, memory="20 MiB", processes=())]
    a, b = generate(kinds, 1)
    kernel = in_region(a, RegionKind.KERNEL_TEXT)
    assert (in_region(b, RegionKind.KERNEL_TEXT) == kernel).all()
    assert (in_region(b, RegionKind.HEAP) == 0).all()
    a, b = generate([kinds[0], spec(name="b", aslr=False, system="windows-7-x64")], 1)
    assert not set(a.names[a.present].tolist()) & set(b.names[b.present].tolist()) - {0}


def test_each_specification_has_a_snapshot_of_its_own() -> None:
    kinds = [spec(name=name, start="snapshot", images=IMAGES) for name in "abcdef"]
    guests = generate(kinds, 2, 3)
    bases = {base_of(guest, 5) for guest in guests}
    assert len(bases) > 2, "all snapshots have the same bases"
    for first, second in zip(guests[::2], guests[1::2], strict=True):
        assert (first.names == second.names).all()
    own = [set(of_kind(guest, NameKind.OWN).tolist()) for guest in guests[::2]]
    assert len(set().union(*own)) == sum(map(len, own))


# --- snapshots and hours ------------------------------------------------------------------------------------------

ANONYMOUS = GuestSpec(
    system="linux",
    memory="128 MiB",
    start="snapshot",
    churn=0.02,
    processes=(ProcessSet(name="p", heap="64 MiB", content=Content(zero=0.3, common=0.3)),),
    file_cache=FileCache(size="32 MiB", files="64 MiB"),
    placement=Placement(fragmentation=0.5),
)


def changed(layout: Layout, before: Layout) -> float:
    """The share of heap and file pages that were written."""
    wanted = [
        number for number, region in enumerate(layout.region_table)
        if region.kind in (RegionKind.HEAP, RegionKind.FILE_CACHE)
    ]  # fmt: skip
    own = np.isin(layout.regions, wanted)
    return float((layout.names != before.names)[own].mean())


def test_guests_of_a_snapshot_are_one_at_first() -> None:
    guests = generate(ANONYMOUS, 3)
    assert all((guest.names == guests[0].names).all() for guest in guests)
    assert all((guest.regions == guests[0].regions).all() for guest in guests)


@pytest.mark.parametrize("hours", [1.0, 10.0, 100.0])
def test_and_diverge_by_the_hour(hours: float) -> None:
    before = generate(ANONYMOUS, 1)[0]
    kind = GuestSpec(**{**{f: getattr(ANONYMOUS, f) for f in ANONYMOUS.__struct_fields__}, "hours": hours})
    one, other = generate(kind, 2)
    expected = 1 - np.exp(-0.02 * hours)
    n = 24 * 1024  # pages of heap and cache
    for guest in (one, other):
        assert abs(changed(guest, before) - expected) < 5 * (expected * (1 - expected) / n) ** 0.5
        assert (guest.regions == before.regions).all()
    both = (one.names != before.names) & (other.names != before.names)
    assert both.any() and (one.names[both] != other.names[both]).all()
    assert (of_kind(one, NameKind.OWN)[-1] >> np.uint64(40)) != (of_kind(other, NameKind.OWN)[-1] >> np.uint64(40))


def test_booted_guests_are_placed_anew() -> None:
    booted = GuestSpec(
        **{**{f: getattr(ANONYMOUS, f) for f in ANONYMOUS.__struct_fields__}, "start": "boot", "churn": 0.0}
    )
    one, other = generate(booted, 2)
    assert (np.sort(one.regions) == np.sort(other.regions)).all()
    assert (one.regions != other.regions).mean() > 0.1
    assert (of_kind(one, NameKind.COMMON) == of_kind(other, NameKind.COMMON)).all()


# --- anonymous memory ---------------------------------------------------------------------------------------------


def test_shares_of_anonymous_memory() -> None:
    shares = Content(zero=0.2, common=0.3, repeated=0.1)
    kind = GuestSpec(
        system="linux", memory="80 MiB", processes=(ProcessSet(name="p", heap="64 MiB", content=shares, stack=0),)
    )
    one, other = generate(kind, 2)
    heap = in_region(one, RegionKind.HEAP)
    n = len(heap)
    kinds = heap >> np.uint64(60)
    assert abs(np.mean(heap == 0) - 0.2) < 0.02
    assert abs(np.mean(kinds == NameKind.COMMON) - 0.3) < 0.02
    own = heap[kinds == NameKind.OWN]
    assert abs((len(own) - len(np.unique(own))) / n - 0.1) < 0.02
    common = heap[kinds == NameKind.COMMON]
    assert len(np.unique(common)) == len(common)
    rows = {row.name: row for row in summarize_layout_regions(find_duplicate_names([one, other]), [one, other])}
    assert rows["heap: p"].saved_across == len(common)
    assert rows["heap: p"].zero == 2 * np.count_nonzero(heap == 0)


# --- placement ----------------------------------------------------------------------------------------------------


def shared_at_2m(fragmentation: float, same_order: bool) -> tuple[int, int]:
    """2 MiB pages that are saved of two guests, and how many there are; 4 KiB pages are all the same in both."""
    kind = GuestSpec(
        system="windows-xp",
        memory="64 MiB",
        processes=tuple(
            ProcessSet(name=f"p{index}", heap="4 MiB", stack=0, content=Content(common=1.0), large_pages=True)
            for index in range(8)
        ),
        placement=Placement(fragmentation=fragmentation, same_order=same_order),
    )
    found = find_duplicate_names(generate(kind, 2, 4))
    assert summarize(found).saved_across_guests == 8 * 1024
    row = summarize(found.coarsen(512))
    return row.saved_across_guests, row.frames


def test_fragmentation_is_why_large_duplicates_vanish() -> None:
    ordered, frames = shared_at_2m(0.0, True)
    assert ordered == 16 and frames >= 32
    assert shared_at_2m(0.0, False)[0] == 16  # other places, but whole
    assert shared_at_2m(1.0, True)[0] == shared_at_2m(1.0, False)[0] == 0
    assert 0 < shared_at_2m(0.8, True)[0] < 16


def test_kernel_moves_in_steps_of_2_mib() -> None:
    kind = GuestSpec(system="linux", memory="512 MiB", images=(ImageSet(name="k", role="kernel", text="2 MiB"),))
    fixed = GuestSpec(**{**{f: getattr(kind, f) for f in kind.__struct_fields__}, "aslr": False})
    places = [int(np.flatnonzero(guest.present)[0]) for guest in generate(kind, 20)]
    assert all(place >= 4096 and place % 512 == 0 for place in places) and len(set(places)) > 10
    assert {int(np.flatnonzero(guest.present)[0]) for guest in generate(fixed, 3)} == {4096}


# --- file cache, and what is left ---------------------------------------------------------------------------------


def cached(**fields: Any) -> GuestSpec:
    rest = {name: fields.pop(name) for name in ("hours", "free", "start", "churn") if name in fields}
    return GuestSpec(system="linux", memory="64 MiB", file_cache=FileCache(**fields), **rest)


def file_pages(layout: Layout) -> NDArray[np.int64]:
    """Which pages of the files a guest has in its cache."""
    names = of_kind(layout, NameKind.FILE) & np.uint64((1 << 60) - 1)
    return (names >> np.uint64(BASE_BITS)).astype(np.int64)


def test_hot_pages_are_in_all_caches_and_the_rest_are_stretches() -> None:
    guests = [file_pages(guest) for guest in generate(cached(size="16 MiB", files="256 MiB", hot=0.25), 3)]
    hot = 1024
    for pages in guests:
        assert len(pages) == 4096 and len(np.unique(pages)) == 4096
        assert (pages[:hot] == np.arange(hot)).all()
        stretches = Counter(((pages[hot:] - hot) // STRETCH).tolist())
        assert len(stretches) == (4096 - hot) // STRETCH and set(stretches.values()) == {STRETCH}
    common = set(guests[0].tolist()) & set(guests[1].tolist())
    assert hot < len(common) < 1.5 * hot  # of the rest, 5 % are met by chance


def test_all_files_may_be_cached() -> None:
    """Also where the last stretch of them is short."""
    (guest,) = generate(cached(size=1000 * PAGE, files=1000 * PAGE, hot=0.1), 1)
    assert file_pages(guest).tolist() == list(range(1000))


def test_more_hot_files_than_an_image_has_pages() -> None:
    """Beyond 2^18 pages the names of files go on in the next image number, whichever that is."""
    kind = GuestSpec(
        system="linux", memory="1300 MiB", file_cache=FileCache(size="1200 MiB", files="4 GiB", hot=0.95),
        images=(ImageSet(name="k", role="kernel", text=PAGE),),
    )  # fmt: skip
    (guest,) = generate(kind, 1)
    assert len(np.unique(of_kind(guest, NameKind.FILE))) == 1200 * 256 + 1


def test_written_pages_of_files_are_the_guests_own() -> None:
    one, other = generate(cached(size="32 MiB", files="32 MiB", written=0.25), 2)
    for guest in (one, other):
        assert abs(len(of_kind(guest, NameKind.OWN)) / 8192 - 0.25) < 0.03
    assert not set(of_kind(one, NameKind.OWN).tolist()) & set(of_kind(other, NameKind.OWN).tolist())


@pytest.mark.parametrize(("hours", "expected"), [(0, 1024), (1, 1536), (2.5, 2304), (1000, 16384), (1e6, 16384)])
def test_the_cache_grows_until_memory_is_full(hours: float, expected: int) -> None:
    (guest,) = generate(cached(size="4 MiB", growth="2 MiB", files="1 GiB", hours=hours, free=Free(zero=1.0)), 1)
    assert len(in_region(guest, RegionKind.FILE_CACHE)) == expected
    assert len(in_region(guest, RegionKind.FREE)) == 16384 - expected


@pytest.mark.parametrize(
    ("zero", "stale", "counts"),
    [
        (1.0, 0.0, (3, 0, 0)),
        (0.0, 1.0, (0, 3, 0)),
        (0.0, 0.0, (0, 0, 3)),
        (0.5, 0.5, (1, 2, 0)),
        (0.34, 0.33, (1, 1, 1)),
    ],
)
def test_what_is_left(zero: float, stale: float, counts: tuple[int, int, int]) -> None:
    """Three pages: where both halves are rounded up, there are no four."""
    (guest,) = generate(GuestSpec(system="linux", memory=3 * PAGE, free=Free(zero=zero, stale=stale)), 1)
    free = in_region(guest, RegionKind.FREE)
    absent = guest.names == np.uint64(ABSENT)
    found = [np.count_nonzero(pages) for pages in (free == 0, free, absent)]
    assert found == list(counts)


# --- too much -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory": "1 MiB"}, r"images\.kernel: 288 pages, and 256 of the memory's 256 are left"),
        ({"memory": "3 MiB"}, r"images\.dlls: 640 pages, and \d+ of the memory's 768 are left"),
        ({"memory": "6 MiB", "images": (), "processes": (ProcessSet(name="a", heap="7 MiB"),)}, r"processes\.a: 1,808"),
        ({"processes": (ProcessSet(name="a", heap=1 << 45),)}, r"processes\.a: 8,589,934,608 pages"),
        ({"processes": (ProcessSet(name="a", heap="8 MiB", count=10_000),)}, r"processes\.a: 20,640,000"),
        ({"kernel": Kernel(data=1 << 46)}, r"kernel\.data: 17,179,869,184 pages"),
        ({"file_cache": FileCache(size=1 << 46, files=1 << 46)}, r"file_cache\.size: 17,179,869,184 pages"),
        ({"file_cache": FileCache(size="14 MiB", files="1 GiB")}, r"file_cache\.size: 3,584 pages"),
        (
            {"file_cache": FileCache(size="2 MiB", files="1 MiB")},
            r"file_cache\.files: 256 pages, which is less than .* 512",
        ),
        (
            {"processes": (ProcessSet(name="a", libraries=11),)},
            r"processes: 'a' maps 11 libraries, and the guest has 10",
        ),
        (
            {"processes": (ProcessSet(name="a", count=900, stack=0),), "images": (), "memory": "4 MiB"},
            r"memory: 1,024 p",
        ),
    ],
)
def test_more_than_its_memory(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"^{message}"):
        generate(spec(**fields), 1)


def test_images_that_nobody_maps_take_nothing() -> None:
    """However large they are."""
    vast = ImageSet(name="vast", role="library", count=10_000, text=1 << 45)
    program = ImageSet(name="program", role="executable", text=1 << 45)
    guest = generate(GuestSpec(system="linux", memory="1 MiB", images=(vast, program)), 1)[0]
    assert not guest.present.any()


# --- memory -------------------------------------------------------------------------------------------------------

# argv: guests. Prints the bytes that the layouts hold and the peak beyond what was there before.
PEAK = """
import re, sys
from pathlib import Path
from pagedup.guests import *
kind = GuestSpec(system="linux", memory="512 MiB", start="boot",
    processes=(ProcessSet(name="p", count=4, heap="32 MiB", content=Content(zero=0.1, common=0.2, repeated=0.1)),),
    file_cache=FileCache(size="200 MiB", files="1 GiB", hot=0.3), free=Free(zero=1.0),
    placement=Placement(fragmentation=0.7))
generate(GuestSpec(system="linux", memory="1 MiB"), 1)

def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
guests = generate(kind, int(sys.argv[1]), threads=1)
print(sum(guest.names.nbytes + guest.regions.nbytes for guest in guests), status("VmHWM") - before)
"""


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
def test_memory_that_generating_takes() -> None:
    pages = 512 * 256
    few, many = (run_python(PEAK, count) for count in (2, 18))
    assert (few.stderr, many.stderr) == ("", "")
    held, peak = map(int, many.stdout.split())
    print(f"{held / 18 / pages:.1f} bytes a page held, {peak / 18 / pages:.1f} at the peak of 18 guests")
    assert held <= 10 * 18 * pages
    assert peak - int(few.stdout.split()[1]) <= 16 * 10 * pages + 8 * MIB  # what another guest adds
    assert peak <= held + 90 * pages + 16 * MIB  # a template and a guest in the making
