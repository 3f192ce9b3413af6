"""How many threads may run at once here."""

import os
from pathlib import Path


def available_threads() -> int:
    """The CPUs that this process may use, by its affinity and by the CPU quota of its cgroup; at least 1."""
    cpus = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return max(1, cpus if quota is None else min(cpus, quota))


def _cgroup_quota() -> int | None:
    """Whole CPUs of the tightest quota between this process's cgroup (version 2) and the root; None without one."""
    try:
        line = next(ln for ln in Path("/proc/self/cgroup").read_text().splitlines() if ln.startswith("0::"))
    except (OSError, StopIteration):
        return None
    root = Path("/sys/fs/cgroup")
    folder = root / line.removeprefix("0::").lstrip("/")
    quotas = []
    for place in (folder, *folder.parents):
        try:
            quota, period = (place / "cpu.max").read_text().split()
            if quota != "max":
                quotas.append(int(quota) // int(period))
        except (OSError, ValueError):
            pass
        if place == root:
            break
    return min(quotas) if quotas else None
