"""Generated guests: every page has a use, and the uses add up to what the specification says."""

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

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
from pagedup.memory.layouts import ABSENT, Layout, NameKind, RegionKind
from pagedup.sharing import find_duplicate_names

PAGE = 4096
K = RegionKind
pages = st.integers(0, 40)
share = st.sampled_from([0.0, 0.25, 0.5, 1 / 3, 1.0])
sizes = pages.map(lambda number: number * PAGE)


@st.composite
def shares(draw: st.DrawFn, kind: Any, *names: str) -> Any:
    """Shares that add up to 1 at most."""
    left, found = 1.0, {}
    for name in names:
        found[name] = min(left, draw(share))
        left -= found[name]
    return kind(**found)


content = shares(Content, "zero", "common", "repeated")


@st.composite
def specs(draw: st.DrawFn, fixups: bool = True) -> GuestSpec:
    fixup = share if fixups else st.just(0.0)
    images = [
        ImageSet(
            name=f"{role} set", role=role, count=draw(st.integers(1, 3)),
            text=draw(sizes), rdata=draw(sizes), data=draw(sizes),
            text_fixups=draw(fixup), rdata_fixups=draw(fixup), data_fixups=draw(fixup),
            imports=draw(fixup), data_written=draw(share),
        )
        for role in ("kernel", "driver", "library", "executable")
        if draw(st.booleans())
    ]  # fmt: skip
    libraries = sum(own.count for own in images if own.role == "library")
    runs = [""] + [own.name for own in images if own.role == "executable"]
    processes = [
        ProcessSet(
            name=f"p{index}", count=draw(st.integers(1, 3)), executable=draw(st.sampled_from(runs)),
            libraries=draw(st.integers(0, libraries)), heap=draw(sizes), stack=draw(sizes), content=draw(content),
            large_pages=draw(st.booleans()),
        )
        for index in range(draw(st.integers(0, 2)))
    ]  # fmt: skip
    return GuestSpec(
        system=draw(st.sampled_from(["windows-xp", "windows-7-x86", "windows-10-x64", "linux"])),
        memory=draw(st.integers(1, 3000)) * PAGE,
        aslr=draw(st.booleans()),
        start=draw(st.sampled_from(["boot", "snapshot"])),
        hours=draw(st.sampled_from([0.0, 1.0, 50.0])),
        churn=draw(st.sampled_from([0.0, 0.1, 1.0])),
        kernel=Kernel(data=draw(sizes), content=draw(content)),
        images=tuple(images),
        processes=tuple(processes),
        file_cache=FileCache(
            size=draw(sizes),
            growth=draw(sizes),
            files=draw(st.integers(0, 300)) * PAGE,
            hot=draw(share),
            written=draw(share),
        ),
        free=draw(shares(Free, "zero", "stale")),
        placement=Placement(fragmentation=draw(share), same_order=draw(st.booleans())),
    )


def by_kind(layout: Layout) -> Counter[RegionKind]:
    counts: Counter[RegionKind] = Counter()
    for number, count in enumerate(np.bincount(layout.regions, minlength=len(layout.region_table)).tolist()):
        counts[layout.region_table[number].kind] += count
    return +counts


def made(spec: GuestSpec, *arguments: Any) -> list[Layout]:
    """Guests, or none where the specification asks for too much."""
    try:
        return generate(spec, *arguments)
    except SpecError as error:
        parts = ("memory", "kernel.data", "images.", "processes.", "file_cache.size", "file_cache.files")
        assert str(error).startswith(parts), error
        return []


@settings(max_examples=200)
@given(specs(), st.integers(0, 1 << 70))
def test_every_page_has_a_use(spec: GuestSpec, seed: int) -> None:
    for layout in made(spec, 2, seed):
        assert layout.n_pages == int(spec.memory) // PAGE
        assert layout.runs.tolist() == [[0, layout.n_pages]]
        table = layout.region_table
        absent = np.array([region.kind == K.ABSENT for region in table])[layout.regions]
        assert (absent == ~layout.present).all()
        kinds = layout.names >> np.uint64(60)
        assert set(kinds.tolist()) <= {0, 1, 2, 3, 4, 5, 15}
        assert (layout.names[kinds == 0] == 0).all() and (layout.names[kinds == 15] == np.uint64(ABSENT)).all()


