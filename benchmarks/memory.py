"""Memory that measurements hold: anonymous, in large pages or not, every page of it there before the clock starts."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HUGE = 2 << 20
_RESERVE = 2 << 30  # bytes left to everything else


class NotEnoughMemory(RuntimeError):
    """The machine has too little free memory for this measurement."""


def allocate(size: int, *, huge: bool) -> NDArray[np.uint8]:
    """Zero bytes, faulted in; in huge pages as QEMU asks for them, or in none. Freed with the last array on it."""
    available = available_bytes()
    if size + _RESERVE > available:
        raise NotEnoughMemory(f"{_gib(size + _RESERVE)} of memory needed, {_gib(available)} available")
    area = mmap.mmap(-1, size + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    memory = np.frombuffer(area, np.uint8)
    skip = -memory.ctypes.data % _HUGE
    memory = memory[skip : skip + size]
    memory[:: mmap.PAGESIZE] = 0
    return memory


def available_bytes() -> int:
    """What the kernel believes that it can still hand out."""
    return _kib(Path("/proc/meminfo").read_text(), "MemAvailable")


def huge_pages() -> str:
    """How much of this process's memory is in huge pages, and the system's setting."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    state = setting.read_text().strip() if setting.exists() else "none"
    smaps = Path("/proc/self/smaps_rollup").read_text()
    return f"{_gib(_kib(smaps, 'AnonHugePages'))} of {_gib(_kib(smaps, 'Anonymous'))} in huge pages; THP: {state}"


def resident_bytes() -> int:
    """Memory of this process now."""
    return _kib(Path("/proc/self/status").read_text(), "VmRSS")


def peak_bytes() -> int:
    """The most that it had since `forget_peak`."""
    return _kib(Path("/proc/self/status").read_text(), "VmHWM")


def forget_peak() -> None:
    """Begin a new peak (see proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _kib(text: str, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    assert found, key
    return int(found[1]) * 1024


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
