"""Measurements on live guests, booted for them: against the kernel's own sharing, and against plain reading."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks import guests, ksm
from benchmarks.measure import Outcome, rounds_of, silently
from benchmarks.realram import BUILD, MEMORY, SPECS, NoRealMemory
from benchmarks.settings import Settings
from pagedup.memory.live.qemu import find_guest
from pagedup.memory.live.qemu_source import QemuSource
from pagedup.memory.live.remote import MOST_PIECES

_STATE = BUILD / "bench-guests"
_SETTLED = 20  # seconds after booting, so that the guests' own start is over
# No page of theirs is free: reading and comparing takes the time, not starting the command.
_USED, _USED_MEMORY = [f"used{n}=used" for n in range(1, 9)], "1G"


@contextmanager
def live_guests(specs: Sequence[str], memory: str) -> Iterator[list[guests.Guest]]:
    """Boot guests, and end them; NoRealMemory where that cannot be done."""
    missing = [tool for tool in ("qemu-system-x86_64", "debootstrap") if not shutil.which(tool)]
    if os.geteuid() or missing:
        why = f"there is no {' and no '.join(missing)}" if missing else "this is not root"
        raise NoRealMemory(f"guests cannot be booted here: {why}")
    try:
        if not guests.is_built(specs, _STATE):
            guests.build(_STATE)
        guests.up(specs, memory, _STATE)
        time.sleep(_SETTLED)
        yield guests.alive(_STATE)
    except guests.GuestError as error:
        raise NoRealMemory(f"booting guests failed: {error}") from None
    finally:
        guests.down(_STATE)


def live(settings: Settings) -> Iterator[Outcome]:
    """Live guests: the command against the kernel's KSM at full speed; reading one against process_vm_readv."""
    if not ksm.KSM.exists():
        raise NoRealMemory("this kernel has no KSM")
    with ksm.stepped() as kernel:
        with live_guests(_USED, _USED_MEMORY) as up:
            yield _against_ksm(kernel, up, "in use", settings, 8)
            yield _reading(up[-1], settings)
        # Told, not judged: there the start of the command is a large part of what it takes.
        with live_guests(SPECS, MEMORY) as up:
            yield _against_ksm(kernel, up, "just booted", settings, None)


def _against_ksm(
    kernel: ksm.Stepper, up: list[guests.Guest], what: str, settings: Settings, bound: float | None
) -> Outcome:
    command = [sys.executable, "-P", "-m", "pagedup", "scan", "--json", "qemu:all"]
    times: list[dict[str, float]] = []
    size = sum(source.size for source in map(_surveyed, up))
    for _ in range(min(settings.rounds, 5)):
        begin = time.perf_counter()
        silently(command)
        scanned = time.perf_counter() - begin
        times.append({"scan": scanned, "ksm": kernel.converge_at_full_speed()})
        kernel.restart()  # every page has its own copy again
    scan, merge = (min(t[side] for t in times) for side in ("scan", "ksm"))
    return Outcome(
        "live",
        f"{len(up)} live guests, {what}: KSM at full speed until 99 % is merged / `pagedup scan qemu:all`",
        [t["ksm"] / t["scan"] for t in times],
        bound,
        note=f"{size / 1e9:.2f} GB present; KSM also remaps; at best scan {scan:.2f} s, KSM {merge:.1f} s",
    )


def _reading(guest: guests.Guest, settings: Settings) -> Outcome:
    source = _surveyed(guest)
    pieces = np.ascontiguousarray(source.pages.pieces(np.ones(source.pages.n_pages, np.bool_)), np.uint64)
    source.close()
    size = int(pieces[:, 1].sum())
    sides = {"plain": partial(_read, guest["pid"], pieces), "ours": partial(_hash, guest)}
    times = rounds_of(sides, settings.rounds)
    return Outcome(
        "live",
        "reading and hashing a live guest: speed / process_vm_readv of the same pages, known beforehand",
        [t["plain"] / t["ours"] for t in times],
        0.7,
        note=f"one thread; {size / 1e9:.2f} GB, {size / min(t['ours'] for t in times) / 1e9:.1f} GB/s",
    )


def _read(pid: int, pieces: NDArray[np.uint64]) -> None:
    """Read the pieces into memory, as many at once as the call takes, and do nothing with them."""
    call = ctypes.CDLL(None, use_errno=True).process_vm_readv
    call.restype = ctypes.c_ssize_t
    with mmap.mmap(-1, int(pieces[:, 1].sum()), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_HUGEPAGE)
        target = np.frombuffer(area, np.uint8)
        at = target.ctypes.data
        for begin in range(0, len(pieces), MOST_PIECES):
            remote = pieces[begin : begin + MOST_PIECES]
            local = np.array([at, int(remote[:, 1].sum())], np.uint64)
            to, of = ctypes.c_void_p(local.ctypes.data), ctypes.c_void_p(remote.ctypes.data)
            if call(pid, to, ctypes.c_ulong(1), of, ctypes.c_ulong(len(remote)), ctypes.c_ulong(0)) < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            at += int(local[1])
        del target


def _surveyed(guest: guests.Guest) -> QemuSource:
    source = QemuSource(guest["name"], guest["name"], find_guest(str(guest["pid"])))
    source.survey()
    return source


def _hash(guest: guests.Guest) -> None:
    with _surveyed(guest) as source:
        source.hash()
