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

        pieces: uint64 (n, 2), address and bytes each, at most MOST_PIECES of them, as many bytes as `room` has. What is
        not there leaves its place in `room` as it was.
        """
        pieces = np.ascontiguousarray(pieces)
        got = self._read_pieces(pieces, room)
        if got == len(room):
            return _NONE
        pieces = pieces.copy()
        missing: list[int] = []
        done = 0
        while True:
            done += got
            pieces = _behind(pieces, got)
            if not len(pieces):
                return np.array(missing, np.uint64)
            # Not readable for the process itself (which its own mem file is), or gone, or the call is forbidden.
            address, size = pieces[0].tolist()
            missing += self._read_each(address, room[done : done + size])
            done += size
            pieces = pieces[1:]
            got = self._read_pieces(pieces, room[done:]) if len(pieces) else 0

    def _read_pieces(self, pieces: NDArray[np.uint64], room: Bytes) -> int:
        """Read as far as it goes; how many bytes of whole pages that is."""
        target = (ctypes.c_ulong * 2)(room.ctypes.data, len(room))
        got: int = self._readv(self._pid, ctypes.addressof(target), 1, pieces.ctypes.data, len(pieces), 0)
        return max(got, 0) // self._page * self._page

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


_NONE = np.empty(0, np.uint64)


def _behind(pieces: NDArray[np.uint64], n_bytes: int) -> NDArray[np.uint64]:
    """The pieces without their first bytes; what is left of one that is cut is the first."""
    ends = np.cumsum(pieces[:, 1])
    whole = int(np.searchsorted(ends, n_bytes, side="right"))
    if whole < len(pieces):
        into = n_bytes - (int(ends[whole - 1]) if whole else 0)
        pieces[whole] += np.array([into, -into], np.int64).astype(np.uint64)
    return pieces[whole:]
