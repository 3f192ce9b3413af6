"""The files in an image of an ext2, ext3 or ext4 file system, read by e2fsprogs' debugfs: no mount, no root, no copy.

debugfs is handed its commands in a file and answers on one stream, where an echo of the command precedes each answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Generator, Iterator, Sequence

from pagedup.memory.files.filetree import PAGE, FileTree

_ROOT = 2  # the inode of the root directory, in every such file system
_MAGIC_AT, _MAGIC = 1024 + 56, b"\x53\xef"  # of the superblock (Documentation/filesystems/ext4/super.rst)
# What else an image may begin with: offset, bytes, name; as file(1) and libblkid tell them apart.
_OTHERS = (
    (0, b"QFI\xfb", "a QCOW2 image"),
    (512, b"EFI PART", "a partition table"),
    (0, b"XFSB", "an XFS file system"),
    (0x10040, b"_BHRfS_M", "a Btrfs file system"),
    (0, b"hsqs", "a SquashFS file system"),
    (510, b"\x55\xaa", "a partition table"),
)
_ENTRY = re.compile(rb"/(\d+)/(\d+)/-?\d+/-?\d+/([^/]+)/(\d*)/")  # inode, mode, owner, group, name, size
_PIPE = 1 << 20  # bytes that may wait in the pipe from debugfs


class ExtImage(FileTree):
    """The regular files of the file system in an image file. What is read is written nowhere."""

    def __init__(self, path: str) -> None:
        self._debugfs: subprocess.Popen[bytes] | None = None
        self._image = _open(path)
        try:
            self._program = _find_debugfs(path)
            files, unreadable = self._list(path)
        except BaseException:
            self.close()
            raise
        super().__init__(path, [(name, size) for name, size, _ in files], unreadable)
        self._inodes = [inode for _, _, inode in files]

    def close(self) -> None:
        """End debugfs, and close the image."""
        self._stop()
        if self._image >= 0:
            os.close(self._image)
            self._image = -1

    def _stretches(self) -> Generator[tuple[int, int]]:
        # debugfs tells of a file that it cannot read by less than the file's size: then the next echo is not where it
        # should be, and a new debugfs begins behind that file.
        following = 0
        try:
            while following < len(self._inodes):
                echoes = [_echo("cat", inode) for inode in [*self._inodes[following:], _ROOT]]
                self._start(echoes)
                if not self._comes(echoes[0]):
                    raise OSError(f"{self.root}: debugfs, which reads it, failed; mount it and give the directory")
                for echo in echoes[1:]:
                    yield following, self.sizes[following]
                    following += 1
                    if not self._comes(echo):
                        self.unreadable += 1
                        break
                self._stop()
        finally:
            self._stop()

    def _read(self, room: memoryview) -> int:
        assert self._debugfs is not None and self._debugfs.stdout is not None
        got = 0
        while got < len(room) and (n := os.readv(self._debugfs.stdout.fileno(), [room[got:]])):
            got += n
        return got

    def _comes(self, text: bytes) -> bool:
        """Whether the stream goes on with this, behind zeros at most."""
        found, skipped = b"", 0
        while len(found) < len(text) and skipped <= PAGE:
            more = bytearray(len(text) - len(found))
            got = self._read(memoryview(more))
            if not got:
                return False
            found += more[:got]
            # Of a file in its inode debugfs sends all the room there is, which ends in zeros.
            skipped += len(found) - len(found.lstrip(b"\0"))
            found = found.lstrip(b"\0")
        return found == text

    def _start(self, echoes: Sequence[bytes]) -> None:
        with self._commands(echoes) as command:
            self._debugfs = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                pass_fds=[int(path.rpartition("/")[2]) for path in command[2:]],
            )
        assert self._debugfs.stdout is not None
        with contextlib.suppress(OSError):  # it only saves turns
            fcntl.fcntl(self._debugfs.stdout, fcntl.F_SETPIPE_SZ, _PIPE)

    def _stop(self) -> None:
        if self._debugfs is not None:
            self._debugfs.kill()
            self._debugfs.__exit__(None, None, None)  # close the pipe, and wait
            self._debugfs = None

    @contextlib.contextmanager
    def _commands(self, echoes: Sequence[bytes]) -> Iterator[list[str]]:
        """The command line of a debugfs that does what will be echoed so."""
        fd = os.memfd_create("pagedup")
        try:
            with open(os.dup(fd), "wb") as file:
                file.writelines(echo.removeprefix(b"debugfs: ") for echo in echoes)
            # By number: debugfs takes what follows a question mark in a path for options.
            yield [self._program, "-f", f"/proc/self/fd/{fd}", f"/proc/self/fd/{self._image}"]
        finally:
            os.close(fd)

    def _list(self, path: str) -> tuple[list[tuple[str, int, int]], int]:
        """Path, size and inode of each regular file, by path, and how many cannot be read; directories by levels."""
        largest = os.fstat(self._image).st_size
        names = {_ROOT: ""}
        level = [_ROOT]
        files: dict[int, tuple[str, int]] = {}
        unreadable: set[int] = set()
        while level:
            below = []
            for folder, inode, mode, name, size in self._entries(path, level):
                full = os.path.join(names[folder], name)
                if stat.S_ISDIR(mode) and inode not in names:
                    names[inode] = full
                    below.append(inode)
                elif stat.S_ISREG(mode) and 0 < size <= largest:
                    files[inode] = min((full, size), files.get(inode, (full, size)))
                elif stat.S_ISREG(mode) and size:
                    unreadable.add(inode)  # nearly all hole: debugfs would send the zeros one by one
            level = below
        return sorted((name, size, inode) for inode, (name, size) in files.items()), len(unreadable)

    def _entries(self, path: str, folders: Sequence[int]) -> Iterator[tuple[int, int, int, str, int]]:
        """Of each entry of these directories: the directory, inode, mode, name and size."""
        echoes = {_echo("ls -p", folder): folder for folder in folders}
        with self._commands(list(echoes)) as command:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=[int(name.rpartition("/")[2]) for name in command[2:]],
            )
        folder = None
        for line in done.stdout.splitlines(keepends=True):
            if line in echoes:
                folder = echoes[line]
            elif folder is not None and (entry := _ENTRY.fullmatch(line.rstrip(b"\n"))):
                inode, mode, name, size = entry.groups()
                if name not in (b".", b".."):
                    yield folder, int(inode), int(mode, 8), os.fsdecode(name), int(size or 0)
        if b"/./" not in done.stdout:
            complaint = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise OSError(f"{path}: debugfs cannot read the file system in it: {complaint}")


def _echo(command: str, inode: int) -> bytes:
    return f"debugfs: {command} <{inode}>\n".encode()


def _open(path: str) -> int:
    """Open an image that holds such a file system. Raises OSError that says what to do with any other."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path}: is neither a directory nor a regular file; mount it and give the directory")
    image = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if os.pread(image, 2, _MAGIC_AT) == _MAGIC:
        return image
    what = next((name for at, magic, name in _OTHERS if os.pread(image, len(magic), at) == magic), "something else")
    os.close(image)
    raise OSError(
        f"{path}: holds {what}, and only ext2, ext3 and ext4 file systems can be read; mount it and give the directory"
    )


def _find_debugfs(path: str) -> str:
    program = shutil.which("debugfs") or shutil.which("debugfs", path="/usr/sbin:/sbin")
    if program is None:
        raise OSError(
            f"{path}: debugfs (of e2fsprogs), which reads images, is not installed; mount it and give the directory"
        )
    return program
