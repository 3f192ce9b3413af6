"""Writing a report as a page of HTML, with how it was made."""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagedup.cli.answer import Answer


def refuse_early(path: str) -> None:
    """Raise OSError for what can be known at once: no extra to make a page with, no folder to write it to."""
    from pagedup.report.page import require

    require()
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "is a folder; give the report's file name", path)
    if not os.access(folder, os.W_OK | os.X_OK):
        why = "no permission to write in" if os.path.isdir(folder) else "there is no folder"
        raise OSError(f"{path}: the report cannot be written: {why} {folder}")


def write_report(path: str, found: Answer, command: Sequence[str], begin: float, seconds: float) -> None:
    """Write the page; `begin` is when finding it began (seconds since 1970), `seconds` is how long that took."""
    from importlib.metadata import version

    # Only here: matplotlib and jinja2 are an extra, and slow to import.
    from pagedup.report.page import write_html
    from pagedup.report.provenance import Provenance

    provenance = Provenance(
        command=shlex.join(["pagedup", *command]),
        version=version("pagedup"),
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin)),
        seconds=seconds,
        kernel=f"{os.uname().sysname} {os.uname().release}",
        cpu=_cpu_model(),
        page_size=os.sysconf("SC_PAGE_SIZE"),
        sources=found.sources(),
    )
    write_html(path, found.html(provenance))


def _cpu_model() -> str:
    """What the kernel calls the CPU; its architecture where it has no name (aarch64)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, os.uname().machine)
