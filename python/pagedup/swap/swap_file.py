"""Swap on disk."""

from __future__ import annotations

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
        edges = self._runs(slots).tolist()
        stored, error = 0, None
        for begin, end in itertools.pairwise(edges):
            done, error = self._write_run(int(slots[begin]), pages[begin:end])
            stored += done
            if error is not None:
                break
        try:
            self._file.settle()
        except OSError as failed:  # which of them the disk did not take, nobody knows
            return 0, failed
        return stored, error

    def _write_run(self, slot: int, pages: NDArray[np.uint8]) -> tuple[int, OSError | None]:
        staged = self._staged[: len(pages)]
        staged[:] = pages
        dedupcore.hash_frames(as_bytes(staged), self.frame_size, self._sums[slot : slot + len(pages)], self._seed)
        written, error = self._file.write(as_bytes(staged).data, slot * self.frame_size)
        self._transfers[0] += 1
        self._bytes[0] += written
        return written // self.frame_size, error

    def _load(self, slots: NDArray[np.uint32], out: NDArray[Any]) -> None:
        pages = out.view(np.uint8).reshape(len(slots), self.frame_size)
        order = np.argsort(slots, kind="stable")
        ascending = slots[order]
        edges = self._runs(ascending).tolist()
        corrupt: list[int] = []
        unreadable: list[int] = []
        why: OSError | None = None
        for begin, end in itertools.pairwise(edges):
            slot = int(ascending[begin])
            try:
                self._read_run(slot, end - begin, corrupt)
            except OSError:
                for i in range(end - begin):  # which of them is it?
                    try:
                        self._read_run(slot + i, 1, corrupt, at=i)
                    except OSError as error:
                        self._staged[i] = 0
                        unreadable.append(slot + i)
                        why = error
            pages[order[begin:end]] = self._staged[: end - begin]
        if why is not None:
            raise SwapUnreadable(sorted({*unreadable, *corrupt}), why)
        if corrupt:
            raise SwapCorrupt(sorted(set(corrupt)))

    def _read_run(self, slot: int, n: int, corrupt: list[int], *, at: int = 0) -> None:
        """Neighbouring slots to the staged pages from `at` on; those that were changed become zero, and are noted."""
        for i in self._read_and_check(slot, n, at):
            if self._read_and_check(slot + i, 1, at + i):
                self._staged[at + i] = 0
                corrupt.append(slot + i)

    def _read_and_check(self, slot: int, n: int, at: int) -> list[int]:
        """Read neighbouring slots; which of them are not what was stored."""
        staged = self._staged[at : at + n]
        into = as_bytes(staged).data
        self._transfers[1] += 1
        read = self._file.read(into, slot * self.frame_size)
        self._bytes[1] += read
        into[read:] = bytes(len(into) - read)  # somebody cut the file short
        sums = np.empty(n, np.uint64)
        dedupcore.hash_frames(as_bytes(staged), self.frame_size, sums, self._seed)
        return np.flatnonzero(sums != self._sums[slot : slot + n]).tolist()
