"""Swap on disk."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

import dedupcore
from pagedup.memory.batch import as_bytes
from pagedup.swap.errors import SwapCorrupt, SwapUnreadable
from pagedup.swap.private_file import ALIGNMENT, PrivateFile
from pagedup.swap.swap_space import SwapSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_FRAME = 1 << 30


class SwapFile(SwapSpace):
    """Pages on disk, in a file that has no name and that only its owner may open; gone when it is closed.

    Args:
        slots: for so many pages, 1 to 2**31 - 2.
        frame_size: bytes of a page, a power of two from 8 to 2**30.
        directory: on which file system; None: $TMPDIR, or else /var/tmp, as /tmp is memory on many systems.

    What `put` says is stored, is on the disk: pages of at least 4096 bytes go past the page cache (O_DIRECT) where the
    file system can do that, and else `put` waits for the disk (fdatasync). So a full disk, a quota, a limit of the file
    size or a failing disk is told when the page is still in memory, and never first when it is asked back. The file
    grows as slots are used, the lowest first, and keeps its size; nothing is reserved.

    `get` checks every page against a hash of 64 bits that stays in memory, under a secret key (NH, as find_duplicates
    uses, several times as fast as CRC-32): a page of up to 4096 bytes that was altered, by chance or by whoever can
    write to the disk, passes with a probability of 2**-64. One that differs is read again before it is called corrupt.

    Takes 9 bytes a slot in memory, 8 of them only for slots that were used, and 1 MiB, or one page if that is more.

    Raises OSError when no file can be made there, and ValueError for numbers out of range.
    """

    def __init__(self, slots: int, frame_size: int = 4096, *, directory: str | os.PathLike[str] | None = None) -> None:
        if not 8 <= frame_size <= _MAX_FRAME or frame_size & (frame_size - 1):
            raise ValueError(f"frame_size is {frame_size:,}; it must be a power of two from 8 to {_MAX_FRAME:,}")
        super().__init__(slots, frame_size)
        self._file = PrivateFile(directory, direct=frame_size % ALIGNMENT == 0)
        self._owner = os.getpid()
        self._seed = secrets.randbits(64)
        self._sums = np.zeros(self.slots, np.uint64)
        self._room = mmap.mmap(-1, self._most * frame_size)  # on whole pages of memory, as O_DIRECT wants it
        self._staged = np.frombuffer(self._room, np.uint8).reshape(self._most, frame_size)

    @property
    def direct(self) -> bool:
        """Whether pages go past the page cache."""
        return self._file.direct

    def fileno(self) -> int:
        """The file descriptor."""
        return self._file.fileno()

    def _give_back(self) -> None:
        self._file.close()

    def _store(self, slots: NDArray[np.uint32], frames: NDArray[Any]) -> tuple[int, OSError | None]:
        if os.getpid() != self._owner:
            raise RuntimeError(
                f"this swap file is of process {self._owner}, of which this one is a fork; make another one here"
            )
        pages = frames.view(np.uint8).reshape(len(slots), self.frame_size)
        stored, error = 0, None
        for begin in range(0, len(slots), self._most):
            part = slice(begin, begin + self._most)
            done, error = self._write_some(slots[part], pages[part])
            stored += done
            if error is not None:
                break
        try:
            self._file.settle()
        except OSError as failed:  # which of them the disk did not take, nobody knows
            return 0, failed
        return stored, error

    def _write_some(self, slots: NDArray[np.uint32], pages: NDArray[np.uint8]) -> tuple[int, OSError | None]:
        self._staged[: len(slots)] = pages
        self._sums[slots] = self._hashes(len(slots))
        for begin, end in itertools.pairwise(self._runs(slots).tolist()):
            self._transfers[0] += 1
            written, error = self._file.write(self._bytes_of(begin, end), int(slots[begin]) * self.frame_size)
            self._bytes[0] += written
            if error is not None:
                return begin + written // self.frame_size, error
        return len(slots), None

    def _load(self, slots: NDArray[np.uint32], out: NDArray[Any]) -> None:
        pages = out.view(np.uint8).reshape(len(slots), self.frame_size)
        order = np.argsort(slots, kind="stable")
        bad: dict[int, OSError | None] = {}  # None: it was read, but is corrupt
        for begin in range(0, len(slots), self._most):
            part = order[begin : begin + self._most]
            self._read_some(slots[part], bad)
            pages[part] = self._staged[: len(part)]
        unreadable = [error for error in bad.values() if error is not None]
        if unreadable:
            raise SwapUnreadable(sorted(bad), unreadable[0])
        if bad:
            raise SwapCorrupt(sorted(bad))

    def _read_some(self, slots: NDArray[np.uint32], bad: dict[int, OSError | None]) -> None:
        """Slots, ascending, to the staged pages; those that are bad become zero."""
        for begin, end in itertools.pairwise(self._runs(slots).tolist()):
            with contextlib.suppress(OSError):  # what was not read differs
                self._read_run(int(slots[begin]), begin, end)
        wrong: dict[int, OSError | None] = {}
        for i in np.flatnonzero(self._hashes(len(slots)) != self._sums[slots]).tolist():
            wrong[i] = None
            try:  # once more, alone
                self._read_run(int(slots[i]), i, i + 1)
            except OSError as error:
                wrong[i] = error
        if wrong:
            kept = self._hashes(len(slots)) == self._sums[slots]
            for i, why in wrong.items():
                if why is not None or not kept[i]:
                    self._staged[i] = 0
                    bad[int(slots[i])] = why

    def _read_run(self, slot: int, begin: int, end: int) -> None:
        """Neighbouring slots, from this one on, to the staged pages from `begin` to `end`."""
        into = self._bytes_of(begin, end)
        self._transfers[1] += 1
        read = self._file.read(into, slot * self.frame_size)
        self._bytes[1] += read
        into[read:] = bytes(len(into) - read)  # somebody cut the file short

    def _bytes_of(self, begin: int, end: int) -> memoryview:
        return as_bytes(self._staged[begin:end]).data

    def _hashes(self, n: int) -> NDArray[np.uint64]:
        """Of the first staged pages."""
        sums = np.empty(n, np.uint64)
        dedupcore.hash_frames(as_bytes(self._staged[:n]), self.frame_size, sums, self._seed)
        return sums
