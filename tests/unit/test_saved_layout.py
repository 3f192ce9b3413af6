"""Layouts in files: all that is saved comes back, and whatever else a file holds is one error that names it."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagedup.guests import Content, FileCache, Free, GuestSpec, Placement, ProcessSet, generate
from pagedup.memory import open_sources
from pagedup.memory.layouts import ABSENT, Layout, LayoutRegion, RegionKind
from tests.layouts import layouts, make
from tests.processes import run_python, under_sanitizer

MIB = 1 << 20
NONE: Mapping[str, bytes | None] = {}
texts = st.text(st.characters(codec=None, exclude_characters="\0"), max_size=12)


def same(one: Layout, other: Layout) -> bool:
    return (
        (one.name, one.space, tuple(one.region_table)) == (other.name, other.space, tuple(other.region_table))
        and one.runs.tolist() == other.runs.tolist()
        and one.regions.tolist() == other.regions.tolist()
        and (one.names.dtype, one.regions.dtype, one.runs.dtype)
        == (other.names.dtype, other.regions.dtype, other.runs.dtype)
        and one.names.tolist() == other.names.tolist()
    )


@settings(max_examples=100)
@given(st.data())
def test_all_comes_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    plain = data.draw(layouts(st.sampled_from([0, 1, 1 << 63, ABSENT]) | st.integers(0, ABSENT), 20))
    table = data.draw(
        st.lists(st.builds(LayoutRegion, st.sampled_from(RegionKind), texts), min_size=1, max_size=8), label="table"
    )
    regions = data.draw(
        st.lists(st.integers(0, len(table) - 1), min_size=plain.n_pages, max_size=plain.n_pages), label="regions"
    )
    numbers = np.array(regions, np.uint8)
    layout = Layout(data.draw(texts), plain.names, numbers, table, plain.runs, data.draw(texts))
    path = str(tmp_path_factory.mktemp("saved") / "layout.npz")
    layout.save(path)
    assert same(Layout.load(path), layout)


def test_surrogates_come_back(tmp_path: Path) -> None:
    """A file's name may hold bytes that are no text."""
    layout = make([1], name=os.fsdecode(b"\xff\xfe"))
    layout.save(str(tmp_path / "a.npz"))
    assert Layout.load(str(tmp_path / "a.npz")).name == os.fsdecode(b"\xff\xfe")


def test_no_page_and_no_region(tmp_path: Path) -> None:
    empty = Layout("", np.empty(0, np.uint64), np.empty(0, np.uint8), (), np.empty((0, 2), np.uint64), "")
    empty.save(str(tmp_path / "a.npz"))
    assert same(Layout.load(str(tmp_path / "a.npz")), empty)


@pytest.mark.parametrize("field", ["name", "space", "region"])
def test_a_text_that_would_change_is_refused(tmp_path: Path, field: str) -> None:
    texts = {"name": "a", "space": "b", "region": "c", field: "d\0"}
    table = [LayoutRegion(RegionKind.HEAP, texts["region"])]
    layout = Layout(
        texts["name"], np.zeros(1, np.uint64), np.zeros(1, np.uint8), table,
        np.array([[0, 1]], np.uint64), texts["space"],
    )  # fmt: skip
    with pytest.raises(ValueError, match="ends in a zero character"):
        layout.save(str(tmp_path / "a.npz"))
    assert list(tmp_path.iterdir()) == []


def test_same_layout_same_bytes_and_numpy_reads_them(tmp_path: Path) -> None:
    layout = make([5, 0, ABSENT, 5])
    for name in "ab":
        layout.save(str(tmp_path / name))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with np.load(tmp_path / "a", allow_pickle=False) as arrays:
        assert (str(arrays["format"]), int(arrays["version"])) == ("pagedup.layout", 1)
        assert arrays["names"].T.copy().view("<u8").reshape(-1).tolist() == layout.names.tolist()
        assert arrays["regions"].tolist() == layout.regions.tolist()


SPEC = GuestSpec(
    system="linux",
    memory="512 MiB",
    processes=(
        ProcessSet(name="service", count=8, heap="24 MiB", content=Content(zero=0.1, common=0.1, repeated=0.1)),
    ),
    file_cache=FileCache(size="160 MiB", files="1 GiB", hot=0.3, written=0.05),
    free=Free(zero=0.5, stale=0.2),
    placement=Placement(fragmentation=0.8),
)


