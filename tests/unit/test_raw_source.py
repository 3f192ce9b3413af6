"""Raw images: real files, sparse and plain, and every way in which one cannot be read."""

import errno
import os
import re
import socket
from itertools import pairwise
from pathlib import Path

import pytest

import pagedup.memory.dumps.image_file as image_file_module
from pagedup.memory import Extent, Source, SourceTextError, name_sources, open_sources

PAGE = 4096


def open_one(path: Path, frame_size: int = PAGE) -> Source:
    (source,) = open_sources([str(path)], frame_size=frame_size)
    return source


def layout(source: Source) -> list[tuple[str, int, int]]:
    return [
        ("data", extent.address, len(memoryview(extent.buffer)))
        if isinstance(extent, Extent)
        else ("hole", extent.address, extent.size)
        for extent in source.extents
    ]


def contents(source: Source) -> bytes:
    parts = []
    for extent in source.extents:
        parts.append(bytes(memoryview(extent.buffer)) if isinstance(extent, Extent) else bytes(extent.size))
    return b"".join(parts)


def test_plain_file_is_one_extent(tmp_path: Path) -> None:
    data = os.urandom(5 * PAGE)
    path = tmp_path / "guest.img"
    path.write_bytes(data)
    with open_one(path) as source:
        assert (source.name, source.text, source.kind, source.size) == ("guest", str(path), "raw", 5 * PAGE)
        assert layout(source) == [("data", 0, 5 * PAGE)]
        assert contents(source) == data
        source.check()


