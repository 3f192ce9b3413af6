"""Writing the report of a scan as a page of HTML, with how it was made."""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from pagedup.cli.examine import Examined


def refuse_early(path: str) -> None:
    """Raise OSError for what can be known before the scan: no extra to make a page with, no folder to write it to."""
    from pagedup.report.html import require

    require()
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "is a folder; give the report's file name", path)
    if not os.access(folder, os.W_OK | os.X_OK):
        why = "no permission to write in" if os.path.isdir(folder) else "there is no folder"
        raise OSError(f"{path}: the report cannot be written: {why} {folder}")


def write_report(path: str, examined: Examined, command: Sequence[str], begin: float, seconds: float) -> None:
    """Write the page; `begin` is the time of the scan (seconds since 1970), `seconds` is how long it took."""
    from importlib.metadata import version

    # Only here: matplotlib and jinja2 are an extra, and slow to import.
    from pagedup.report.html import scan_html, write_html
    from pagedup.report.provenance import Provenance, SourceDigest
    from pagedup.sharing.pictures import guest_matrix, memory_map

    provenance = Provenance(
        command=shlex.join(["pagedup", *command]),
        version=version("pagedup"),
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin)),
        seconds=seconds,
        kernel=f"{os.uname().sysname} {os.uname().release}",
        cpu=_cpu_model(),
        page_size=os.sysconf("SC_PAGE_SIZE"),
        sources=[
            SourceDigest(guest.name, guest.kind, guest.bytes, digest)
            for guest, digest in zip(examined.result.guests, examined.digests, strict=True)
        ],
    )
    duplicates = examined.duplicates
    write_html(path, scan_html(examined.result, memory_map(duplicates), guest_matrix(duplicates), provenance))


def _cpu_model() -> str:
    """What the kernel calls the CPU; its architecture where it has no name (aarch64)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, os.uname().machine)