@pytest.mark.parametrize("shape", ["made up", "read"])
def test_a_few_megabytes_for_a_million_pages(tmp_path: Path, shape: str) -> None:
    layout = generate(SPEC, 1, 3)[0]
    if shape == "read":  # as capture numbers memory: by the first page that holds the content
        _, first, which = np.unique(layout.names, return_index=True, return_inverse=True)
        names = first[which.reshape(-1)].astype(np.uint64) | np.uint64(6 << 60)
        layout = make(names)
    path = tmp_path / "a.npz"
    layout.save(str(path))
    per_million = path.stat().st_size / layout.n_pages * 1e6
    print(f"{shape}: {per_million / 1e6:.2f} MB for a million pages")
    assert per_million <= 4e6


# --- what is no layout --------------------------------------------------------------------------------------------


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=True)
    return file.getvalue()


def header(text: str, version: bytes = b"\1\0") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode()


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {entry: archive.read(entry) for entry in archive.namelist()}


def rewritten(path: Path, changed: Mapping[str, bytes | None] = NONE, method: int = zipfile.ZIP_STORED) -> Path:
    """A layout's file with other arrays; None: without one."""
    kept = entries(path)
    for name, content in changed.items():
        kept.pop(f"{name}.npy", None)
        if content is not None:
            kept[f"{name}.npy"] = content
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in kept.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "guest.npz"
    make([1, 0, ABSENT, 1]).save(str(path))
    return path


def refused(path: Path, *parts: str) -> str:
    """The one line that loading and scanning it end with."""
    with pytest.raises(OSError) as caught:
        Layout.load(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ") or caught.value.filename == str(path), message
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


ARRAYS = ["format", "version", "name", "space", "names", "regions", "region_kinds", "region_of", "runs"]


def test_rewritten_as_it_is(saved: Path) -> None:
    assert sorted(entries(saved)) == sorted(f"{name}.npy" for name in ARRAYS)
    assert same(Layout.load(str(rewritten(saved))), make([1, 0, ABSENT, 1]))
    assert same(Layout.load(str(rewritten(saved, method=zipfile.ZIP_DEFLATED))), make([1, 0, ABSENT, 1]))


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_missing(saved: Path, name: str) -> None:
    refused(rewritten(saved, {name: None}), f"lacks the array {name}")


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy(np.array([object()], object)),
        npy(np.array([(1, 2)], "i4,i4")),
        npy(1.5),
        npy(np.zeros((2, 2, 2), np.uint8)),
        npy(np.array(["2020-01-01"], "M8[D]")),
        npy(np.asfortranarray(np.zeros((8, 4), np.uint8))),
        npy(np.asfortranarray(np.zeros((2, 2), np.uint64))),
        npy(np.zeros(4, ">u8")),
        header("{'descr': '<u9', 'fortran_order': False, 'shape': (4,), }\n") + bytes(36),
        header("{'descr': '<U0', 'fortran_order': False, 'shape': (4,), }\n"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + pickle.dumps([1]),
        header("{[]: 1}\n"),
        header("{'descr': (), 'fortran_order': False, 'shape': (4,), }\n"),
        header("{1: 2, 'a': 3}\n"),
        header("(" * 200),
        header("'''\n"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (8, 4L), }\n") + bytes(32),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (-8, -4), }\n") + bytes(32),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 1" + "0" * 40 + "), }\n"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (8, 4), }\n", b"\2\0") + bytes(32),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (8, 4), }" + " " * 5000 + "\n") + bytes(32),
    ],
)
def test_an_array_of_another_kind(saved: Path, name: str, content: bytes) -> None:
    refused(rewritten(saved, {name: content}), name)


class Malice:
    """What must never be called."""

    def __reduce__(self) -> Any:
        return (os._exit, (42,))


