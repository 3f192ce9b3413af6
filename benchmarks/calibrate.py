"""Does the verdict come true? What `pagedup scan` predicts of live guests, and what KSM then achieves on them.

    python -m benchmarks.calibrate --boots 5 --json FILE

For each workload and boot: two guests are booted, and run on all the time. `pagedup scan qemu:...` predicts; then KSM
scans the same guests until it finds nothing more, first as it ships (but for its speed), then with use_zero_pages=1 and
without a limit on sharing. Freed is what the guests' processes then use less than before (Pss of smaps_rollup), and
KSM's counters are told beside it: since Linux 6.12 a large page that is split gives its zero pages back at once, which
no counter shows. Printed is a table in Markdown: means over the boots, and the 95 % interval of the mean of the ratio
freed / predicted (Student's t).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import ksm
from benchmarks.guests import Guest
from benchmarks.live import live_guests

_WORKLOADS = ("idle", "python", "redis", "web")
_GUESTS = 2
# Two-sided 95 % quantiles of Student's t by degrees of freedom, for up to ten boots.
_T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
_SETTINGS = {
    "as shipped": {"use_zero_pages": 0, "max_page_sharing": 256},
    "zero pages": {"use_zero_pages": 1, "max_page_sharing": 1 << 20},
}


@dataclass(frozen=True)
class Trial:
    """One boot of one workload under one choice of settings; saved pages."""

    workload: str
    settings: str
    boot: int
    predicted: int
    freed: int
    counted: int
    scanned: int
    volatile: int


def predict(up: Sequence[Guest]) -> dict[str, Any]:
    """What the command says of these guests."""
    command = [sys.executable, "-P", "-m", "pagedup", "scan", "--json", "--interval", "2"]
    command += [f"qemu:{guest['pid']}" for guest in up]
    report: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return report


def used(up: Sequence[Guest]) -> int:
    """Pages of memory that the guests' processes use, a shared one counted once."""
    rollups = [Path(f"/proc/{guest['pid']}/smaps_rollup").read_text() for guest in up]
    kilobytes = (int(line.split()[1]) for text in rollups for line in text.splitlines() if line.startswith("Pss:"))
    return sum(kilobytes) // 4


def trials(workload: str, boot: int, memory: str) -> list[Trial]:
    """Boot once; predict, and let KSM do it, for each of the settings."""
    found = []
    specs = [f"{workload}{n}={workload}" for n in range(_GUESTS)]
    with ksm.stepped() as kernel, live_guests(specs, memory) as up:
        for name, settings in _SETTINGS.items():
            kernel.restart(settings)
            before = used(up)
            report = predict(up)["ksm"]
            expected = report["as_shipped" if name == "as shipped" else "zero_pages"]
            kernel.converge_at_full_speed()
            reached, after = kernel.counters(), used(up)
            if foreign := set(ksm.others()) - {str(guest["pid"]) for guest in up}:
                print(f"calibrate: again: {', '.join(foreign)} has mergeable memory, too", file=sys.stderr, flush=True)
                return trials(workload, boot, memory)
            found.append(
                Trial(
                    workload,
                    name,
                    boot,
                    expected["pages_sharing"] + expected["ksm_zero_pages"],
                    before - after,
                    reached["pages_sharing"] + reached["ksm_zero_pages"],
                    report["pages"],
                    expected["pages_volatile"],
                )
            )
            print(f"calibrate: {found[-1]}", file=sys.stderr, flush=True)
    return found


def table(found: Sequence[Trial]) -> str:
    """Of means over the boots, in Markdown."""
    lines = [
        "| workload | KSM's settings | boots | scanned MiB | predicted MiB | freed | counted | freed / predicted |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for workload in dict.fromkeys(trial.workload for trial in found):
        for settings in _SETTINGS:
            same = [trial for trial in found if (trial.workload, trial.settings) == (workload, settings)]
            ratios = [trial.freed / trial.predicted for trial in same]
            means = (
                f"{statistics.mean(getattr(trial, field) for trial in same) / 256:,.0f}"
                for field in ("scanned", "predicted", "freed", "counted")
            )
            lines.append(f"| {workload} | {settings} | {len(same)} | {' | '.join(means)} | {interval(ratios)} |")
    return "\n".join(lines)


def interval(values: Sequence[float]) -> str:
    """Mean, and half the width of its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = _T95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.3f} ± {half:.3f}"


def main() -> None:
    """Run the command line."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=about)
    parser.add_argument("--boots", type=int, default=5, choices=range(1, 11), metavar="1..10")
    parser.add_argument("--memory", default="384M", help="of each guest")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all trials there")
    options = parser.parse_args()
    found = [
        trial
        for boot in range(options.boots)
        for workload in _WORKLOADS
        for trial in trials(workload, boot, options.memory)
    ]
    if options.json:
        options.json.write_text(json.dumps([asdict(trial) for trial in found], indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
