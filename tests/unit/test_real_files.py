"""Guests of real binaries: whose names must say the same as their bytes, at whatever bases they were loaded."""

import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pagedup.cli import main
from pagedup.guests import (
    FileCache,
    GuestSpec,
    ImageSet,
    Layout,
    Placement,
    ProcessSet,
    RegionKind,
    SpecError,
    generate,
    materialize,
    specs_of_images,
)
from pagedup.guests.images import load
from pagedup.memory import Extent
from pagedup.memory.layouts import NameKind
from pagedup.sharing import find_duplicate_names, find_duplicates
from tests.pe_files import CODE, DATA, PAGE, RDATA, Fixup, Part, blocks, import_table, pe_file

MIB = 1 << 20
SLOT = 1 << 16  # bytes between two bases


def dll(seed: int, bits: int = 32) -> bytes:
    """Six pages of code, of which two hold no fixup, then read-only pages with an import table, then data."""
    rng = np.random.default_rng(seed)
    code = bytearray(rng.integers(0, 256, 6 * PAGE, np.uint8).tobytes())
    width, kind = (4, 3) if bits == 32 else (8, 10)
    fixups: list[Fixup] = [(PAGE + page * PAGE + at, kind) for page in (0, 1, 3, 4) for at in (64, 1000, 3000)]
    for place, _ in fixups:
        code[place - PAGE : place - PAGE + width] = (0x10001234).to_bytes(width, "little")
    imports, _ = import_table(7 * PAGE, {"other.dll": 40}, width)
    parts = [
        Part(".text", PAGE, bytes(code), flags=CODE),
        Part(".rdata", 7 * PAGE, imports, flags=RDATA),
        Part(".data", 8 * PAGE, bytes(code[2 * PAGE : 3 * PAGE]), size=3 * PAGE, flags=DATA),
    ]
    return pe_file(parts, blocks(fixups), bits=bits, imports=7 * PAGE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two DLLs, a copy of the first, one for 64 bits, and a plain file that holds a page of the first one's code."""
    where = tmp_path / "files"
    (where / "copies").mkdir(parents=True)
    (where / "a.dll").write_bytes(dll(1))
    (where / "b.dll").write_bytes(dll(2))
    (where / "copies" / "a.dll").write_bytes(dll(1))
    (where / "c.dll").write_bytes(dll(3, bits=64))
    image = load(str(where / "a.dll")).pages()
    assert not load(str(where / "a.dll")).fixups[3]
    (where / "plain").write_bytes(image[3].tobytes() + b"end")
    return where


def spec(path: Path, **changed: object) -> GuestSpec:
    fields = {
        "system": "windows-7-x86",
        "memory": 2 * MIB,
        "images": (ImageSet(name="dlls", role="library", path=str(path), data_written=0.0),),
        "processes": (ProcessSet(name="p", count=2, libraries=3),),
        "placement": Placement(fragmentation=0.5),
        **changed,
    }
    return GuestSpec(**fields)  # type: ignore[arg-type]


def assert_names_say_what_bytes_say(guests: Sequence[Layout]) -> None:
    memory = []
    for guest in guests:
        pages = materialize(guest)
        edges = np.flatnonzero(np.diff(guest.present, prepend=False, append=False)).tolist()
        memory.append(
            [Extent(begin * PAGE, pages[begin:end].data) for begin, end in zip(edges[::2], edges[1::2], strict=True)]
        )
    by_bytes, by_names = find_duplicates(memory, frame_size=PAGE), find_duplicate_names(guests)
    assert np.array_equal(by_bytes.canonical, by_names.canonical)
    assert np.array_equal(by_bytes.zero, by_names.zero)


def in_region(guest: Layout, kind: RegionKind) -> list[int]:
    """The names of the pages used so, ascending."""
    numbers = [number for number, region in enumerate(guest.region_table) if region.kind == kind]
    return sorted(guest.names[np.isin(guest.regions, numbers)].tolist())


@pytest.mark.parametrize("aslr", [True, False])
@pytest.mark.parametrize("start", ["boot", "snapshot"])
def test_names_say_what_bytes_say(folder: Path, aslr: bool, start: str) -> None:
    made = spec(folder, aslr=aslr, start=start, file_cache=FileCache(path=str(folder), size=8 * PAGE, hot=0.5))
    for seed in range(3):
        assert_names_say_what_bytes_say(generate(made, 5, seed))


def test_two_systems_in_one_host(folder: Path) -> None:
    of_64 = spec(folder, name="x64", system="windows-10-x64", processes=(ProcessSet(name="p", libraries=1),))
    assert_names_say_what_bytes_say(generate([spec(folder), of_64], 3))


def test_code_is_shared_where_the_base_is_equal_or_does_not_matter(folder: Path) -> None:
    guests = generate(spec(folder), 400, seed=3)
    texts = [in_region(guest, RegionKind.IMAGE_TEXT) for guest in guests]
    for text in texts:
        kinds = [name >> 60 for name in text]
        # a.dll, its copy and b.dll: of six pages of code four move; a copy lies elsewhere, so its pages differ
        assert kinds.count(NameKind.MOVED) == 12 and kinds.count(NameKind.REAL) == 6
        assert len({name for name in text if name >> 60 == NameKind.REAL}) == 4
    moved = [tuple(name for name in text if name >> 60 == NameKind.MOVED) for text in texts]
    bases = len(set(moved))
    # 256 * (1 - (255 / 256) ** 400) = 202 different ones are expected of 400 draws
    assert 180 < bases < 225
    # One number moves all libraries. The copy lies a few slots from the first one, so at another number it is where
    # that was, and their pages are equal: together they have more contents than bases, and fewer than twice as many.
    assert 8 * bases < len({page for text in moved for page in text}) < 12 * bases


def test_bytes_are_those_of_the_loader(tmp_path: Path) -> None:
    (tmp_path / "a.dll").write_bytes(dll(1))
    image = load(str(tmp_path / "a.dll"))
    made = spec(tmp_path, processes=(ProcessSet(name="p", libraries=1),))
    seen = set()
    for guest in generate(made, 4, seed=1):
        pages = materialize(guest)
        text = next(n for n, region in enumerate(guest.region_table) if region.kind == RegionKind.IMAGE_TEXT)
        found = {page.tobytes() for page in pages[guest.regions == text]}
        bases = [0x5000_0000 + number * SLOT for number in range(256)]
        fitting = [base for base in bases if {page.tobytes() for page in image.pages(base)[1:7]} == found]
        assert len(fitting) == 1
        seen.add(fitting[0])
    assert len(seen) > 1
    (still,) = generate(spec(tmp_path, aslr=False, processes=(ProcessSet(name="p", libraries=1),)), 1)
    text = next(n for n, region in enumerate(still.region_table) if region.kind == RegionKind.IMAGE_TEXT)
    assert {page.tobytes() for page in materialize(still)[still.regions == text]} == {
        page.tobytes() for page in image.pages()[1:7]
    }


def test_the_file_cache_holds_files_as_they_are(folder: Path) -> None:
    """Binaries in it are neither laid out nor relocated; what a loader maps of them is another page."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    pages = [data[at : at + PAGE].ljust(PAGE, b"\0") for data in files for at in range(0, len(data), PAGE)]
    cache = FileCache(path=str(folder), size=len(pages) * PAGE, hot=0.5)
    (guest,) = generate(spec(folder, file_cache=cache), 1)
    number = next(n for n, region in enumerate(guest.region_table) if region.kind == RegionKind.FILE_CACHE)
    held = materialize(guest)[guest.regions == number]
    assert sorted(page.tobytes() for page in held) == sorted(pages)


def test_linux_libraries_of_this_machine() -> None:
    """Code has no fixups, so all guests share it; what the loader of each process fills in is like nothing else."""
    library = next(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("_json*.so"), None)
    path = Path(sys.executable).resolve() if library is None else library
    made = spec(
        path,
        system="linux",
        memory=64 * MIB,
        images=(ImageSet(name="lib", role="library", path=str(path)),),
        processes=(ProcessSet(name="p", count=3, libraries=1),),
    )
    guests = generate(made, 3)
    assert_names_say_what_bytes_say(guests)
    texts = [in_region(guest, RegionKind.IMAGE_TEXT) for guest in guests]
    assert texts[0] and texts[0] == texts[1] == texts[2]
    still = generate(msgspec.structs.replace(made, aslr=False), 2)
    assert in_region(still[0], RegionKind.IMAGE_RDATA) == in_region(still[1], RegionKind.IMAGE_RDATA)


def test_the_bytes_of_real_files_are_not_saved(folder: Path, tmp_path: Path) -> None:
    (guest,) = generate(spec(folder), 1)
    guest.save(str(tmp_path / "guest.npz"))
    again = Layout.load(str(tmp_path / "guest.npz"))
    assert np.array_equal(again.names, guest.names)
    with pytest.raises(ValueError, match="holds pages of real files"):
        materialize(again)


def test_other_files_have_other_spaces(folder: Path) -> None:
    (one,) = generate(spec(folder), 1)
    (folder / "b.dll").write_bytes(dll(4))
    (other,) = generate(spec(folder), 1)
    assert one.space != other.space


def test_specifications_of_images(folder: Path) -> None:
    specs, images = specs_of_images([str(folder)])
    assert [made.system for made in specs] == ["windows-7-x86", "windows-10-x64"]
    assert len(images) == 4 and all(image.kind == "pe" for image in images)
    guests = generate(specs)
    assert len(guests) == 4
    assert_names_say_what_bytes_say(guests)


def test_what_is_no_image_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SpecError, match=r"images\.dlls: .* holds no image that linux runs"):
        generate(spec(folder, system="linux"), 1)
    with pytest.raises(FileNotFoundError):
        generate(spec(folder / "nowhere"), 1)
    (tmp_path / "text").write_text("no image")
    assert main(["layout", str(tmp_path / "text")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no image that a guest could load" in error
    (tmp_path / "cut.dll").write_bytes(dll(1)[:700])
    assert main(["layout", str(tmp_path / "cut.dll")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cut.dll" in error