@pytest.mark.parametrize("name", ARRAYS)
def test_no_pickle_is_read(saved: Path, name: str) -> None:
    content = header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + pickle.dumps(Malice())
    refused(rewritten(saved, {name: content}), name)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"format": npy("pagedup.other")}, "its format is 'pagedup.other', not 'pagedup.layout'"),
        ({"format": npy("two\nlines")}, "two\\nlines"),
        ({"version": npy(2)}, "its version is 2; this pagedup reads version 1"),
        ({"version": npy(-1)}, "its version is -1"),
        ({"version": npy(np.ones((3, 3), np.int64))}, "version: has the shape (3, 3)"),
        ({"names": npy(np.zeros((7, 4), np.uint8))}, "names: has the shape (7, 4); (8, 4) is right"),
        ({"names": npy(np.zeros((8, 5), np.uint8))}, "names: has the shape (8, 5); (8, 4) is right"),
        ({"names": npy(np.zeros(4, np.uint64))}, "names: is of type uint64; uint8 is right"),
        ({"regions": npy(np.full(4, 3, np.uint8))}, "regions has the number 3"),
        ({"region_kinds": npy(["nonsense"] * 3)}, "nonsense"),
        ({"region_kinds": npy(["heap"])}, "region_kinds has 1 entries, and region_of 3"),
        ({"region_kinds": npy(["heap"] * 257), "region_of": npy([""] * 257)}, "has 257 entries; at most 256"),
        ({"runs": npy(np.array([[0, 3]], np.uint64))}, "runs has 3 pages, and names has 4"),
        ({"runs": npy(np.array([[0, 4]], np.int64))}, "runs: is of type int64; uint64 is right"),
        ({"runs": npy(np.array([0, 4], np.uint64))}, "runs: has the shape (2,); (any, 2) is right"),
        ({"name": header("{'descr': '<U1', 'fortran_order': False, 'shape': (), }\n") + b"\0\0\x11\0"}, "no character"),
        ({"name": header("{'descr': '<U1', 'fortran_order': False, 'shape': (), }\n") + b"\xff" * 4}, "no character"),
    ],
)
def test_arrays_that_do_not_fit(saved: Path, changed: dict[str, bytes | None], part: str) -> None:
    refused(rewritten(saved, changed), part)


@pytest.mark.parametrize(
    "shape", ["(8, 5)", "(8, 3)", "(8, 999999999999999999)", "(9, 4)", "(8,)", "()", "(8, 4, 1)", "(0, 0)", "(8, 0)"]
)
def test_a_header_that_lies_about_the_size(saved: Path, shape: str) -> None:
    lie = header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n") + bytes(32)
    refused(rewritten(saved, {"names": lie}), "names")


def test_a_compression_that_save_does_not_use(saved: Path) -> None:
    refused(rewritten(saved, method=zipfile.ZIP_LZMA), "format: is compressed by method 14")
    refused(rewritten(saved, method=zipfile.ZIP_BZIP2), "format: is compressed by method 12")


