"""The kernel's own page sharing, stepped scan by scan and put back as it was.

One owner at a time: a lock keeps other test runs out, and memory of other processes that is marked mergeable is
refused. What puts the settings back is a child process that waits for the end of a pipe from here, so that it happens
however this process ends, SIGKILL included.
"""

import contextlib
import ctypes
import fcntl
import mmap
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KSM = Path("/sys/kernel/mm/ksm")
LOCK = Path("/run/lock/pagedup-ksm.lock")
STILL = 100_000_000  # milliseconds between scans: it scans only when told
COUNTERS = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages", "full_scans")
SINCE_BOOT = ("pages_skipped", "pages_scanned")
CHAINS = ("stable_node_chains", "stable_node_dups")
# In this order: run 2 gives every page its own copy again, and max_page_sharing can be set only when none is shared.
SETTINGS = {
    "run": 2,
    "advisor_mode": "none",
    "smart_scan": 0,
    "use_zero_pages": 1,
    "max_page_sharing": 1 << 20,
    "pages_to_scan": 1 << 22,
    "sleep_millisecs": STILL,
    "stable_node_chains_prune_millisecs": 2000,
}

_LIBC = ctypes.CDLL(None, use_errno=True)
_MADV_MERGEABLE = 12

AS_THEY_ARE: Mapping[str, int] = {}


def read(name: str) -> str:
    """A setting; of a choice such as `[none] scan-time` the one in force."""
    text = (KSM / name).read_text().strip()
    return text.partition("[")[2].partition("]")[0] if "[" in text else text


def others() -> list[str]:
    """Processes with memory that is marked mergeable."""
    found = []
    for smaps in Path("/proc").glob("[0-9]*/smaps"):
        with contextlib.suppress(OSError):
            lines = smaps.read_text(errors="replace").splitlines()
            if any("mg" in line.split() for line in lines if line.startswith("VmFlags:")):
                found.append(smaps.parent.name)
    return found