@settings(max_examples=200)
@given(specs(fixups=False), st.integers(0, 9))
def test_the_uses_add_up_to_the_specification(spec: GuestSpec, seed: int) -> None:
    """Without fixups or imports, so that nothing rests on chance."""

    def n(size: Any) -> int:
        return int(size) // PAGE

    expected: Counter[RegionKind] = Counter()
    most = max((own.libraries for own in spec.processes), default=0)
    mapped: Counter[str] = Counter()
    libraries = [own for own in spec.images if own.role == "library" for _ in range(own.count)]
    for processes in spec.processes:
        own = [*libraries[: processes.libraries], *(i for i in spec.images if i.name == processes.executable)]
        total = sum(n(image.text) + n(image.rdata) + n(image.data) for image in own)
        total += n(processes.heap) + n(processes.stack)
        expected[K.HEAP] += processes.count * n(processes.heap)
        expected[K.STACK] += processes.count * n(processes.stack)
        expected[K.PAGE_TABLES] += processes.count * (-(-total // 512) + 4)
        for image in own:
            expected[K.IMAGE_DATA] += processes.count * round(image.data_written * n(image.data))
        mapped[processes.executable] += 1
    for image in spec.images:
        if image.role in ("kernel", "driver"):
            expected[K.KERNEL_TEXT] += image.count * n(image.text)
            expected[K.KERNEL_DATA] += image.count * (n(image.rdata) + n(image.data))
            continue
        count = min(image.count, most) if image.role == "library" else min(1, mapped[image.name])
        expected[K.IMAGE_TEXT] += count * n(image.text)
        expected[K.IMAGE_RDATA] += count * n(image.rdata)
        expected[K.IMAGE_DATA] += count * (n(image.data) - round(image.data_written * n(image.data)))
    expected[K.KERNEL_DATA] += n(spec.kernel.data)
    room = n(spec.memory) - sum(expected.values())
    cache = n(spec.file_cache.size)
    cache += max(0, min(round(n(spec.file_cache.growth) * spec.hours), room - cache))
    fits = room >= 0 and cache <= room and cache <= n(spec.file_cache.files)
    found = made(spec, 1, seed)
    assert bool(found) == fits
    if not fits:
        return
    expected[K.FILE_CACHE] = cache
    left = room - cache
    used = min(left, round(spec.free.stale * left) + round(spec.free.zero * left))
    expected[K.FREE], expected[K.ABSENT] = used, left - used
    assert by_kind(found[0]) == +expected


@settings(max_examples=100)
@given(specs(), st.sampled_from([1, 2, 3, 7]), st.integers(0, 5))
def test_neither_threads_nor_neighbours_change_a_guest(spec: GuestSpec, threads: int, seed: int) -> None:
    try:
        guests = generate(spec, 4, seed, threads=1)
    except SpecError:
        return
    again = generate(spec, 4, seed, threads=threads)
    for one, other in zip(guests, again, strict=True):
        assert (one.name, one.space, one.names.tobytes(), one.regions.tobytes(), list(one.region_table)) == (
            other.name, other.space, other.names.tobytes(), other.regions.tobytes(), list(other.region_table)
        )  # fmt: skip
    fewer = generate(spec, 2, seed)
    assert [guest.names.tobytes() for guest in fewer] == [guest.names.tobytes() for guest in guests[:2]]


@settings(max_examples=150)
@given(specs(), specs(), st.integers(0, 5))
def test_what_is_a_guests_own_no_other_has(one: GuestSpec, other: GuestSpec, seed: int) -> None:
    """Also of two kinds in one call, each from a snapshot of its own perhaps."""
    try:
        guests = generate([one, other], 2, seed)
    except SpecError:
        return
    own = [set(layout.names[layout.names >> np.uint64(60) == NameKind.OWN].tolist()) for layout in guests]
    assert not (own[0] | own[1]) & (own[2] | own[3])
    for first, second, spec in ((own[0], own[1], one), (own[2], own[3], other)):
        if spec.start == "boot":
            assert not first & second
    if one.system != other.system:
        held = [set(layout.names[layout.present].tolist()) - {0} for layout in guests]
        assert not (held[0] | held[1]) & (held[2] | held[3])
    assert find_duplicate_names(guests).n_frames == sum(int(layout.present.sum()) for layout in guests)
