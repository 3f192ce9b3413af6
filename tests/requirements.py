"""What some tests need of the machine, and whether it is there."""

import ctypes
import fcntl
import os
import shutil
import stat
import struct
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


def missing_userfaultfd() -> str:
    """Why the kernel keeps no log of what a process writes; empty if it does."""
    number = {"x86_64": 323, "aarch64": 282}.get(os.uname().machine)
    fd = ctypes.CDLL(None).syscall(number, os.O_CLOEXEC | 1) if number else -1
    if fd < 0:
        return "the system call userfaultfd is not allowed, or not there"
    try:
        fcntl.ioctl(fd, 0xC018AA3F, bytearray(struct.pack("=3Q", 0xAA, 1 << 13 | 1 << 15, 0)))  # UFFDIO_API
    except OSError:
        return f"needs Linux 6.7 (asynchronous write protection), this is {os.uname().release}"
    finally:
        os.close(fd)
    return ""


PROBES = {
    "chromium": missing_chromium,
    "e2fsprogs": missing_e2fsprogs,
    "gdb": missing_gdb,
    "ksm": missing_ksm,
    "qemu": missing_qemu,
    "userfaultfd": missing_userfaultfd,
    "valgrind": missing_valgrind,
}


def required(environment: str) -> set[str]:
    """The names in PAGEDUP_REQUIRE. Raises ValueError for one that is not known, which would require nothing."""
    names = {name.strip() for name in environment.split(",")} - {""}
    unknown = names - PROBES.keys()
    if unknown:
        raise ValueError(f"PAGEDUP_REQUIRE names {', '.join(sorted(unknown))}; known are {', '.join(sorted(PROBES))}")
    return names
