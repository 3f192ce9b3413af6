"""The bytes of a file, read when they are asked for: a root file system has more files than may be open or mapped."""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pagedup.guests.images.error import ImageError


class OpenFile:
    """A file descriptor of its own for an open file, closed when the last one forgets this."""

    def __init__(self, fd: int) -> None:
        self.fd = os.dup(fd)
        weakref.finalize(self, os.close, self.fd)


@dataclass(frozen=True, slots=True)
class Content:
    """`size` bytes from `start` on, of the file at `path`, or of an open one.

    `name` is what an error calls it.
    """

    name: str
    size: int
    path: str = ""
    start: int = 0
    file: OpenFile | None = None

    @contextmanager
    def opened(self) -> Iterator[OpenContent]:
        """For reading, until the `with` block ends."""
        if self.file is not None:
            yield OpenContent(self, self.file.fd)
            return
        fd, _ = open_regular(self.path)
        try:
            yield OpenContent(self, fd)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class OpenContent:
    """Reads bytes of a content."""

    content: Content
    fd: int

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end of the content."""
        size = max(0, min(size, self.content.size - offset))
        data = bytearray(size)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, room: memoryview) -> None:
        """Fill `room` with the bytes from `offset` on. Raises ImageError if the file lost them meanwhile."""
        at, done = self.content.start + offset, 0
        while done < len(room):
            got = os.preadv(self.fd, [room[done:]], at + done)
            if got == 0:
                raise ImageError(f"{self.content.name}: the file shrank: nothing is left at offset {offset + done:#x}")
            done += got


def file_content(path: str, name: str) -> Content:
    """Of a regular file. Raises OSError for what is none, or cannot be opened."""
    fd, status = open_regular(path)
    os.close(fd)
    return Content(name, status.st_size, path)


def open_regular(path: str) -> tuple[int, os.stat_result]:
    """Open for reading, but never a pipe (which would wait for a writer) or a device (which may act on it)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory; load_tree() takes it", path)
        raise OSError(f"{path}: is not a regular file")
    return fd, status
