"""The machine that measured, and what else it did meanwhile."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import dedupcore


def machine() -> str:
    """CPU, kernel, Python, and what of the CPU the engine uses."""
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cpus = len(os.sched_getaffinity(0))
    return (
        f"{model[1] if model else platform.machine()}, {cpus} CPUs, Linux {platform.release()},"
        f" Python {platform.python_version()}, dedupcore {dedupcore.version} with {dedupcore.cpu_used() or 'baseline'}"
    )


class OtherLoad:
    """What others took of the CPUs since this was made: ratios measured beside them are worth less."""

    def __init__(self) -> None:
        """Begin."""
        self._others, self._total = _ticks()

    def __str__(self) -> str:
        others, total = (now - then for now, then in zip(_ticks(), (self._others, self._total), strict=True))
        share = max(0.0, others / max(1, total)) * (os.cpu_count() or 1)
        return f"{share:.2f} of {os.cpu_count()} CPUs meanwhile" + (": measure again when it is quiet" * (share > 0.1))


def _ticks() -> tuple[float, float]:
    """Clock ticks in which CPUs ran others than this process and its ended children, host included; all ticks."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    own = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
    busy = user + nice + system + irq + softirq + steal
    return busy - own, busy + idle + iowait
