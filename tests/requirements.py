"""What some tests need of the machine, and whether it is there."""

import os
import shutil
import stat
from pathlib import Path

KSM = Path("/sys/kernel/mm/ksm/run")
E2FSPROGS = ("mkfs.ext4", "debugfs")
QEMU_TOOLS = ("qemu-system-x86_64", "debootstrap", "cpio", "mkfs.ext4", "depmod")


def missing_ksm() -> str:
    """Why the kernel's own page sharing cannot be used here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not KSM.exists():
        return f"the kernel has no {KSM}"
    # Root may write whatever the mode says, so ask by opening; a read-only /sys refuses.
    try:
        os.close(os.open(KSM, os.O_WRONLY))
    except OSError as error:
        return f"{KSM} cannot be written: {error.strerror}"
    return ""


def missing_qemu() -> str:
    """Why no guests can be made and booted here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root"
    gone = [tool for tool in QEMU_TOOLS if not (shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin"))]
    if gone:
        return f"not installed: {', '.join(gone)}"
    return "" if busybox_is_static() else "not installed: busybox-static"


def busybox_is_static() -> bool:
    """Whether there is a busybox, which needs no library: it does its work in a guest that has none."""
    busybox = shutil.which("busybox")
    if not busybox or not stat.S_ISREG(os.stat(busybox).st_mode):
        return False
    with open(busybox, "rb") as file:
        return b"ld-linux" not in file.read(4096)


def missing_valgrind() -> str:
    """Why instructions cannot be counted here; empty if they can."""
    gone = [tool for tool in ("valgrind", "gcc") if not shutil.which(tool)]
    return f"not installed: {', '.join(gone)}" if gone else ""


def chromium() -> str | None:
    """The browser that pages are tried in."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def missing_chromium() -> str:
    """Why no page can be looked at here; empty if one can."""
    return "" if chromium() else "not installed: chromium"


def missing_gdb() -> str:
    """Why no core can be taken of a running process here; empty if one can."""
    return "" if shutil.which("gcore") else "not installed: gcore (of gdb)"


def missing_e2fsprogs() -> str:
    """Why no images of file systems can be made and read here; empty if they can."""
    gone = [tool for tool in E2FSPROGS if not (shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin"))]
    return f"not installed: {', '.join(gone)}" if gone else ""


PROBES = {
    "chromium": missing_chromium,
    "e2fsprogs": missing_e2fsprogs,
    "gdb": missing_gdb,
    "ksm": missing_ksm,
    "qemu": missing_qemu,
    "valgrind": missing_valgrind,
}


def required(environment: str) -> set[str]:
    """The names in PAGEDUP_REQUIRE. Raises ValueError for one that is not known, which would require nothing."""
    names = {name.strip() for name in environment.split(",")} - {""}
    unknown = names - PROBES.keys()
    if unknown:
        raise ValueError(f"PAGEDUP_REQUIRE names {', '.join(sorted(unknown))}; known are {', '.join(sorted(PROBES))}")
    return names
