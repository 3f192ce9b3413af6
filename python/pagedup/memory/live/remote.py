"""Reading another process's memory: large pieces by process_vm_readv, and by /proc/N/mem what that cannot read."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

MOST_PIECES = 1024
"""Pieces that one call can read: IOV_MAX of limits.h."""


class RemoteMemory:
    """The memory of one process. `fd` is its open /proc/N/mem, which stays with this memory; the number may not.

    May be used by several threads at once.
    """

    def __init__(self, pid: int, fd: int) -> None:
        self._pid = pid
        self._fd = fd
        self._page = os.sysconf("SC_PAGE_SIZE")
        readv = ctypes.CDLL(None, use_errno=True).process_vm_readv
        readv.restype = ctypes.c_ssize_t
        pointer, number = ctypes.c_void_p, ctypes.c_ulong
        readv.argtypes = (ctypes.c_int, pointer, number, pointer, number, number)
        self._readv = readv

    def read(self, pieces: NDArray[np.uint64], room: Bytes) -> NDArray[np.uint64]:
        """Read whole pages into `room`, one piece behind the other; the addresses of the pages that are not there.

        pieces: uint64 (n, 2), address and bytes each, at most MOST_PIECES of them. What is not there leaves its place
        in `room` as it was.
        """
        pieces = np.ascontiguousarray(pieces, np.uint64).copy()
        missing = []
        done = 0
        while len(pieces):
            done, left = self._read_pieces(pieces, room, done)
            pieces = pieces[left:]
            if len(pieces):
                # Not readable for the process itself (which its own mem file is), or gone, or the call is forbidden.
                address, size = pieces[0].tolist()
                missing += self._read_each(address, room[done : done + size])
                done += size
                pieces = pieces[1:]
        return np.array(missing, np.uint64)

    def _read_pieces(self, pieces: NDArray[np.uint64], room: Bytes, at: int) -> tuple[int, int]:
        """Read into room[at:] as far as it goes; where it stopped, and how many pieces are done.

        The piece in which it stopped keeps only what is left of it.
        """
        target = np.array([[room.ctypes.data + at, int(pieces[:, 1].sum())]], np.uint64)
        got = self._readv(self._pid, target.ctypes.data, 1, pieces.ctypes.data, len(pieces), 0)
        got = max(got, 0)
        ends = np.cumsum(pieces[:, 1])
        left = int(np.searchsorted(ends, got, side="right"))
        if left < len(pieces):
            into = got - (int(ends[left - 1]) if left else 0)
            into -= into % self._page
            got = (int(ends[left - 1]) if left else 0) + into
            pieces[left] += np.array([into, -into], np.int64).astype(np.uint64)
        return at + got, left

    def _read_each(self, address: int, room: Bytes) -> list[int]:
        """Read one piece through the mem file; the addresses of the pages that are not there."""
        missing = []
        done = 0
        while done < len(room):
            try:
                got = os.preadv(self._fd, [room.data[done:]], address + done)
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EFAULT):
                    raise
                got = 0
            done += got - got % self._page
            if got < self._page:
                missing.append(address + done)
                done += self._page
        return missing