def test_truncated_at_every_length(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        refused(saved)


def test_every_flipped_byte(saved: Path) -> None:
    """It is an error, or what is read is sound and the same."""
    whole = saved.read_bytes()
    expected = make([1, 0, ABSENT, 1])
    taken = 0
    for at in range(len(whole)):
        saved.write_bytes(whole[:at] + bytes([whole[at] ^ (0x01, 0x80, 0xFF)[at % 3]]) + whole[at + 1 :])
        try:
            layout = Layout.load(str(saved))
        except OSError as error:
            assert str(saved) in str(error) and "\n" not in str(error)
        else:  # times and versions of zip, which nobody asks for
            assert same(layout, expected)
            taken += 1
    assert 0 < taken < len(whole)


@settings(max_examples=300)
@given(st.data())
def test_arrays_with_flipped_bytes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Where the checksums are right: anything that loads is a sound layout."""
    folder = tmp_path_factory.mktemp("flipped")
    path = folder / "guest.npz"
    make([1, 0, ABSENT, 1]).save(str(path))
    name = data.draw(st.sampled_from(ARRAYS))
    content = bytearray(entries(path)[f"{name}.npy"])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    rewritten(path, {name: bytes(content)})
    try:
        layout = Layout.load(str(path))
    except OSError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert layout.n_pages == int(layout.runs[:, 1].sum()) == len(layout.regions) == len(layout.names)


BOMB = """
import resource, sys
from pagedup.memory.layouts import Layout
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Layout.load(sys.argv[1])
except OSError as error:
    assert str(error).startswith(sys.argv[1]) and "\\n" not in str(error), error
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def zeros(size: int) -> Callable[[zipfile.ZipFile, str, bytes], None]:
    def write(archive: zipfile.ZipFile, name: str, start: bytes) -> None:
        with archive.open(name, "w", force_zip64=True) as file:
            file.write(start)
            for _ in range(size // MIB):
                file.write(bytes(MIB))

    return write


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
@pytest.mark.parametrize("name", ["names", "regions", "format", "region_of", "runs"])
def test_a_bomb_takes_no_memory(saved: Path, name: str) -> None:
    """A gigabyte of zeros in a megabyte, whose header says what memory never held."""
    kept = entries(saved)
    kept.pop(f"{name}.npy")
    # More than there are pages, and a type that is not asked for: found before anything is read.
    start = header("{'descr': '|u1', 'fortran_order': False, 'shape': (8, 134217728), }\n")
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        zeros(1 << 30)(archive, f"{name}.npy", start)
        for other, content in kept.items():
            archive.writestr(other, content)
    assert saved.stat().st_size < 8 * MIB
    done = run_python(BOMB, saved)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 32 << 10  # in KiB


def test_more_than_there_is_memory_for(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound in itself, and yet refused: nobody shall be killed for opening a file."""
    monkeypatch.setattr("pagedup.memory.layouts.saved.available_memory", lambda: 167)
    assert len("pagedup.layout") * 4 * 3 == 168
    refused(saved, "format: 168 bytes of memory are needed, and 167 are available")


def test_a_header_that_leaves_bytes_over(saved: Path) -> None:
    lie = header("{'descr': '<u8', 'fortran_order': False, 'shape': (1, 2), }\n") + bytes(32)
    refused(rewritten(saved, {"runs": lie}), "runs: claims the shape (1, 2), and 32 bytes are stored")


def test_what_is_claimed_but_not_there(saved: Path) -> None:
    """The directory of the archive, and the array's own header, say more bytes than there are."""
    short = header("{'descr': '|u1', 'fortran_order': False, 'shape': (8, 4), }\n") + bytes(20)
    rewritten(saved, {"names": short}, method=zipfile.ZIP_DEFLATED)
    whole = bytearray(saved.read_bytes())
    place = whole.index(b"names.npy", whole.index(b"PK\1\2")) - 46  # its record in the directory
    assert whole[place : place + 4] == b"PK\1\2"
    assert int.from_bytes(whole[place + 24 : place + 28], "little") == len(short)
    whole[place + 24 : place + 28] = (len(short) + 12).to_bytes(4, "little")
    saved.write_bytes(whole)
    refused(saved, "names: ends after 20 of 32 bytes")


def test_other_files(tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("hello.txt", "hello")
    refused(archive, "lacks the array format")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    refused(tmp_path / "other.npz", "lacks the array format")
    (tmp_path / "empty").touch()
    refused(tmp_path / "empty", "is no layout")
    (tmp_path / "raw").write_bytes(bytes(4096))
    refused(tmp_path / "raw", "is no layout")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")  # and does not wait for its other end
    refused(tmp_path, "not a regular file")
    with pytest.raises(FileNotFoundError) as caught:
        Layout.load(str(tmp_path / "missing"))
    assert caught.value.filename == str(tmp_path / "missing")


def test_an_encrypted_archive(saved: Path) -> None:
    rewritten(saved)
    whole = bytearray(saved.read_bytes())
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = 0
        while (at := whole.find(magic, at)) >= 0:
            whole[at + flags] |= 1
            at += 4
    saved.write_bytes(whole)
    refused(saved, "encrypted")


# --- as a source --------------------------------------------------------------------------------------------------


def test_opened_like_any_other_source(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "no-suffix"
    make([1, 2]).save(str(other))
    sources = open_sources([str(saved), str(other)])
    assert [(source.kind, source.name, source.size) for source in sources] == [
        ("layout", "guest", 3 * 4096),
        ("layout", "no-suffix", 2 * 4096),
    ]


def test_never_mixed_with_bytes(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "raw.img").write_bytes(bytes(4096))
    for texts in ([saved, tmp_path / "raw.img"], [tmp_path / "raw.img", saved]):
        with pytest.raises(OSError, match=r"guest\.npz: holds names, which cannot be compared with the bytes of .*raw"):
            open_sources([str(text) for text in texts])


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        open_sources([str(tmp_path / "pipe")])
