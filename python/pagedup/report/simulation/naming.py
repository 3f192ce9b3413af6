"""What runs, operations and states are called."""

from __future__ import annotations

from pagedup.host.costs import Operation
from pagedup.host.result import Run, Simulation
from pagedup.report.units import LONGEST_TEXT, percent, printable, shortened

OPERATIONS: dict[str, str] = {
    Operation.FIRST_TOUCH: "first write to a page",
    Operation.COW_BREAK: "write to a shared page (COW break)",
    Operation.BREAK_LARGE: "breaking a large page",
    Operation.COMPRESS: "compressing a page",
    Operation.UNCOMPRESS: "uncompressing a page",
    Operation.SWAP_OUT: "the host's swap: write",
    Operation.SWAP_IN: "the host's swap: read",
    Operation.BALLOON_PAGE: "the balloon driver",
    Operation.GUEST_SWAP_OUT: "the guest's own swap: write",
    Operation.GUEST_SWAP_IN: "the guest's own swap: read",
    Operation.GUEST_FILE_READ: "a file's page again, dropped for the balloon",
    Operation.SCAN_VISIT: "scanner: visiting a page",
    Operation.SCAN_HASH: "scanner: reading a page",
    Operation.SHARE: "scanner: sharing a page",
    "blocked": "memory, of which the hypervisor found none",
}
"""What took time, in a few words."""


def page_label(run: Run) -> str:
    """The size of the pages that guests' memory is given in."""
    return "2M" if run.large_pages else "4K"


def run_label(simulation: Simulation, run: Run) -> str:
    """A run's name on one line, with what tells it from the others."""
    parts = [shortened(printable(run.name), LONGEST_TEXT)]
    if len({other.large_pages for other in simulation.runs}) > 1:
        parts.append(page_label(run))
    if len({other.aslr for other in simulation.runs}) > 1 and not run.aslr:
        parts.append("no ASLR")
    return ", ".join(parts)


def guests_label(guests: int) -> str:
    """So many guests."""
    return f"{guests:,} {'guest' if guests == 1 else 'guests'}"


def times(ratio: float) -> str:
    """A slowdown: 1 is none. What is not none never reads as 1."""
    text = f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:,.0f}"
    return "<1.01" if ratio > 1 and text == "1.00" else text


def in_guests(number: float) -> str:
    """Guests more or less, to a tenth."""
    return f"{number:+.1f}" if abs(number) >= 0.05 else "0.0"


def cores(number: float) -> str:
    """Cores of the host; what is not none never reads as 0."""
    return "<0.001" if 0 < number < 0.001 else f"{number:.3f}" if number < 1 else f"{number:.1f}"


def share_of_time(seconds: float, whole: float) -> str:
    """A part of so many seconds, to a microsecond."""
    return percent(round(seconds * 1e6), round(whole * 1e6))
