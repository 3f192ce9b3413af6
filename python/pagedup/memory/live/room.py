"""Room for the copies of live memory: how much there is, and where to take it."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pagedup.memory.live.remote import Bytes

_FIELD = re.compile(r"^(\w+):? +(\d+)", re.MULTILINE)


def available_memory() -> int:
    """Bytes that may be used without swapping: of the machine, or of our control group where that has less."""
    meminfo = dict(_FIELD.findall(Path("/proc/meminfo").read_text()))
    return min([int(meminfo["MemAvailable"]) * 1024, *_group_limits()])


def allocate(size: int, spool: str | None) -> Bytes:
    """A buffer of `size` bytes: anonymous memory, or a file without a name in the folder `spool`, for us alone.

    Raises OSError when there is no room.
    """
    if not size:
        return np.empty(0, np.uint8)
    if spool is not None:
        return np.frombuffer(_allocate_file(size, spool), np.uint8)
    try:
        buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise OSError(error.errno, f"no room to copy {size:,} bytes of live memory: {error.strerror}") from None
    with contextlib.suppress(AttributeError, OSError):  # only saves page faults
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(buffer, np.uint8)


def _allocate_file(size: int, folder: str) -> mmap.mmap:
    import tempfile  # only here, as few scans need it

    try:
        with tempfile.TemporaryFile(dir=folder, prefix="pagedup-", buffering=0) as file:  # 0600, and without a name
            os.posix_fallocate(file.fileno(), 0, size)  # so that a full disk is told here, and not by a SIGBUS
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        why = error.strerror
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = os.statvfs(folder)
            why = f"has {free.f_bavail * free.f_frsize:,} bytes free, and {size:,} are needed"
        raise OSError(error.errno, why, folder) from None


def _group_limits() -> list[int]:
    """What each control group above us leaves of its limit, page cache that can go at once counted as free.

    Version 2 only (Linux's admin-guide/cgroup-v2.rst).
    """
    left = []
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        path = next(line for line in lines if line.startswith("0::")).removeprefix("0::")
        root = Path("/sys/fs/cgroup")
        group = root / path.lstrip("/")
        for folder in (group, *group.parents[: len(group.parts) - len(root.parts)]):
            with contextlib.suppress(OSError, ValueError, KeyError):  # no limit here
                limit = int((folder / "memory.max").read_text())
                used = int((folder / "memory.current").read_text())
                cache = int(dict(_FIELD.findall((folder / "memory.stat").read_text()))["inactive_file"])
                left.append(max(0, limit - used + cache))
    return left
