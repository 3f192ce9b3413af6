"""What a page costs the kernel's own page sharing: `python -m benchmarks.scan_cost`, as root.

The source of SCAN_COST in pagedup.sharing.ksm: CPU time of ksmd, by page, over the two full scans until nothing more
merges, at full speed.
"""

import argparse
import mmap
import time
from pathlib import Path

import numpy as np

from benchmarks import ksm, native

PAGE = mmap.PAGESIZE


def ksmd() -> Path:
    """The folder of the kernel's thread in /proc."""
    for name in Path("/proc").glob("[0-9]*/comm"):
        if name.read_text() == "ksmd\n":
            return name.parent
    raise FileNotFoundError("there is no kernel thread named ksmd")


def cpu_seconds(thread: Path) -> float:
    """CPU time that it has had (Documentation/scheduler/sched-stats.rst)."""
    return int((thread / "schedstat").read_text().split()[0]) / 1e9


def seeds(n: int) -> np.ndarray:
    """A tenth zero pages, half copies of pages that stand two to ten times, the rest unique; mixed well."""
    rng = np.random.default_rng(1)
    kind = rng.random(n)
    found = np.arange(1, n + 1, dtype=np.uint64)
    found[kind < 0.5] = rng.integers(n + 1, n + 1 + n // 8, np.count_nonzero(kind < 0.5))
    found[kind >= 0.9] = 0
    return found


def scan_costs(n: int, scans: int) -> list[tuple[float, float]]:
    """CPU seconds and wall seconds a page, of each of so many full scans of `n` pages."""
    thread = ksmd()
    found = []
    with ksm.stepped() as kernel, mmap.mmap(-1, n * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory.madvise(mmap.MADV_MERGEABLE)
        view = np.frombuffer(memory, np.uint8)
        native.fill(view, seeds(n), PAGE)
        del view
        for _ in range(scans):
            cpu, wall = cpu_seconds(thread), time.monotonic()
            kernel.scan()
            found.append(((cpu_seconds(thread) - cpu) / n, (time.monotonic() - wall) / n))
    return found


def main() -> None:
    """Print the costs of each scan, and their mean over the first two."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan_cost", description=__doc__)
    parser.add_argument("--pages", type=int, default=1 << 18, help="pages to scan (default: 262,144, 1 GiB)")
    costs = scan_costs(parser.parse_args().pages, 5)
    for number, (cpu, wall) in enumerate(costs, 1):
        print(f"scan {number}: {cpu * 1e6:.2f} microseconds of CPU a page, {wall * 1e6:.2f} of time")
    print(f"to convergence: {sum(cpu for cpu, _ in costs[:2]) / 2 * 1e6:.2f} microseconds of CPU a page and scan")


if __name__ == "__main__":
    main()
