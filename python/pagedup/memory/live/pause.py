"""Pausing a live process in a way that the kernel undoes when this one ends, however it ends (ptrace(2))."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
import time
from collections.abc import Iterator

from pagedup.memory.live.procfs import KERNEL_THREAD

# Requests of ptrace and what waitid says of a stop, from linux/ptrace.h and asm-generic/siginfo.h.
_CONTINUE = 7
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_EVENT_STOP = 128  # a stop that we asked for, or one of the whole process: not for a signal's delivery
_TRAPPED = 4
_OF_ANY_THREAD = 0x40000000  # __WALL

_ENDED = ("", "Z", "X")  # states of /proc/N/stat; empty: it is gone
_PATIENCE = 5.0  # seconds; a thread takes microseconds to stop, unless it waits inside the kernel

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """Freeze every thread of process `pid` while the block runs.

    Threads are frozen by PTRACE_SEIZE and PTRACE_INTERRUPT, not by SIGSTOP: once this process ends, even by kill -9,
    the other runs on. No signal that it gets meanwhile is lost, and one that was stopped before stays stopped. As after
    any stop, some of its system calls may return EINTR, and its clock has gone on.

    What traces is bound to one thread, so one is started for it: the block may be entered and left in any thread.

    Raises OSError, with everything released: no such process, no permission, traced by another process, a kernel
    thread, this process or one that it descends from (it may wait for us, or show what we print), or a thread that does
    not stop within 5 seconds.
    """
    _refuse(pid)
    tracer = _Tracer(pid)
    try:
        tracer.start()
        tracer.wait()
        yield
    finally:
        tracer.wanted.release()  # a call straight into C, before which no KeyboardInterrupt can come
        tracer.wait_for_end()


class _Tracer(threading.Thread):
    """Holds the process for as long as it lives: as a tracer ends, the kernel releases all that it traces.

    No KeyboardInterrupt reaches this thread, so nothing is left half done; and its end releases even a thread of the
    process that could not stop.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(name=f"pagedup-pause-{pid}", daemon=True)
        self._pid = pid
        self._seized: set[int] = set()
        self._running: set[int] = set()  # those of the seized that have not stopped yet
        self._refused = 0
        self._error: Exception | None = None
        self._ready = threading.Event()
        self.wanted = threading.Lock()  # for as long as it is held
        self.wanted.acquire()

    def wait(self) -> None:
        """Return once every thread of the process is frozen; raise what was in the way."""
        while not self._ready.wait(0.01):
            self._reap()
        if self._error is not None:
            raise self._error

    def wait_for_end(self) -> None:
        """Return once this thread has ended, and so the process is released."""
        # join() returns before the kernel has seen the thread's end.
        while self.native_id is not None and os.path.exists(f"/proc/self/task/{self.native_id}"):
            self._reap()
            time.sleep(0.0001)

    def _reap(self) -> None:
        """Take leave of seized threads that ended, for whoever waits for this thread.

        A thread that begins another program waits inside the kernel for that, and this one, if it wants to seize
        another, for the new program.
        """
        for thread in tuple(self._seized):
            self._reap_one(thread)

    def _reap_one(self, thread: int) -> None:
        if thread != self._pid:  # that is its parent's to do
            _wait_if_there(thread, os.WEXITED)

    def run(self) -> None:
        """Freeze the process, and hold it for as long as that is wanted."""
        try:
            self._freeze()
        except Exception as error:  # for the thread that waits
            self._error = error
        self._ready.set()
        if self._error is None:
            self.wanted.acquire()

    def _freeze(self) -> None:
        end = time.monotonic() + _PATIENCE
        nap = 0.0001
        complete = 0
        while complete < 2:  # listings: one may miss a thread where another ends meanwhile
            new = self._seize_new()
            for thread in tuple(self._seized):
                self._look(thread)
            complete = 0 if new or self._running else complete + 1
            if not self.wanted.locked():
                return
            if time.monotonic() > end:
                raise self._stuck()
            if self._running:
                time.sleep(nap)
                nap = min(2 * nap, 0.01)
        if not self._seized:
            raise _ended(self._pid)

    def _seize_new(self) -> bool:
        """Seize the threads that are not; whether there was any."""
        try:
            listed = {int(name) for name in os.listdir(f"/proc/{self._pid}/task")}
        except (FileNotFoundError, ProcessLookupError):
            raise _ended(self._pid) from None
        self._running &= self._seized
        new = [thread for thread in listed - self._seized if _state(self._pid, thread) not in _ENDED]
        for thread in new:
            self._seize(thread)
        return bool(new)

    def _seize(self, thread: int) -> None:
        try:
            _ptrace(_SEIZE, thread)
            self._seized.add(thread)
            self._running.add(thread)
        except ProcessLookupError:
            pass  # it ended
        except PermissionError:
            # The kernel says the same of a thread that has ended, and of the one whose number is just taken by another
            # that begins a new program.
            tracer = _tracer(self._pid, thread)
            if tracer == self.native_id:
                self._seized.add(thread)
            elif tracer or not (self._seized or self._refused < 5 or _state(self._pid, thread) in _ENDED):
                raise _forbidden(self._pid, tracer) from None
            self._refused += 1
            self._running.add(thread)

    def _look(self, thread: int) -> None:
        """Learn whether a seized thread has stopped or ended."""
        # Only looked at: a signal that is about to be delivered is lost if it is taken and we are killed then.
        news = _wait_if_there(thread, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if news is None:
            # Seized threads change their numbers: one that begins another program takes that of the first.
            state = _state(self._pid, thread)
            if _tracer(self._pid, thread) != self.native_id or (thread == self._pid and state in _ENDED):
                self._drop(thread)
            elif state == "t":
                self._running.discard(thread)
            else:  # once more does no harm, and the first may have missed it at such a change
                _ptrace_if_there(_INTERRUPT, thread)
        elif news.si_code != _TRAPPED:
            self._reap_one(thread)
            self._drop(thread)
        elif news.si_status >> 8 == _EVENT_STOP:
            # Taken, or its parent, if that is this process, would see its end in it.
            _wait_if_there(thread, os.WSTOPPED)
            self._running.discard(thread)
        else:  # a signal came first: let it take effect, and stop before the next one
            _ptrace_if_there(_INTERRUPT, thread)
            _ptrace_if_there(_CONTINUE, thread, news.si_status)
            self._running.add(thread)

    def _drop(self, thread: int) -> None:
        self._seized.discard(thread)
        self._running.discard(thread)

    def _stuck(self) -> OSError:
        thread = min(self._running, default=self._pid)
        return TimeoutError(
            errno.ETIMEDOUT,
            f"pid:{self._pid}: cannot be paused: its thread {thread} has not stopped in {_PATIENCE:g} s (state"
            f" {_state(self._pid, thread) or 'X'}; D is a wait inside the kernel); it runs on",
        )


def _ptrace(request: int, thread: int, data: int = 0) -> None:
    if _libc.ptrace(request, thread, None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _ptrace_if_there(request: int, thread: int, data: int = 0) -> None:
    with contextlib.suppress(ProcessLookupError):
        _ptrace(request, thread, data)


def _wait_if_there(thread: int, what: int) -> os.waitid_result | None:
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PID, thread, what | os.WNOHANG | _OF_ANY_THREAD)
    return None


def _refuse(pid: int) -> None:
    """Raise for what must not be paused, or cannot be for another reason than a lack of permission."""
    fields = _stat(f"/proc/{pid}")
    if not fields:
        raise ProcessLookupError(errno.ESRCH, f"pid:{pid}: there is no such process")
    if int(fields[6]) & KERNEL_THREAD:
        raise OSError(f"pid:{pid}: is a kernel thread, which cannot be paused")
    process = _status(f"/proc/{pid}", "Tgid")
    if process not in (pid, 0):
        raise OSError(f"pid:{pid}: is a thread of process {process}; give pid:{process}")
    ancestor = os.getpid()
    if pid == ancestor:
        raise OSError(f"pid:{pid}: is this very process, which cannot pause itself")
    while ancestor > 1:
        above = _stat(f"/proc/{ancestor}")
        ancestor = int(above[1]) if above else 0
        if pid == ancestor:
            raise OSError(f"pid:{pid}: started this process, and may wait for it; it cannot be paused from here")


def _ended(pid: int) -> OSError:
    return ProcessLookupError(errno.ESRCH, f"pid:{pid}: the process ended before it was paused")


def _forbidden(pid: int, tracer: int) -> OSError:
    if tracer:
        return PermissionError(
            errno.EPERM,
            f"pid:{pid}: cannot be paused: process {_status(f'/proc/{tracer}', 'Tgid') or tracer} traces it already"
            " (a debugger?), and the kernel allows one tracer only",
        )
    return PermissionError(
        errno.EPERM,
        f"pid:{pid}: no permission to pause it; it must be a process of yours (where kernel.yama.ptrace_scope is 1, a"
        " child of yours), or run pagedup as root or with CAP_SYS_PTRACE",
    )


def _tracer(pid: int, thread: int) -> int:
    return _status(f"/proc/{pid}/task/{thread}", "TracerPid")


def _state(pid: int, thread: int) -> str:
    """The state's letter as in proc_pid_stat(5), t where a tracer has stopped it; empty if there is no such thread."""
    fields = _stat(f"/proc/{pid}/task/{thread}")
    return fields[0] if fields else ""


def _stat(folder: str) -> list[str]:
    """Of its file `stat` what follows the command in brackets, which may hold anything; empty if it is gone."""
    return _read(f"{folder}/stat").rpartition(")")[2].split()


def _status(folder: str, key: str) -> int:
    """The number of a line in its file `status`; 0 if it is gone."""
    for line in _read(f"{folder}/status").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    return 0


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""
