"""The files of one process under /proc, opened once, and what can be wrong with them in plain words."""

from __future__ import annotations

import contextlib
import errno
import os

KERNEL_THREAD = 0x00200000  # PF_KTHREAD in the flags of /proc/N/stat


class ProcessFiles:
    """The open smaps, pagemap and mem of a process.

    All are opened through one directory, which stays with this process if its number is used again. Raises OSError in
    one line when the process cannot be read.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        with contextlib.ExitStack() as stack:
            self._folder = _open(pid, f"/proc/{pid}", os.O_DIRECTORY, None)
            stack.callback(os.close, self._folder)
            _refuse_thread(pid, self._folder)
            self.command = _read_text(pid, self._folder, "comm").strip()
            self.smaps, self.pagemap, self.memory = (
                _open(pid, part, os.O_RDONLY, self._folder) for part in ("smaps", "pagemap", "mem")
            )
            for fd in (self.smaps, self.pagemap, self.memory):
                stack.callback(os.close, fd)
            self._program = self._running_program()
            self._closing = stack.pop_all()

    def close(self) -> None:
        """Close them; closing twice does nothing."""
        self._closing.close()

    def read_smaps(self) -> bytes:
        """The text of smaps, read from its beginning."""
        os.lseek(self.smaps, 0, os.SEEK_SET)
        return _read_all(self.pid, self.smaps)

    def runs_same_program(self) -> bool:
        """Whether the process still runs the program that it ran when its files were opened."""
        try:
            return self._running_program() == self._program
        except OSError:
            return False

    def ended(self) -> OSError:
        """The error for a process that has no memory (any more), or is a part of the kernel."""
        return _without_memory(self.pid, self._folder)

    def _running_program(self) -> list[str]:
        """What a new program changes: where its code lies and its stack begins (fields 26 to 28 of stat)."""
        return _stat_fields(self.pid, self._folder)[23:26]


def _open(pid: int, path: str, flags: int, folder: int | None) -> int:
    try:
        return os.open(path, flags | os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except (FileNotFoundError, ProcessLookupError):
        if folder is None:
            raise ProcessLookupError(errno.ESRCH, f"pid:{pid}: there is no such process") from None
        raise (_ended(pid) if path == "stat" else _without_memory(pid, folder)) from None
    except PermissionError:
        # The memory of a process that has ended and waits for its parent is nobody's any more, so nobody may read it.
        if folder is not None and path != "stat" and _stat_fields(pid, folder)[0] in ("Z", "X"):
            raise _ended(pid) from None
        raise PermissionError(
            errno.EPERM,
            f"pid:{pid}: no permission to read its memory; it must be a process of yours (where"
            " kernel.yama.ptrace_scope is 1, a child of yours), or run pagedup as root or with CAP_SYS_PTRACE",
        ) from None
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise OSError(
            error.errno,
            f"pid:{pid}: {error.strerror}: each live process takes four; raise the limit (ulimit -n), or scan fewer"
            " at once",
        ) from None


def _without_memory(pid: int, folder: int) -> OSError:
    try:
        if int(_stat_fields(pid, folder)[6]) & KERNEL_THREAD:
            return OSError(f"pid:{pid}: is a kernel thread and has no memory of its own")
    except (OSError, IndexError, ValueError):
        pass
    return _ended(pid)


def _stat_fields(pid: int, folder: int) -> list[str]:
    """Of /proc/N/stat what follows the command in brackets, which may hold anything: from the third field on."""
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
