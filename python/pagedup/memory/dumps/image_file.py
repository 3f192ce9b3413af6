"""A regular file that holds memory: open, mapped, and watched for holes and for bytes that it loses."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from dedupcore import MappedFile

_GRAIN = 4096  # bytes; the ends of holes are moved to it, so that every frame is wholly hole or wholly data


class ImageFile:
    """A file that is mapped for reading.

    `path` is what the user gave, `size` its bytes, `identity` equal for two names of one file, and `content` a
    memoryview of all of it. Raises OSError when it cannot be opened or mapped, is empty, or is no regular file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._map: MappedFile | None = None
        self._views: list[memoryview] = []
        self._fd = _open_regular(path)
        try:
            status = os.fstat(self._fd)
            self.identity = (status.st_dev, status.st_ino)  # of what was opened, whatever the path means later
            self.size = status.st_size
            if self.size == 0:
                raise OSError(f"{path}: the file is empty")
            self._map = _map(self._fd, self.size, path)
            self.content = memoryview(self._map)
            self._views.append(self.content)
        except BaseException:
            self.close()
            raise

    def view(self, start: int, end: int) -> memoryview:
        """The bytes from `start` up to `end`; released when the file is closed."""
        view = self.content[start:end]
        self._views.append(view)
        return view

    def read(self, offset: int, size: int, what: str) -> bytes:
        """A copy of `size` bytes from `offset` on. Raises OSError that names them as `what` if the file ends before."""
        if offset > self.size or size > self.size - offset:
            raise OSError(
                f"{self.path}: {what} takes {size:,} bytes at offset {offset:#x}, but the file ends at {self.size:#x}"
                f" ({offset + size - self.size:,} bytes are missing; truncated?)"
            )
        return bytes(self.content[offset : offset + size])

    def stretches(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Cut the bytes from `start` up to `end` into stretches (start, end, stored), ascending and without a gap.

        What is not stored is zero: the holes of a sparse file. Stretches but the last end at `start` plus a multiple of
        4096 bytes.
        """
        done = start
        while done < end:
            data, hole = _next_data(self._fd, done, start, end)
            if data > done:
                yield done, data, False
            if hole > data:
                yield data, hole, True
            done = hole

    def check(self) -> None:
        """Raise OSError when the file shrank since it was opened."""
        # Both questions are needed: a page may be lost and the file grow again, or be cut where nothing was read.
        now = os.fstat(self._fd).st_size
        if now < self.size:
            raise OSError(f"{self.path}: the file shrank from {self.size:,} to {now:,} bytes while it was read")
        if self._map is not None and self._map.shrank:
            raise OSError(
                f"{self.path}: the file shrank, or could not be read, below {self.size:,} bytes"
                f" (it has {now:,} bytes now)"
            )

    def close(self) -> None:
        """Close the file and its mapping; closing twice does nothing."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        # The mapping ends here, or, if somebody still holds a buffer of it, when they let go.
        with contextlib.suppress(BufferError):
            for view in reversed(self._views):
                view.release()
        self._views = []
        if self._map is not None:
            with contextlib.suppress(BufferError):
                self._map.close()
            self._map = None


def _open_regular(path: str) -> int:
    """Open `path` for reading, but never a pipe (which would wait for a writer) or a device (which may act on it)."""
    _refuse_irregular(path, os.stat(path).st_mode)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _refuse_irregular(path, os.fstat(fd).st_mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_irregular(path: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory; give the image files in it", path)
    if not stat.S_ISREG(mode):
        what = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}.get(stat.S_IFMT(mode), "a device")
        raise OSError(f"{path}: is {what}, not a regular file; copy its contents to a file first")


def _map(fd: int, size: int, path: str) -> MappedFile:
    try:
        return MappedFile(fd, size)
    except OSError as error:
        raise OSError(error.errno, f"cannot be mapped: {error.strerror}", path) from None


def _next_data(fd: int, offset: int, base: int, limit: int) -> tuple[int, int]:
    """The next stored stretch from `offset` on, its ends moved outwards to whole grains, which are counted from `base`.

    (limit, limit) if none is left. Stored stretches that meet once rounded are returned as one.
    """
    start = end = limit
    probe = offset
    while probe < limit:
        data = _seek(fd, probe, os.SEEK_DATA, limit)
        first = data - (data - base) % _GRAIN
        if data >= limit or (start < limit and first > end):
            break
        start = min(start, first)
        hole = _seek(fd, data, os.SEEK_HOLE, limit)
        probe = end = min(hole + (base - hole) % _GRAIN, limit)
    return start, end


def _seek(fd: int, offset: int, whence: int, limit: int) -> int:
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing more up to the end; or the file was cut meanwhile, and check() tells
            return limit
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # this file system cannot tell: all of it is data
            return offset if whence == os.SEEK_DATA else limit
        raise
