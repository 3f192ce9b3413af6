"""A live process: the pages that it alone holds in memory, copied once."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable

from pagedup.memory.extent import Extent
from pagedup.memory.pagemap import Pagemap
from pagedup.memory.source import Progress, Source

# Lent by the kernel to every process; not the process's memory, and reading some of it fails.
_KERNEL_MAPPINGS = frozenset({b"[vvar]", b"[vvar_vclock]", b"[vdso]", b"[vsyscall]"})
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD in the flags of /proc/N/stat
_STEP = 64 << 20  # bytes read at once, so that progress moves


class ProcessSource(Source):
    """The present, private, anonymous pages of one process, at their virtual addresses.

    Nothing is written, and nothing is faulted in but pages that go away between looking and copying. The process runs
    on meanwhile: the copy is not of one instant.
    """

    kind = "process"

    def __init__(self, name: str, text: str, pid: int, progress: Progress | None = None) -> None:
        self._buffer: mmap.mmap | None = None
        self._views: list[memoryview] = []
        super().__init__(name, text, 0)
        try:
            self._copy(pid, progress)
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Nothing to ask: the copy was complete, or opening failed."""

    def close(self) -> None:
        """Give the copy back."""
        self.extents = []
        # The copy ends here, or, if somebody still holds a buffer of it, when they let go.
        with contextlib.suppress(BufferError):
            for view in reversed(self._views):
                view.release()
        self._views = []
        if self._buffer is not None:
            with contextlib.suppress(BufferError):
                self._buffer.close()
            self._buffer = None

    def _copy(self, pid: int, progress: Progress | None) -> None:
        with contextlib.ExitStack() as stack:
            # All are opened through one directory, which stays with this process if its number is used again.
            folder = _open(pid, f"/proc/{pid}", os.O_DIRECTORY, None)
            stack.callback(os.close, folder)
            _refuse_thread(pid, folder)
            self.detail = _read_text(pid, folder, "comm").strip()
            maps, pagemap_fd, memory = (_open(pid, part, os.O_RDONLY, folder) for part in ("maps", "pagemap", "mem"))
            for fd in (maps, pagemap_fd, memory):
                stack.callback(os.close, fd)
            pagemap = Pagemap(pagemap_fd)
            if not pagemap.alive():
                raise _without_memory(pid, folder)
            text = _read_all(pid, maps)
            if not text:  # the memory that it was opened for is gone, though the pagemap may be of the next program's
                raise _ended(pid)
            runs = pagemap.anonymous_runs(_private_ranges(text))
            total = int((runs[:, 1] - runs[:, 0]).sum())
            if total:
                self._allocate(pid, total)
                self._fill(runs.tolist(), memory, pagemap, _reporter(progress, f"copying {self.name}", total))
            if not pagemap.alive():
                raise _ended(pid)

    def _allocate(self, pid: int, size: int) -> None:
        try:
            self._buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise OSError(error.errno, f"pid:{pid}: no room to copy its {size:,} bytes: {error.strerror}") from None
        with contextlib.suppress(AttributeError, OSError):  # only saves page faults
            self._buffer.madvise(mmap.MADV_HUGEPAGE)
        self._views.append(memoryview(self._buffer))

    def _fill(self, runs: list[list[int]], memory: int, pagemap: Pagemap, report: Callable[[int], None]) -> None:
        """Copy the runs one behind the other. A page that was unmapped meanwhile is left out."""
        page = os.sysconf("SC_PAGE_SIZE")
        whole = self._views[0]
        used = 0
        for start, end in runs:
            address = begin = start
            while address < end:
                with whole[used : used + min(end - address, _STEP)] as room:
                    got = _read_pages(memory, room, address, page)
                used += got
                address += got
                report(used)
                if got == 0:
                    if not pagemap.alive():
                        break  # the caller tells
                    self._keep(begin, whole[used - (address - begin) : used])
                    address += page
                    begin = address
            self._keep(begin, whole[used - (address - begin) : used])

    def _keep(self, address: int, view: memoryview) -> None:
        if len(view):
            self._views.append(view)
            self.size += len(view)
            self.extents.append(Extent(address, view))
        else:
            view.release()


def _read_pages(memory: int, room: memoryview, address: int, page: int) -> int:
    """Fill `room` with the process's bytes from `address` on; whole pages read, 0 if the first is not there."""
    try:
        got = os.preadv(memory, [room], address)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EFAULT):
            raise
        return 0
    return got - got % page


def _private_ranges(maps: bytes) -> list[tuple[int, int]]:
    """The address ranges of the private mappings in the text of /proc/N/maps, less the kernel's own."""
    ranges = []
    for line in maps.splitlines():
        bounds, permissions, *rest = line.split(maxsplit=5)
        if permissions.endswith(b"p") and (len(rest) < 4 or rest[3] not in _KERNEL_MAPPINGS):
            start, _, end = bounds.partition(b"-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges


def _open(pid: int, path: str, flags: int, folder: int | None) -> int:
    try:
        return os.open(path, flags | os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except (FileNotFoundError, ProcessLookupError):
        if folder is None:
            raise ProcessLookupError(errno.ESRCH, f"pid:{pid}: there is no such process") from None
        raise _without_memory(pid, folder) from None
    except PermissionError:
        # The memory of a process that has ended and waits for its parent is nobody's any more, so nobody may read it.
        if folder is not None and path != "stat" and _stat_fields(pid, folder)[0] in ("Z", "X"):
            raise _ended(pid) from None
        raise PermissionError(
            errno.EPERM,
            f"pid:{pid}: no permission to read its memory; it must be a process of yours (where"
            " kernel.yama.ptrace_scope is 1, a child of yours), or run pagedup as root or with CAP_SYS_PTRACE",
        ) from None


def _without_memory(pid: int, folder: int) -> OSError:
    """The error for a process that has no memory: it ended, or is a part of the kernel."""
    try:
        if int(_stat_fields(pid, folder)[6]) & _KERNEL_THREAD:
            return OSError(f"pid:{pid}: is a kernel thread and has no memory of its own")
    except (OSError, IndexError, ValueError):
        pass
    return _ended(pid)


def _stat_fields(pid: int, folder: int) -> list[str]:
    """Of /proc/N/stat what follows the command in brackets, which may hold anything: state, six numbers, flags, ..."""
    return _read_text(pid, folder, "stat").rpartition(")")[2].split()


def _ended(pid: int) -> OSError:
    return ProcessLookupError(
        errno.ESRCH, f"pid:{pid}: the process ended (or began another program) before it was read"
    )


def _refuse_thread(pid: int, folder: int) -> None:
    """A thread's number names its process's memory a second time."""
    for line in _read_text(pid, folder, "status").splitlines():
        key, _, value = line.partition(":")
        if key == "Tgid" and int(value) != pid:
            raise OSError(f"pid:{pid}: is a thread of process {int(value)}; give pid:{int(value)}")


def _read_text(pid: int, folder: int, part: str) -> str:
    fd = _open(pid, part, os.O_RDONLY, folder)
    try:
        return _read_all(pid, fd).decode(errors="replace")
    finally:
        os.close(fd)


def _read_all(pid: int, fd: int) -> bytes:
    parts = []
    try:
        while part := os.read(fd, 1 << 20):
            parts.append(part)
    except ProcessLookupError:
        raise _ended(pid) from None
    return b"".join(parts)


def _reporter(progress: Progress | None, phase: str, total: int) -> Callable[[int], None]:
    def report(done: int) -> None:
        if progress is not None:
            progress(phase, done, total)

    return report