@pytest.mark.parametrize("stored", [(), (0,), (7,), (0, 7), (2, 3, 5), (1, 4, 6), tuple(range(8))])
def test_holes_are_known_and_not_read(tmp_path: Path, stored: tuple[int, ...]) -> None:
    unit = 64 * 1024  # larger than any block, so that the file system keeps the holes
    path = tmp_path / "sparse.img"
    with path.open("wb") as file:
        file.truncate(8 * unit)
        for index in stored:
            file.seek(index * unit)
            file.write(os.urandom(unit))
    with open_one(path) as source:
        assert contents(source) == path.read_bytes()
        if os.stat(path).st_blocks * 512 > len(stored) * unit + unit // 2:
            pytest.skip("this file system keeps no holes")
        pages = [
            (kind == "data", address // unit + i) for kind, address, size in layout(source) for i in range(size // unit)
        ]
        assert pages == [(index in stored, index) for index in range(8)]
        kinds = [kind for kind, _, _ in layout(source)]
        assert all(one != other for one, other in pairwise(kinds)), "neighbours are one extent"


def test_partial_frames_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with small blocks may store a part of a frame; the whole frame is then read."""
    block, stored = 512, {3, 9, 10, 30, 31, 64}
    blocks = 80  # 10 frames
    path = tmp_path / "small-blocks.img"
    path.write_bytes(b"".join(os.urandom(block) if i in stored else bytes(block) for i in range(blocks)))

    def lseek(fd: int, offset: int, whence: int) -> int:
        index = offset // block
        if whence == os.SEEK_DATA:
            found = next((i for i in range(index, blocks) if i in stored), None)
            if found is None:
                raise OSError(errno.ENXIO, "no more data")
        else:
            found = next((i for i in range(index, blocks) if i not in stored), blocks)
        return max(offset, found * block)

    monkeypatch.setattr(os, "lseek", lseek)
    with open_one(path) as source:
        assert layout(source) == [
            ("data", 0, 2 * PAGE),
            ("hole", 2 * PAGE, PAGE),
            ("data", 3 * PAGE, PAGE),
            ("hole", 4 * PAGE, 4 * PAGE),
            ("data", 8 * PAGE, PAGE),
            ("hole", 9 * PAGE, PAGE),
        ]
        assert contents(source) == path.read_bytes()


def test_file_system_that_cannot_tell_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "guest.img"
    path.write_bytes(bytes(3 * PAGE))

    def lseek(fd: int, offset: int, whence: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "lseek", lseek)
    with open_one(path) as source:
        assert layout(source) == [("data", 0, 3 * PAGE)]


def test_small_frames_allow_small_files(tmp_path: Path) -> None:
    path = tmp_path / "names.bin"
    path.write_bytes(bytes(24))
    with open_one(path, frame_size=8) as source:
        assert sum(size for _, _, size in layout(source)) == source.size == 24


def bad_path(folder: Path, what: str) -> Path:
    path = folder / "bad.img"
    if what == "empty":
        path.touch()
    elif what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif what == "device":
        path = Path("/dev/zero")
    elif what == "odd":
        path.write_bytes(bytes(2 * PAGE + 5))
    elif what == "loop":
        path.symlink_to(path)
    return path


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "No such file"),
        ("empty", "the file is empty"),
        ("directory", "is a directory"),
        ("pipe", "is a pipe"),
        ("socket", "is a socket"),
        ("device", "is a device"),
        ("loop", "symbolic links"),
        ("odd", "8,197 bytes is no multiple of 4,096: 5 bytes too many"),
    ],
)
def test_bad_files(tmp_path: Path, what: str, message: str) -> None:
    path = bad_path(tmp_path, what)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=message) as caught:
        open_one(path)
    assert str(path) in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_an_error_closes_what_was_open(tmp_path: Path) -> None:
    good = tmp_path / "good.img"
    good.write_bytes(bytes(PAGE))
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="empty"):
        open_sources([str(good), str(bad_path(tmp_path, "empty"))])
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_close_twice_and_with_a_buffer_held(tmp_path: Path) -> None:
    path = tmp_path / "guest.img"
    path.write_bytes(b"x" * PAGE)
    descriptors = len(os.listdir("/proc/self/fd"))
    source = open_one(path)
    (extent,) = source.extents
    assert isinstance(extent, Extent)
    held = memoryview(extent.buffer)
    source.close()
    source.close()
    assert held[PAGE - 1] == ord("x")
    held.release()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_file_that_shrinks_while_read(tmp_path: Path) -> None:
    path = tmp_path / "guest.img"
    path.write_bytes(b"x" * (8 * PAGE))
    with open_one(path) as source:
        os.truncate(path, 3 * PAGE)
        assert contents(source) == b"x" * (3 * PAGE) + bytes(5 * PAGE)
        with pytest.raises(OSError, match=re.escape(f"{path}: the file shrank from 32,768 to 12,288 bytes")):
            source.check()
        os.truncate(path, 8 * PAGE)
        with pytest.raises(OSError, match="shrank"):
            source.check()


def test_pages_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "guest.img"
    path.write_bytes(b"x" * (8 * PAGE))
    with open_one(path) as source:
        os.truncate(path, 3 * PAGE)
        contents(source)
        os.truncate(path, 8 * PAGE)
        message = f"{path}: the file shrank, or could not be read, below 32,768 bytes (it has 32,768 bytes now)"
        with pytest.raises(OSError, match=re.escape(message)):
            source.check()


def test_file_that_cannot_be_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "guest.img"
    path.write_bytes(bytes(PAGE))

    def mapped(fd: int, size: int) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(image_file_module, "MappedFile", mapped)
    with pytest.raises(OSError, match="cannot be mapped: No such device") as caught:
        open_one(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENODEV, str(path))


def test_file_that_shrinks_where_nothing_is_read(tmp_path: Path) -> None:
    path = tmp_path / "guest.img"
    path.write_bytes(b"x" * (8 * PAGE))
    with open_one(path) as source:
        os.truncate(path, 3 * PAGE)
        with pytest.raises(OSError, match="shrank"):
            source.check()


def test_file_that_grows_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "guest.img"
    path.write_bytes(b"x" * PAGE)
    with open_one(path) as source:
        os.truncate(path, 8 * PAGE)
        assert contents(source) == b"x" * PAGE
        source.check()


@pytest.mark.parametrize("text", ["pid:", "pid:x", "pid:-1", "pid:0", "pid:1.5", "pid:99999999999", "pid:\u0663", ""])
def test_malformed_texts(text: str) -> None:
    with pytest.raises(SourceTextError):
        open_sources([text])


def test_unknown_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceTextError, match="no kind of source named 'xen:'"):
        open_sources(["xen:guest"])
    Path("xen:guest").write_bytes(bytes(PAGE))
    Path("pid:1").write_bytes(bytes(2 * PAGE))
    sources = open_sources(["xen:guest", "./pid:1"])
    assert [(source.name, source.kind, source.size) for source in sources] == [
        ("xen:guest", "raw", PAGE),
        ("pid:1", "raw", 2 * PAGE),
    ]
    for source in sources:
        source.close()


@pytest.mark.parametrize("way", ["same", "other path", "symlink", "hard link"])
def test_the_same_file_twice(tmp_path: Path, way: str) -> None:
    path = tmp_path / "guest.img"
    path.write_bytes(bytes(PAGE))
    other = {"same": str(path), "other path": f"{tmp_path}/./guest.img"}.get(way, str(tmp_path / "other.img"))
    if way == "symlink":
        os.symlink(path, other)
    elif way == "hard link":
        os.link(path, other)
    with pytest.raises(SourceTextError, match=r"given twice|the same source as"):
        open_sources([str(path), other])


def test_the_same_file_twice_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one.img", tmp_path / "two.img"
    one.write_bytes(bytes(PAGE))
    two.write_bytes(bytes(PAGE))

    def replace(phase: str, done: int, total: int) -> None:
        if not done:
            two.unlink()
            os.link(one, two)

    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SourceTextError, match=r"two.img: is the same source as .*one.img"):
        open_sources([str(one), str(two)], replace)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_same_process_twice() -> None:
    with pytest.raises(SourceTextError, match=r"pid:0*\d+: is the same source as"):
        open_sources([f"pid:{os.getpid()}", f"pid:0{os.getpid()}"])


def test_names_are_unique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ["a/x.img", "b/x.img", "y.img", "y.raw", "y.img.old", ".hidden", "z", f"{os.path.relpath('/')}{tmp_path}/w"]
    for text in texts:
        Path(text).parent.mkdir(exist_ok=True)
        Path(text).write_bytes(bytes(PAGE))
    sources = open_sources(texts)
    assert [source.name for source in sources] == [
        "a/x.img",
        "b/x.img",
        "y.img",
        "y.raw",
        "y.img.old",
        ".hidden",
        "z",
        "w",
    ]
    assert [source.text for source in sources] == texts
    assert name_sources(texts) == [source.name for source in sources]
    for source in sources:
        source.close()
