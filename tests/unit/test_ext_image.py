"""Images of file systems, made by mkfs and read without mounting them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagedup.memory.files.filetree import open_tree

pytestmark = pytest.mark.e2fsprogs
PAGE = 4096
SIZE = 16 << 20


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    assert found
    return found


def image(path: Path, folder: Path, *options: str) -> Path:
    """A file system that holds what is in the folder."""
    with open(path, "wb") as file:
        file.truncate(SIZE)
    subprocess.run([tool("mkfs.ext4"), "-q", "-F", *options, "-d", folder, path], check=True)
    return path


def change(path: Path, *commands: str) -> None:
    for command in commands:
        subprocess.run([tool("debugfs"), "-w", "-R", command, path], check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a/b c/d").mkdir(parents=True)
    for name in ("a/two", "a/b c/three", "a/b c/d/four", 'quote"d', "debugfs: cat <12>", "ünï", "-n", "<2>", "zz"):
        (root / name).write_bytes(os.urandom(3 * PAGE + 17))
    (root / os.fsdecode(b"raw\xff")).write_bytes(b"r" * 10)
    (root / "echo").write_bytes(b"debugfs: cat <13>\n" * 1000)
    (root / "large").write_bytes(os.urandom(600 * 1024))
    (root / "empty").touch()
    (root / "link").symlink_to("a/two")
    os.link(root / "zz", root / "a/b c/also zz")
    os.link(root / "a/b c/d/four", root / "Another name of four")
    with open(root / "holes", "wb") as file:
        file.seek(5 * PAGE)
        file.write(b"h")
    return root


def contents(path: Path, pages: int = 64) -> tuple[dict[str, bytes], int]:
    """Of each file in the image the bytes, filled up to whole pages; and how many could not be read."""
    buffer = memoryview(bytearray(pages * PAGE))
    with open_tree(str(path)) as tree:
        found = dict.fromkeys(tree.paths, b"")
        for pieces in tree.batches(buffer):
            for piece in pieces:
                found[tree.paths[piece.file]] += buffer[piece.first * PAGE : (piece.first + piece.pages) * PAGE]
        assert list(found) == sorted(found)
        return found, tree.unreadable


def expected(folder: Path) -> dict[str, bytes]:
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size and path.name not in ("zz", "four")
    }
    return {name: data + bytes(-len(data) % PAGE) for name, data in files.items()}


@pytest.mark.parametrize(
    "options", [("-b", "4096"), ("-b", "1024"), ("-t", "ext2"), ("-t", "ext3"), ("-O", "inline_data")]
)
@pytest.mark.parametrize("pages", [1, 64])
def test_all_files(options: tuple[str, ...], pages: int, folder: Path, tmp_path: Path) -> None:
    assert contents(image(tmp_path / "disk.img", folder, *options), pages) == (expected(folder), 0)


def test_a_path_with_a_question_mark(folder: Path, tmp_path: Path) -> None:
    assert contents(image(tmp_path / "disk?offset=512", folder)) == (expected(folder), 0)


def test_a_name_with_a_line_break_is_left_out(folder: Path, tmp_path: Path) -> None:
    wanted = expected(folder)
    (folder / "a/line\nbreak").write_bytes(b"x")
    assert contents(image(tmp_path / "disk.img", folder))[0] == wanted


def test_a_file_that_cannot_be_read_is_counted_and_the_others_are_read(folder: Path, tmp_path: Path) -> None:
    disk = image(tmp_path / "disk.img", folder, "-O", "^metadata_csum")
    wanted = expected(folder)
    for name in ("/a/two", "/zz", "/large"):  # no extent tree begins so
        change(disk, f"sif {name} block[0] 0xffff0000")
    found, unreadable = contents(disk)
    assert unreadable == 3
    for name in ("a/two", "a/b c/also zz", "large"):
        del wanted[name]
        del found[name]
    assert found == wanted


def test_a_size_beyond_the_image_is_not_read(folder: Path, tmp_path: Path) -> None:
    disk = image(tmp_path / "disk.img", folder)
    change(disk, "sif /a/two size 0x7fffffffffff", f"sif /large size {SIZE}")
    found, unreadable = contents(disk)
    assert unreadable == 1 and "a/two" not in found
    assert len(found["large"]) == SIZE


def test_a_directory_that_holds_itself(folder: Path, tmp_path: Path) -> None:
    disk = image(tmp_path / "disk.img", folder)
    change(disk, "link /a a/again", "link / a/root")
    assert contents(disk) == (expected(folder), 0)


def test_a_dead_debugfs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = image(tmp_path / "disk.img", folder)
    with open_tree(str(disk)) as tree:
        monkeypatch.setattr(tree, "_program", "/bin/true")
        with pytest.raises(OSError, match=r"disk\.img: debugfs, which reads it, failed; mount it"):
            list(tree.batches(memoryview(bytearray(PAGE))))


def test_stopping_midway(folder: Path, tmp_path: Path) -> None:
    with open_tree(str(image(tmp_path / "disk.img", folder))) as tree:
        batches = tree.batches(memoryview(bytearray(PAGE)))
        next(batches)
        next(batches)


@pytest.mark.parametrize(
    ("at", "magic", "what"),
    [
        (0, b"QFI\xfb", "a QCOW2 image"),
        (512, b"EFI PART", "a partition table"),
        (510, b"\x55\xaa", "a partition table"),
        (0, b"XFSB", "an XFS file system"),
        (0x10040, b"_BHRfS_M", "a Btrfs file system"),
        (0, b"hsqs", "a SquashFS file system"),
        (0, b"", "something else"),
    ],
)
@pytest.mark.parametrize("size", [0, 1 << 20])
def test_other_images(at: int, magic: bytes, what: str, size: int, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(at) + magic + bytes(max(0, size - at - len(magic))))
    with pytest.raises(
        OSError, match=rf"disk\.img: holds {what}, and only ext2, ext3 and ext4 .*; mount it and give the"
    ):
        open_tree(str(disk))


def test_what_only_begins_like_one(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1024 + 56) + b"\x53\xef" + bytes(8192))
    with pytest.raises(OSError, match=r"disk\.img: debugfs cannot read the file system in it: ") as error:
        open_tree(str(disk))
    assert "\n" not in str(error.value)


def test_neither_file_nor_directory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"pipe: is neither a directory nor a regular file"):
        open_tree(str(tmp_path / "pipe"))
    with pytest.raises(FileNotFoundError):
        open_tree(str(tmp_path / "gone"))


def test_without_debugfs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = image(tmp_path / "disk.img", folder)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(
        OSError, match=r"disk\.img: debugfs \(of e2fsprogs\), which reads images, is not installed; mount"
    ):
        open_tree(str(disk))


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """No open file, no process, no temporary file."""
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text().strip()