@contextlib.contextmanager
def unstepped() -> Iterator[None]:
    """Nobody steps KSM for the time of the block, which marks memory mergeable: its pages would be counted, too."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # without root, or where it has never been stepped
            fcntl.flock(stack.enter_context(LOCK.open()), fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def stepped(settings: Mapping[str, int] = AS_THEY_ARE, *, of: Iterable[int] = ()) -> Iterator["Stepper"]:
    """KSM, at a standstill, for the time of the block; call it before the memory is marked mergeable.

    `of`: processes whose memory is marked already, and meant to be merged. `settings` differ from SETTINGS, such as
    max_page_sharing=256.
    """
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if busy := sorted(set(others()) - set(map(str, of))):
            raise RuntimeError(f"memory of other processes is mergeable: {', '.join(busy)}")
        names = [name for name in SETTINGS if (KSM / name).exists()]
        before = {name: read(name) for name in names}
        script = "; ".join(
            ["cat", f"echo 2 > {KSM}/run", *(f"echo {before[name]} > {KSM}/{name}" for name in reversed(names))]
        )
        # It has the lock, too: whoever comes next must not take the settings in between for those to put back.
        keep = [lock.fileno()]
        with subprocess.Popen(["setsid", "sh", "-c", script], stdin=subprocess.PIPE, pass_fds=keep) as keeper:
            try:
                stepper = Stepper()
                stepper.restart(settings)
                yield stepper
            finally:
                assert keeper.stdin is not None
                keeper.stdin.close()
                keeper.wait()
        assert {name: read(name) for name in names} == before


class Stepper:
    """Does full scans, one at a time."""

    def __init__(self) -> None:
        self._sleep = STILL
        self._left = 0  # zero pages that are counted though none is merged: at times those of processes that ended
        self._since_boot: dict[str, int] = {}

    def counters(self) -> dict[str, int]:
        """All that KSM counts and we look at."""
        found = {name: int(read(name)) for name in COUNTERS}
        found["ksm_zero_pages"] -= self._left
        return found

    def all_counters(self) -> dict[str, int]:
        """The same and more; what it counts since the machine was booted, from the restart on."""
        more = {name: int(read(name)) - self._since_boot.get(name, 0) for name in SINCE_BOOT + CHAINS}
        return self.counters() | more | {"general_profit": self.general_profit()}

    def general_profit(self) -> int:
        """What KSM says that it frees, in bytes, less what it needs for that."""
        return int(read("general_profit")) - self._left * mmap.PAGESIZE

    def restart(self, settings: Mapping[str, int] = AS_THEY_ARE) -> None:
        """Give every page its own copy again, and stand still; `settings` differ from SETTINGS."""
        for name in SETTINGS:
            if (KSM / name).exists():
                (KSM / name).write_text(str(settings.get(name, SETTINGS[name])))
        self._sleep = STILL
        self._left = int(read("ksm_zero_pages"))
        self._since_boot = {name: int(read(name)) for name in SINCE_BOOT}

    def scan(self) -> dict[str, int]:
        """Do one more full scan; the counters after it."""
        before = int(read("full_scans"))
        self._wake_until(lambda: int(read("full_scans")) != before)
        return self.counters()

    def wake(self) -> bool:
        """Let it visit pages_to_scan pages, or fewer, where a full scan ends; whether it did."""
        before = int(read("full_scans"))
        enough = int(read("pages_scanned")) + int(read("pages_to_scan"))
        self._wake_until(lambda: int(read("full_scans")) != before or int(read("pages_scanned")) >= enough)
        return int(read("full_scans")) != before

    def _wake_until(self, done: Callable[[], bool]) -> None:
        """Wake it once; again where it went to sleep just then and missed it."""
        end = time.monotonic() + 60
        missed = 0.0
        while not done():
            now = time.monotonic()
            if now > end:
                raise TimeoutError("KSM did not finish a scan in 60 s")
            if now > missed:
                self._sleep += 1  # a sleep of another length ends the sleep
                (KSM / "sleep_millisecs").write_text(str(self._sleep))
                if read("run") != "1":
                    (KSM / "run").write_text("1")
                missed = now + 1
            time.sleep(0.002)

    def converge(self, most: int = 12) -> dict[str, int]:
        """Scan until the counters stay as they are; they do when nothing writes to the memory."""
        last: dict[str, int] = {}
        for _ in range(most):
            now = self.scan()
            del now["full_scans"]
            if now == last and now["pages_volatile"] == 0:
                return now
            last = now
        raise AssertionError(f"KSM did not converge in {most} scans: {last}")

    def merge_at_full_speed(self, memory: NDArray[np.uint8]) -> float:
        """Seconds until 99 % of what there is to merge in this memory is; then each page gets its own copy again."""
        begin = memory.ctypes.data
        if _LIBC.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(memory.nbytes), _MADV_MERGEABLE):
            raise OSError(ctypes.get_errno(), "the kernel refuses MADV_MERGEABLE")
        seconds = self.converge_at_full_speed()
        self.restart()
        return seconds

    def converge_at_full_speed(self, grows: float = 0.001, patience: float = 300) -> float:
        """Scan without a pause until a whole scan saves less than `grows` more; seconds until 99 % of that was saved.

        For memory that is written meanwhile, in which the counters never stand still.
        """
        begin = time.monotonic()
        (KSM / "sleep_millisecs").write_text("0")
        (KSM / "run").write_text("1")
        seen: list[tuple[float, int]] = []
        scans, at_scan = int(read("full_scans")), 0
        try:
            while True:
                now, done = self.counters(), time.monotonic() - begin
                saved = now["pages_sharing"] + now["ksm_zero_pages"]
                seen.append((done, saved))
                if now["full_scans"] > scans:
                    if at_scan and saved - at_scan <= grows * saved:
                        return next(when for when, had in seen if had >= 0.99 * saved)
                    scans, at_scan = now["full_scans"], saved
                if done > patience:
                    raise TimeoutError(f"KSM did not converge in {patience:g} s")
                time.sleep(0.01)
        finally:
            (KSM / "sleep_millisecs").write_text(str(self._sleep))
