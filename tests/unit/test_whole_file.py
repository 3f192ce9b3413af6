"""Files that are written whole, or not at all."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pagedup.memory.whole_file import whole_file

NOBODY = 65534


def write(path: Path, content: bytes) -> None:
    with whole_file(str(path)) as file:
        file.write(content)


def test_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"first", b"other", b""):
        write(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_nothing_stands_there_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with whole_file(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("before", [None, b"old"])
def test_nothing_changes_when_it_fails(tmp_path: Path, error: type[BaseException], before: bytes | None) -> None:
    path = tmp_path / "a"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(error), whole_file(str(path)) as file:
        file.write(b"half")
        raise error
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_mode_is_as_the_umask_says(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_one(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    if exists:
        (folder / "a").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/a")
    write(tmp_path / "link", b"new")
    assert os.readlink(tmp_path / "link") == "there/a"
    assert [(entry.name, entry.read_bytes()) for entry in folder.iterdir()] == [("a", b"new")]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(OSError, match=f"{path}: is not a regular file"):
            write(path, b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    for path, code in (
        (tmp_path / "missing" / "a", errno.ENOENT),
        (tmp_path / ("a" * 300), errno.ENAMETOOLONG),
    ):
        with pytest.raises(OSError) as caught:
            write(path, b"x")
        assert (caught.value.errno, caught.value.filename) == (code, str(path))
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_block_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in words"), whole_file(str(tmp_path / "a")):
        raise OSError("in words")
    with pytest.raises(FileNotFoundError) as caught, whole_file(str(tmp_path / "a")):
        Path("/missing").read_bytes()
    assert caught.value.filename == "/missing"
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, signal, sys
from pagedup.memory.whole_file import whole_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    with whole_file(sys.argv[1]) as file:
        for _ in range(1 << 10):
            file.write(bytes(1 << 10))
except OSError as error:
    print(error.errno, error.filename)
"""


def test_no_room(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-P", "-c", FULL, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == (f"{errno.EFBIG} {path}\n", "")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a", b"old")]


DENIED = f"""
import os, sys
from pagedup.memory.whole_file import whole_file
if os.getuid() == 0:
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
try:
    with whole_file(sys.argv[1]) as file:
        pass
except PermissionError as error:
    print(error.filename)
"""


def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        os.chmod(folder, 0o555)
        path = f"{folder}/a"
        done = subprocess.run(
            [sys.executable, "-P", "-c", DENIED, path], capture_output=True, text=True, timeout=60, check=False
        )
        os.chmod(folder, 0o755)
        assert (done.stdout, done.stderr) == (f"{path}\n", "")
        assert os.listdir(folder) == []
