"""Pausing real processes of many threads: they stand still, they always run on, and nothing that was sent is lost."""

import errno
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagedup.memory.live import pause
from pagedup.memory.live.pause import paused
from tests.processes import run_python, sanitizer_flags, succeed

THREADS = 4
SIGNALS, READY = THREADS, THREADS + 1

# Starts a counting process and pauses it; says "paused" and then obeys one line, a statement of Python.
PAUSER = """
import os, subprocess, sys
from pagedup.memory.live.pause import paused
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
input()
with paused(child.pid):
    print("paused", flush=True)
    exec(input())
"""


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("counting") / "counting"
    source = Path(__file__).with_name("counting.c")
    flags = ["-std=c11", "-O2", "-Wall", "-Werror", "-pthread", *sanitizer_flags()]
    succeed(["gcc", *flags, "-o", str(path), str(source)])
    return path


class Counters:
    """The shared memory in which a process counts."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ)

    def read(self) -> tuple[int, ...]:
        return struct.unpack_from(f"{THREADS}Q", self._map)

    def signals(self) -> int:
        value: int = struct.unpack_from("Q", self._map, 8 * SIGNALS)[0]
        return value

    def ready(self) -> bool:
        return any(struct.unpack_from("Q", self._map, 8 * READY))

    def assert_still(self) -> None:
        before = self.read()
        time.sleep(0.05)
        assert self.read() == before

    def wait_until_all_move(self) -> None:
        before = self.read()
        until(lambda: all(now != then for now, then in zip(self.read(), before, strict=True)))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class Child:
    def __init__(self, program: Path, folder: Path, way: str) -> None:
        self.counters = Counters(folder / "counters")
        self.process = subprocess.Popen([program, folder / "counters", way])
        self.pid = self.process.pid
        until(self.counters.ready)

    def state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def start(program: Path, tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    children: list[Child] = []

    def begin(way: str = "count") -> Child:
        children.append(Child(program, tmp_path, way))
        return children[-1]

    yield begin
    for child in children:
        child.process.kill()
        child.process.wait()


@pytest.fixture
def child(start: Callable[[str], Child]) -> Child:
    return start("count")


def test_every_thread_stands_still_and_runs_on(child: Child) -> None:
    for _ in range(3):
        child.counters.wait_until_all_move()
        with paused(child.pid):
            child.counters.assert_still()
            assert child.process.poll() is None, "its stop is not taken for its end"
    child.counters.wait_until_all_move()


def test_released_when_the_block_ends(child: Child) -> None:
    for _ in range(50):
        with paused(child.pid):
            pass
        assert "TracerPid:\t0\n" in Path(f"/proc/{child.pid}/status").read_text()
    assert not [thread for thread in threading.enumerate() if "pause" in thread.name]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_in_the_block_releases(child: Child, error: type[BaseException]) -> None:
    with pytest.raises(error), paused(child.pid):
        raise error
    child.counters.wait_until_all_move()


# An interrupt that comes in a destructor Python itself loses.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_any_moment(child: Child) -> None:
    """A real SIGINT, sooner or later while it is being paused, held or released."""
    for index in range(100):
        timer = threading.Timer(index * 0.00003, signal.raise_signal, [signal.SIGINT])
        try:
            timer.start()
            with paused(child.pid):
                pass
            timer.join()
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass
        timer.join()
        child.counters.wait_until_all_move()


def test_another_thread_may_end_it(child: Child) -> None:
    block = paused(child.pid)
    entering = threading.Thread(target=block.__enter__)
    entering.start()
    entering.join()
    child.counters.assert_still()
    block.__exit__(None, None, None)
    child.counters.wait_until_all_move()


@pytest.mark.parametrize("way", ["multiply", "exec"])
def test_threads_and_programs_that_begin_meanwhile(start: Callable[[str], Child], way: str) -> None:
    child = start(way)
    for _ in range(50):
        with paused(child.pid):
            before = child.counters.read()
            time.sleep(0.005)
            assert child.counters.read() == before
    child.counters.wait_until_all_move()


def test_a_first_thread_that_has_ended(start: Callable[[str], Child]) -> None:
    child = start("headless")
    until(lambda: child.state() == "Z")
    with paused(child.pid):
        child.counters.assert_still()
    child.counters.wait_until_all_move()


def test_a_stopped_process_stays_stopped(child: Child) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    until(lambda: child.state() == "T")
    with paused(child.pid):
        child.counters.assert_still()
        assert child.state() == "t"
    until(lambda: child.state() == "T")
    child.counters.assert_still()
    os.kill(child.pid, signal.SIGCONT)
    child.counters.wait_until_all_move()


def test_a_process_that_is_continued_while_it_is_paused(child: Child) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    until(lambda: child.state() == "T")
    with paused(child.pid):
        os.kill(child.pid, signal.SIGCONT)
        child.counters.assert_still()
    child.counters.wait_until_all_move()


def test_no_signal_is_lost(child: Child) -> None:
    sent = 0
    done = threading.Event()

    def send() -> None:
        nonlocal sent
        while not done.is_set():
            os.kill(child.pid, signal.SIGRTMIN)  # each one is queued
            sent += 1
            time.sleep(0.00005)

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(300):
        with paused(child.pid):
            pass
    done.set()
    sender.join()
    assert sent > 300
    until(lambda: child.counters.signals() == sent)


def pausing(program: Path, folder: Path) -> "tuple[subprocess.Popen[str], int, Counters]":
    """A process of its own that has paused its own child, which the kernel allows everybody."""
    counters = Counters(folder / "counters")
    command = [sys.executable, "-P", "-c", PAUSER, str(program), str(folder / "counters"), "count"]
    pauser = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert pauser.stdin is not None and pauser.stdout is not None
    pid = int(pauser.stdout.readline())
    until(counters.ready)
    tell(pauser, "")
    return pauser, pid, counters


def tell(pauser: "subprocess.Popen[str]", line: str) -> None:
    assert pauser.stdin is not None
    pauser.stdin.write(line + "\n")
    pauser.stdin.flush()


@pytest.mark.parametrize("end", ["kill", "os._exit(3)", "os.abort()"])
def test_it_runs_on_whatever_ends_us(program: Path, tmp_path: Path, end: str) -> None:
    pauser, pid, counters = pausing(program, tmp_path)
    try:
        assert pauser.stdout is not None and pauser.stdout.readline() == "paused\n"
        counters.assert_still()
        if end == "kill":
            pauser.kill()
        else:
            tell(pauser, end)
        pauser.communicate()
        assert pauser.returncode != 0
        counters.wait_until_all_move()
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_signal_in_our_hands_is_not_lost_where_we_are_killed(program: Path, tmp_path: Path) -> None:
    """Its delivery has stopped the thread, and we end before we can let it go on."""
    counters = Counters(tmp_path / "counters")
    code = """
        import os, signal, subprocess, sys
        from pagedup.memory.live import pause
        child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(child.pid, flush=True)
        while not any(open(sys.argv[2], "rb").read()[40:48]):
            pass
        real = pause._ptrace
        sent = []
        def ptrace(request, thread, data=0):
            if request == pause._CONTINUE:
                os.kill(os.getpid(), signal.SIGKILL)
            real(request, thread, data)
            if request == pause._SEIZE and not sent:
                sent.append(thread)
                assert pause._libc.tgkill(child.pid, thread, int(signal.SIGRTMIN)) == 0
                while pause._state(child.pid, thread) != "t":
                    pass
        pause._ptrace = ptrace
        with pause.paused(child.pid):
            print("paused without meeting the signal")
    """
    done = run_python(code, program, tmp_path / "counters", "count")
    try:
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        until(lambda: counters.signals() == 1)
        counters.wait_until_all_move()
    finally:
        os.kill(int(done.stdout.split()[0]), signal.SIGKILL)


def test_no_signal_is_lost_where_we_are_killed(program: Path, tmp_path: Path) -> None:
    """At any moment of the pausing, too."""
    for index in range(10):
        pauser, pid, counters = pausing(program, tmp_path)
        sent = 0
        end = time.monotonic() + index * 0.001
        try:
            while time.monotonic() < end or not sent:
                os.kill(pid, signal.SIGRTMIN)
                sent += 1
            pauser.kill()
            pauser.communicate()
            until(lambda counters=counters, sent=sent: counters.signals() == sent)  # type: ignore[misc]
            counters.wait_until_all_move()
        finally:
            os.kill(pid, signal.SIGKILL)


def test_a_process_that_is_killed_while_it_is_paused(child: Child) -> None:
    with paused(child.pid):
        child.process.kill()
    assert child.process.wait() == -signal.SIGKILL


def test_a_process_that_is_gone(child: Child) -> None:
    child.process.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError, match=f"pid:{child.pid}: the process ended"), paused(child.pid):
        pass
    assert child.process.wait() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError, match=f"pid:{child.pid}: there is no such process"), paused(child.pid):
        pass


def test_a_process_that_ends_meanwhile(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pause._ptrace

    def ptrace(request: int, thread: int, data: int = 0) -> None:
        child.process.kill()
        child.process.wait()
        real(request, thread, data)

    monkeypatch.setattr(pause, "_ptrace", ptrace)
    with pytest.raises(ProcessLookupError, match=f"pid:{child.pid}: the process ended"), paused(child.pid):
        pass


def test_a_thread_that_waits_inside_the_kernel(start: Callable[[str], Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause, "_PATIENCE", 0.3)
    child = start("stuck")
    until(lambda: child.state() == "D")
    message = rf"thread {child.pid} has not stopped in 0.3 s [(]state D"
    with pytest.raises(TimeoutError, match=message) as caught, paused(child.pid):
        pass
    assert caught.value.errno == errno.ETIMEDOUT
    child.counters.wait_until_all_move()
    assert "TracerPid:\t0\n" in Path(f"/proc/{child.pid}/status").read_text()


def test_traced_already(child: Child) -> None:
    with paused(child.pid):
        message = f"pid:{child.pid}: .*: process {os.getpid()} traces it already"
        with pytest.raises(PermissionError, match=message), paused(child.pid):
            pass
        child.counters.assert_still()
    child.counters.wait_until_all_move()


def test_no_permission(start: Callable[[str], Child]) -> None:
    """Another user's process, or one that gives nothing away; as an ordinary user."""
    child = start("private")
    code = """
        import os, sys
        from pagedup.memory.live.pause import paused
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            with paused(int(sys.argv[1])):
                print("paused")
        except PermissionError as error:
            print(error.errno, error.strerror)
    """
    done = run_python(code, child.pid)
    assert done.stdout.startswith(f"{errno.EPERM} pid:{child.pid}: no permission to pause it; "), done.stderr
    child.counters.wait_until_all_move()


def test_ourselves_and_what_started_us() -> None:
    with pytest.raises(OSError, match=f"pid:{os.getpid()}: is this very process"), paused(os.getpid()):
        pass
    with pytest.raises(OSError, match=f"pid:{os.getppid()}: started this process"), paused(os.getppid()):
        pass


def test_a_thread_is_not_a_process() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    assert thread.native_id is not None
    try:
        with pytest.raises(OSError, match=f"is a thread of process {os.getpid()}"), paused(thread.native_id):
            pass
    finally:
        release.set()
        thread.join()


def test_a_kernel_thread() -> None:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and not (folder / "cmdline").read_bytes():
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[6]) & 0x00200000:
                break
    else:
        pytest.skip("no kernel thread is visible here")
    with pytest.raises(OSError, match="is a kernel thread"), paused(int(folder.name)):
        pass
