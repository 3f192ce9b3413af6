"""The regular files of a directory or of an image's file system, read once from end to end, page by page."""

from __future__ import annotations

import os
import stat
from abc import abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from pagedup.memory.closing import Closing

PAGE = 4096  # bytes; what the page cache holds of a file


@dataclass(frozen=True, slots=True)
class Piece:
    """Pages `first` up to but not including `first + pages` of a batch are of file number `file`."""

    file: int
    first: int
    pages: int


class FileTree(Closing):
    """Files in the order of their paths, which are relative to `root`, the text that the user gave.

    `paths` and `sizes` (bytes) have one item a file; of several names of one file only the first is listed.
    `unreadable` counts the files and directories that could not be read so far.
    """

    def __init__(self, root: str, files: list[tuple[str, int]], unreadable: int) -> None:
        self.root = root
        self.paths = [path for path, _ in files]
        self.sizes = [size for _, size in files]
        self.unreadable = unreadable

    def batches(self, buffer: memoryview) -> Iterator[list[Piece]]:
        """Fill the buffer, whole pages long, again and again until all files are read; what stands where each time.

        The last page of a file is filled up with zeros, as the page cache does; holes may be left out.
        """
        room = len(buffer) // PAGE
        used = 0
        pieces: list[Piece] = []
        with closing(self._stretches()) as stretches:
            for file, length in stretches:
                while length:
                    if used == room:
                        yield pieces
                        used, pieces = 0, []
                    first = used * PAGE
                    wanted = min(length, (room - used) * PAGE)
                    got = self._read(buffer[first : first + wanted])
                    pages = -(-got // PAGE)
                    buffer[first + got : first + pages * PAGE] = bytes(pages * PAGE - got)
                    if pages:
                        pieces.append(Piece(file, used, pages))
                    used += pages
                    length = length - got if got == wanted else 0
        if pieces:
            yield pieces

    @abstractmethod
    def _stretches(self) -> Generator[tuple[int, int]]:
        """The numbers of files, ascending, and how many bytes of each are to be read next; at whole pages of it."""

    @abstractmethod
    def _read(self, room: memoryview) -> int:
        """Fill `room` with the next bytes of the stretch; fewer if the file has no more or cannot be read on."""


def open_tree(path: str) -> FileTree:
    """The files under a directory, or in an image of an ext2, ext3 or ext4 file system; the caller closes it.

    Raises OSError for what cannot be read, and for an image of another kind; the message says what to do.
    """
    from pagedup.memory.files.ext_image import ExtImage  # it needs subprocess, which a directory does not

    return Directory(path) if stat.S_ISDIR(os.stat(path).st_mode) else ExtImage(path)


class Directory(FileTree):
    """The regular files under a directory that lie on its own file system. Symbolic links are not followed."""

    def __init__(self, root: str) -> None:
        self._fd = -1
        self._offset = 0
        super().__init__(root, *_walk(root))

    def _stretches(self) -> Generator[tuple[int, int]]:
        for file, path in enumerate(self.paths):
            try:
                # Never a pipe or a device that took the file's place: opening one may wait, or act on it.
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                self._fd = os.open(os.path.join(self.root, path), flags)
                try:
                    status = os.fstat(self._fd)
                    if stat.S_ISREG(status.st_mode):
                        for start, end in _stored(self._fd, status.st_size):
                            self._offset = start
                            yield file, end - start
                finally:
                    self.close()
            except OSError:
                self.unreadable += 1

    def _read(self, room: memoryview) -> int:
        got = 0
        while got < len(room):
            try:
                n = os.preadv(self._fd, [room[got:]], self._offset)
            except OSError:
                self.unreadable += 1
                break
            if n == 0:
                break  # it was cut meanwhile
            got += n
            self._offset += n
        return got

    def close(self) -> None:
        """Close the file that is being read."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _walk(root: str) -> tuple[list[tuple[str, int]], int]:
    """Path and size of each regular file, by path, and how much could not be read."""
    device = os.stat(root).st_dev
    found: list[tuple[str, int, tuple[int, int]]] = []
    unreadable = 0
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    path = os.path.join(folder, entry.name)
                    if stat.S_ISDIR(status.st_mode):
                        if status.st_dev == device:
                            folders.append(path)
                    elif stat.S_ISREG(status.st_mode) and status.st_size:
                        found.append((path, status.st_size, (status.st_dev, status.st_ino)))
        except OSError:
            if not folder:
                raise
            unreadable += 1
    found.sort()
    seen: set[tuple[int, int]] = set()
    files = []
    for path, size, identity in found:
        if identity not in seen:
            seen.add(identity)
            files.append((path, size))
    return files, unreadable


def _stored(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The stretches of a file that are not holes, moved outwards to whole pages."""
    end = 0
    while end < size:
        try:
            data = os.lseek(fd, end, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError:  # nothing but a hole is left, or this file system cannot tell and has none
            if end or not os.fstat(fd).st_blocks:
                return
            data, hole = 0, size
        start = max(data - data % PAGE, end)
        end = min(hole + -hole % PAGE, size)
        if start < end:
            yield start, end
