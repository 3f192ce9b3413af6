"""A raw memory image: a file whose byte n is the guest's byte n."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from dedupcore import MappedFile
from pagedup.memory.extent import Extent, ZeroExtent
from pagedup.memory.source import Source

_GRAIN = 4096  # bytes; the ends of holes are moved to it, so that every frame is wholly hole or wholly data


class RawSource(Source):
    """A mapped image file. What a sparse file does not store is known to be zero and is not read."""

    kind = "raw"

    def __init__(self, name: str, path: str, frame_size: int) -> None:
        self._map: MappedFile | None = None
        self._views: list[memoryview] = []
        self._fd = _open_regular(path)
        try:
            status = os.fstat(self._fd)
            self.identity = (status.st_dev, status.st_ino)  # of what was opened, whatever the path means later
            size = status.st_size
            if size == 0:
                raise OSError(f"{path}: the file is empty")
            if size % frame_size:
                raise OSError(
                    f"{path}: {size:,} bytes is no multiple of {frame_size:,}: {size % frame_size:,} bytes too many"
                    " (not a raw memory image, or truncated?)"
                )
            super().__init__(name, path, size)
            self._map = _map(self._fd, size, path)
            whole = memoryview(self._map)
            self._views.append(whole)
            for start, end, stored in _stretches(self._fd, size):
                if stored:
                    view = whole[start:end]
                    self._views.append(view)
                    self.extents.append(Extent(start, view))
                else:
                    self.extents.append(ZeroExtent(start, end - start))
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Raise OSError when the file shrank since it was opened."""
        # Both questions are needed: a page may be lost and the file grow again, or be cut where nothing was read.
        now = os.fstat(self._fd).st_size
        if now < self.size:
            raise OSError(f"{self.text}: the file shrank from {self.size:,} to {now:,} bytes while it was read")
        if self._map is not None and self._map.shrank:
            raise OSError(
                f"{self.text}: the file shrank, or could not be read, below {self.size:,} bytes"
                f" (it has {now:,} bytes now)"
            )

    def close(self) -> None:
        """Close the file and its mapping."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        self.extents = []
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


def _stretches(fd: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """Cut the file into stretches (start, end, stored), ascending and without a gap."""
    done = 0
    while done < size:
        start, end = _next_data(fd, done, size)
        if start > done:
            yield done, start, False
        if end > start:
            yield start, end, True
        done = end


def _next_data(fd: int, offset: int, size: int) -> tuple[int, int]:
    """The next stored stretch from `offset` on, its ends moved outwards to whole frames; (size, size) if none is left.

    Stored stretches that meet once rounded are returned as one.
    """
    start = end = size
    probe = offset
    while probe < size:
        data = _seek(fd, probe, os.SEEK_DATA, size)
        first = data - data % _GRAIN
        if data >= size or (start < size and first > end):
            break
        start = min(start, first)
        hole = _seek(fd, data, os.SEEK_HOLE, size)
        probe = end = min(hole + -hole % _GRAIN, size)
    return start, end


def _seek(fd: int, offset: int, whence: int, size: int) -> int:
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing more up to the end; or the file was cut meanwhile, and check() tells
            return size
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # this file system cannot tell: all of it is data
            return offset if whence == os.SEEK_DATA else size
        raise
