"""Measurements on live guests, booted for them: against the kernel's own sharing, and against plain reading."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks import guests, ksm
from benchmarks.measure import Outcome, rounds_of, silently
from benchmarks.realram import BUILD, MEMORY, SPECS, NoRealMemory
from benchmarks.settings import Settings
from pagedup.memory import LiveSource, open_sources

_STATE = BUILD / "bench-guests"
_SETTLED = 20  # seconds after booting, so that the guests' own start is over


@contextmanager
def live_guests(specs: list[str], memory: str) -> Iterator[list[guests.Guest]]:
    """Boot guests, and end them; NoRealMemory where that cannot be done."""
    missing = [tool for tool in ("qemu-system-x86_64", "debootstrap") if not shutil.which(tool)]
    if os.geteuid() or missing:
        why = f"there is no {' and no '.join(missing)}" if missing else "this is not root"
        raise NoRealMemory(f"guests cannot be booted here: {why}")
    try:
        if not (_STATE / "disk.img").exists():
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
    with ksm.stepped() as kernel, live_guests(SPECS, MEMORY) as up:
        times: list[dict[str, float]] = []
        command = [sys.executable, "-P", "-m", "pagedup", "scan", "--json", "qemu:all"]
        for _ in range(min(settings.rounds, 5)):
            begin = time.perf_counter()
            silently(command)
            scanned = time.perf_counter() - begin
            times.append({"scan": scanned, "ksm": kernel.converge_at_full_speed()})
            kernel.restart()  # every page has its own copy again
        scan, merge = (min(t[side] for t in times) for side in ("scan", "ksm"))
        yield Outcome(
            "live",
            f"{len(up)} live guests: KSM at full speed until 99 % is merged / `pagedup scan qemu:all`",
            [t["ksm"] / t["scan"] for t in times],
            8,
            note=f"KSM also remaps; scan {scan:.2f} s, KSM {merge:.1f} s",
        )
        yield _reading(up[-1], settings)


def _reading(guest: guests.Guest, settings: Settings) -> Outcome:
    with _opened(guest) as source:
        begins = np.array([extent.address for extent in source.extents], np.uint64)
        sizes = [len(memoryview(extent.buffer)) for extent in source.extents]  # type: ignore[union-attr]
        pages = list(zip(source.in_process(begins).tolist(), sizes, strict=True))
        size = source.size
    process_vm_readv = ctypes.CDLL(None, use_errno=True).process_vm_readv
    process_vm_readv.restype = ctypes.c_ssize_t

    def plain() -> None:
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
            room.madvise(mmap.MADV_HUGEPAGE)
            target = np.frombuffer(room, np.uint8)
            at = target.ctypes.data
            for begin in range(0, len(pages), 1024):
                remote = np.array(pages[begin : begin + 1024], np.uint64)
                local = np.array([[at, remote[:, 1].sum()]], np.uint64)
                count = ctypes.c_ulong(len(remote))
                got = process_vm_readv(
                    guest["pid"],
                    ctypes.c_void_p(local.ctypes.data),
                    ctypes.c_ulong(1),
                    ctypes.c_void_p(remote.ctypes.data),
                    count,
                    ctypes.c_ulong(0),
                )
                if got < 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
                at += int(local[0, 1])
            del target

    def ours() -> None:
        _opened(guest).close()

    times = rounds_of({"plain": plain, "ours": ours}, settings.rounds, cpus=len(os.sched_getaffinity(0)))
    return Outcome(
        "live",
        "reading a live guest: speed / process_vm_readv of the same pages, known beforehand",
        [t["plain"] / t["ours"] for t in times],
        0.7,
        note=f"{size / 1e9:.2f} GB, {size / min(t['ours'] for t in times) / 1e9:.1f} GB/s",
    )


def _opened(guest: guests.Guest) -> LiveSource:
    (source,) = open_sources([f"qemu:{guest['pid']}"])
    assert isinstance(source, LiveSource)
    return source
