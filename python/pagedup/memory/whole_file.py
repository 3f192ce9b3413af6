"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


@contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` at the end of the block; if that fails, nothing has changed.

    A link stays one. OSError where `path` is something else than a regular file, such as a device.
    """
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path}: is not a regular file, so nothing is written")
    target = os.path.realpath(path)
    beside = os.path.join(os.path.dirname(target), f".pagedup-{secrets.token_hex(8)}.part")
    try:
        # Not by tempfile, whose files nobody else may read; this one is as the umask says.
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with open(fd, "wb") as file:
                yield file
            os.replace(beside, target)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        if error.errno is None or error.filename not in (None, beside):
            raise
        raise OSError(error.errno, error.strerror, path) from None  # the user knows of no other
