"""A file that only this process can reach: without a name, readable and writable by its owner alone."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile

ALIGNMENT = 4096
"""Bytes: where O_DIRECT is used, addresses in memory and in the file are multiples of it, and so are sizes."""

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)  # file systems, and kernels, that have no O_TMPFILE


class PrivateFile:
    """A temporary file on disk. `direct`: past the page cache, which would keep in memory what just went out of it.

    A call to the kernel that is interrupted is repeated (PEP 475), and so is the rest of one that was cut short. Where
    O_DIRECT turns out not to work, it is given up for good.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, *, direct: bool) -> None:
        self._fd = _open(os.fspath(directory) if directory is not None else os.environ.get("TMPDIR") or "/var/tmp")
        self.direct = direct and self._set_direct(True)

    def fileno(self) -> int:
        """The file descriptor, while it is open."""
        return self._fd

    def write(self, data: memoryview, offset: int) -> tuple[int, OSError | None]:
        """Write bytes: how many of the first are written, and why not all."""
        done = 0
        while done < len(data):
            try:
                n = os.pwrite(self._fd, data[done:], offset + done)
            except OSError as error:
                if not self._give_up_direct(error):
                    return done, error
                continue
            if n == 0:
                return done, OSError(errno.EIO, "nothing was written")
            done += n
            self._mind_alignment(done)
        return done, None

    def read(self, into: memoryview, offset: int) -> int:
        """Read bytes, and return how many: less than asked for only at the end of the file. Raises OSError."""
        done = 0
        while done < len(into):
            try:
                n = os.preadv(self._fd, [into[done:]], offset + done)
            except OSError as error:
                if not self._give_up_direct(error):
                    raise
                continue
            if n == 0:
                break
            done += n
            self._mind_alignment(done)
        return done

    def settle(self) -> None:
        """Return when the disk has what was written; what goes wrong is told now and not when it is read."""
        if not self.direct:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """The space becomes free. Closing twice does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            self.close()

    def _set_direct(self, on: bool) -> bool:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
        except OSError:  # a file system without it
            return False
        return on

    def _give_up_direct(self, error: OSError) -> bool:
        """Whether that may help: devices with larger blocks refuse what is aligned to smaller ones."""
        if error.errno != errno.EINVAL or not self.direct:
            return False
        self.direct = self._set_direct(False)
        return True

    def _mind_alignment(self, done: int) -> None:
        if self.direct and done % ALIGNMENT:  # the rest of it cannot go the same way
            self.direct = self._set_direct(False)


def _open(directory: str) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    fd, path = tempfile.mkstemp(prefix="pagedup-swap-", dir=directory)  # 0600
    os.unlink(path)
    return fd
