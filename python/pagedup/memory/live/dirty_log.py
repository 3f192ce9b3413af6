"""Which pages of this process's memory were written: the kernel's own log."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from pagedup.memory.closing import Closing
from pagedup.memory.live.pagemap_scan import PRESENT, SWAPPED, WRITTEN, scan
from pagedup.memory.live.smaps import read_mappings
from pagedup.memory.live.userfaultfd import open_userfaultfd, register, unregister

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PAGE = mmap.PAGESIZE
_MAX_PAGES = (1 << 32) - 1


class DirtyLog(Closing):
    """Tells which pages of an array were written since it was asked last. Needs Linux 6.7, and no rights.

    Args:
        array: a contiguous NumPy array of any shape and dtype, on whole pages of private anonymous memory, such as
            `pagedup.allocate` gives. The log keeps it alive.

    Writes are seen whoever makes them: threads, and system calls that read into the array. Not seen are the writes
    of devices into pages that are pinned already, the writes of a child after os.fork to its copy, and
    madvise(MADV_DONTNEED), which lets pages read as zero: whoever discards pages knows which.

    The first write to a page since the last `take` takes a page fault. docs/frame-pool.md says what it all costs.

    The log ends with `close`, or when nobody holds it any more; then nothing of it is left on the memory.

    Raises:
        TypeError: not a NumPy array.
        ValueError: an array that is not contiguous, or does not begin or end with a page, or of more than
            2**32 - 1 pages; memory that is shared or of a file.
        OSError: the kernel is older, or forbids it, or the memory is watched already (EBUSY).
    """

    def __init__(self, array: NDArray[Any]) -> None:
        start, size = _whole_pages(array)
        _refuse_unsuitable(start, start + size)
        with contextlib.ExitStack() as undo:
            watch = open_userfaultfd()
            undo.callback(os.close, watch)
            pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, pagemap)
            try:
                register(watch, start, size)
            except OSError as error:
                busy = error.errno == errno.EBUSY
                why = "is watched already" if busy else f"cannot be watched: {error.strerror}"
                raise OSError(error.errno, f"the memory of array {why}") from None
            undo.pop_all()
        self._start, self._end = start, start + size
        self._pid = os.getpid()
        self._pagemap = pagemap
        self._lock = threading.Lock()
        self._close = weakref.finalize(self, _end, self._pid, watch, pagemap, array, start, size)

    def __repr__(self) -> str:
        state = "" if self._close.alive else ", closed"
        return f"<DirtyLog: {(self._end - self._start) // _PAGE:,} pages{state}>"

    def take(self) -> NDArray[np.uint32]:
        """Uint32 ndarray (n,), ascending: pages written since the last call, counted from the array's beginning.

        A page is as large as the system's, mmap.PAGESIZE. The first call tells every page that has memory. A page
        gets it when it is first written or read: one that was only read is told, too, but never again. Where the
        kernel gives a huge page, all pages in it have memory.

        Each page is looked at and protected again in one instant, so that a write while this runs is in this
        answer or in the next one. If it raises, what it had found is lost.

        Raises ValueError when the log is closed, RuntimeError in a child after os.fork (its memory needs a log of
        its own), and OSError when the memory is not watched any more.
        """
        if os.getpid() != self._pid:
            raise RuntimeError(f"the log is of process {self._pid}; a child needs one of its own")
        with self._lock:
            if not self._close.alive:
                raise ValueError("the log is closed")
            # A page without memory is not asked for, so it is not protected, and takes no room in page tables.
            runs = scan(
                self._pagemap,
                self._start,
                self._end,
                either=PRESENT | SWAPPED,
                every=WRITTEN,
                told=WRITTEN,
                protect=True,
            )
        return _numbers(runs, self._start)

    def close(self) -> None:
        """Stop watching. Closing twice does nothing."""
        if os.getpid() != self._pid:  # the lock may be held by a thread that is not here
            self._close()
            return
        with self._lock:
            self._close()


def _whole_pages(array: NDArray[Any]) -> tuple[int, int]:
    """Address and bytes of the array's memory."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"array is a {type(array).__name__}; it must be a NumPy array")
    if not array.flags.forc:
        raise ValueError("array is not contiguous; a log is of one piece of memory")
    start, size = array.ctypes.data, array.nbytes
    if start % _PAGE or size % _PAGE or not size:
        raise ValueError(
            f"array begins {start % _PAGE:,} bytes behind the beginning of a page and has {size:,} bytes; a log is"
            f" of whole pages of {_PAGE:,}, such as pagedup.allocate gives"
        )
    if size // _PAGE > _MAX_PAGES:
        raise ValueError(f"array has {size // _PAGE:,} pages; 2**32 - 1 are possible")
    return start, size


def _refuse_unsuitable(start: int, end: int) -> None:
    """Of shared memory the log would not see what others write, and of a file not what is written to that."""
    with open("/proc/self/maps", "rb") as file:
        mappings = read_mappings(file.read())
    for mapping in mappings:
        if mapping.start < end and mapping.end > start and not (mapping.private and mapping.anonymous):
            what = f"{'a file' if mapping.private else 'shared with others'} ({mapping.name})"
            raise ValueError(f"the memory of array is {what}; a log is of private anonymous memory")


def _numbers(runs: NDArray[np.uint64], start: int) -> NDArray[np.uint32]:
    first = (runs[:, 0] - np.uint64(start)) // np.uint64(_PAGE)
    counts = (runs[:, 1] - runs[:, 0]) // np.uint64(_PAGE)
    before = np.cumsum(counts) - counts
    numbers = np.arange(counts.sum(), dtype=np.uint32)
    numbers += np.repeat((first - before).astype(np.uint32), counts.astype(np.int64))
    return numbers


def _end(pid: int, watch: int, pagemap: int, array: NDArray[Any], start: int, size: int) -> None:
    """Takes the array, so that its memory is there until now."""
    if os.getpid() == pid:  # in a child the two files are still of its parent's memory
        with contextlib.suppress(OSError):  # somebody has unmapped it nevertheless
            unregister(watch, start, size)
    os.close(watch)
    os.close(pagemap)
