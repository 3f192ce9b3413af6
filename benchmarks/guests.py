#!/usr/bin/env python3
"""Real guest memory on demand: boots small Debian guests under QEMU and dumps their RAM.

    guests.py build                                  root disk, kernel, initrd (about 2 minutes, once)
    guests.py up idle1=idle web1=web --memory 256M   boot guests; returns when each one is ready
    guests.py dump OUT [--format raw|elf]            stop every guest's CPU and write OUT/<name>.<format>
    guests.py list                                   name, workload, QEMU pid, QMP socket (JSON)
    guests.py down                                   end the guests

`build` needs root on a Debian machine (x86-64) and installs what it needs. A workload is a shell script in workloads/;
--workloads DIR (at build) adds another folder of them. State lives in --state (default: realguests in the folder
for temporary files). Guests run under KVM where the CPU can, else under software emulation, so no /dev/kvm is needed;
there, booting five takes about a minute.

Worth knowing: QEMU marks guest RAM mergeable (mem-merge=on), so the kernel's own KSM can merge the very pages that you
scan. A dump stops the guest's CPU, so later dumps of it are identical. The LOAD segments of an ELF dump start at file
offsets that are not page-aligned and include firmware and video RAM, so a raw and an ELF dump differ in their totals.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypedDict

WORKLOADS = Path(__file__).resolve().parent / "workloads"
STATE = Path(tempfile.gettempdir()) / "realguests"
PACKAGES = ["qemu-system-x86", "debootstrap", "busybox-static", "cpio", "kmod", "e2fsprogs"]
RELEASE = "bookworm"
INSIDE = "python3,redis-server,nginx-light,sqlite3,perl,procps,kmod"
MODULES = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"]
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs d /dev
for m in /lib/modules/*.ko; do /bin/busybox insmod $m; done
i=0; while [ ! -b /dev/vda ] && [ $i -lt 50 ]; do /bin/busybox sleep 0.1; i=$((i+1)); done
/bin/busybox mount -o ro -t ext4 /dev/vda /newroot
exec /bin/busybox switch_root /newroot /guest-init
"""
GUEST_INIT = """#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
mount -t proc p /proc; mount -t sysfs s /sys
for d in /tmp /run /var/lib/redis /var/log /var/lib/nginx; do mount -t tmpfs t $d; done
work=$(sed -n 's/.*work=\\([a-z0-9_-]*\\).*/\\1/p' /proc/cmdline)
. /workloads/$work
echo GUEST-READY
while :; do sleep 1000; done
"""


class GuestError(RuntimeError):
    """A guest could not be built, booted or dumped."""


class Guest(TypedDict):
    """A guest that was booted, as its file in the state folder records it."""

    name: str
    workload: str
    pid: int
    qmp: str
    memory: str


def run(*command: str | Path, cwd: Path | None = None, quiet: bool = False) -> None:
    """Run a command; GuestError if it fails."""
    words = [str(word) for word in command]
    status = subprocess.run(words, cwd=cwd, stdout=subprocess.DEVNULL if quiet else None).returncode
    if status:
        raise GuestError(f"exit status {status}: {' '.join(words)}")


def install_kernel(state: Path) -> Path:
    """Unpack Debian's kernel package, without installing it; return where."""
    kernel = state / "kernel"
    if kernel.exists():
        return kernel
    depends = subprocess.check_output(["apt-cache", "depends", "linux-image-amd64"], text=True)
    package = next(line.split()[1] for line in depends.splitlines() if "Depends:" in line)
    packages = state / "deb"
    packages.mkdir(exist_ok=True)
    for name in (f"{package}-unsigned", package):
        download = ["apt-get", "download", name]
        if subprocess.run(download, cwd=packages, stdout=subprocess.DEVNULL).returncode == 0:
            break
    else:
        raise GuestError("no kernel package could be downloaded")
    unpacked = state / "kernel.part"
    shutil.rmtree(unpacked, ignore_errors=True)
    run("dpkg", "-x", next(packages.glob("*.deb")), unpacked)
    unpacked.rename(kernel)
    return kernel


def make_initrd(state: Path, kernel: Path) -> None:
    """Pack busybox and the modules that the root disk needs."""
    version = next((kernel / "lib/modules").iterdir()).name
    run("/sbin/depmod", "-b", kernel, version)
    initrd = state / "initrd"
    shutil.rmtree(initrd, ignore_errors=True)
    for folder in ("bin", "lib/modules", "dev", "newroot"):
        (initrd / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", initrd / "bin")
    modules: list[str] = []
    for module in MODULES:
        show = ["/sbin/modprobe", "-d", str(kernel), "-S", version, "--show-depends", module]
        for line in subprocess.check_output(show, text=True).splitlines():
            if line.startswith("insmod") and line.split()[1] not in modules:
                modules.append(line.split()[1])
    for i, path in enumerate(modules):
        shutil.copy(path, initrd / "lib/modules" / f"{i:02d}-{os.path.basename(path)}")
    write_script(initrd / "init", INIT)
    run("sh", "-c", "find . | cpio -o -H newc --quiet | gzip -1 > ../initrd.gz", cwd=initrd)


def write_script(path: Path, text: str) -> None:
    """Write an executable file."""
    path.write_text(text)
    path.chmod(0o755)


def refuse_foreign(state: Path) -> None:
    """GuestError if the state folder is not ours: its files name processes to end, and programs that root runs."""
    with contextlib.suppress(FileNotFoundError):
        # The link as well, where it is one.
        if {state.lstat().st_uid, state.stat().st_uid} != {os.geteuid()}:
            raise GuestError(f"{state}: is not ours; give another folder with --state")


def build(state: Path = STATE, workloads: Iterable[Path] = ()) -> None:
    """Make the root disk, the kernel and the initrd that all guests share."""
    refuse_foreign(state)
    run("apt-get", "update", quiet=True)
    run("apt-get", "install", "-y", "--no-install-recommends", *PACKAGES, quiet=True)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_foreign(state)
    root = state / "root"
    if not (root / "usr/bin/python3").exists():
        shutil.rmtree(root, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={INSIDE}", RELEASE, root, quiet=True)
    make_initrd(state, install_kernel(state))
    shutil.rmtree(root / "workloads", ignore_errors=True)
    (root / "workloads").mkdir()
    for folder in (WORKLOADS, *workloads):
        for file in folder.iterdir():
            shutil.copy(file, root / "workloads")
    write_script(root / "guest-init", GUEST_INIT)
    disk, part = state / "disk.img", state / "disk.part"
    part.unlink(missing_ok=True)
    run("truncate", "-s", "1G", part)
    run("mkfs.ext4", "-q", "-d", root, part)
    part.rename(disk)


def is_built(specs: Iterable[str], state: Path = STATE) -> bool:
    """Whether guests NAME=WORKLOAD can be booted without building anything."""
    works = {spec.rpartition("=")[2] for spec in specs}
    return (state / "disk.img").exists() and all((state / "root/workloads" / work).exists() for work in works)


def accelerators() -> list[str]:
    """KVM where the CPU has virtualization, if QEMU may use it; else software emulation.

    A /dev/kvm is not enough: some virtual machines offer one that emulates, and far slower than QEMU does.
    """
    flags = Path("/proc/cpuinfo").read_text().split()
    kvm = ("-accel", "kvm") if "vmx" in flags or "svm" in flags else ()
    return [*kvm, "-accel", "tcg,thread=multi"]


def boot(state: Path, name: str, workload: str, memory: str) -> Guest:
    """Start one guest, without waiting for it."""
    vmlinuz = next((state / "kernel/boot").glob("vmlinuz*"), None)
    if vmlinuz is None or not (state / "disk.img").exists():
        raise GuestError(f"nothing is built in {state}: run `guests.py build` first")
    base = state / name
    run(
        *("qemu-system-x86_64", "-name", name, *accelerators(), "-cpu", "max", "-m", memory, "-smp", "1"),
        *("-display", "none", "-monitor", "none", "-serial", f"file:{base}.log"),
        *("-qmp", qmp_option(f"{base}.qmp"), "-kernel", vmlinuz, "-initrd", state / "initrd.gz"),
        *("-append", f"console=ttyS0 work={workload} panic=1", "-no-reboot"),
        *("-drive", f"file={state}/disk.img,if=virtio,format=raw,readonly=on,file.locking=off"),
        *("-device", "virtio-rng-pci", "-daemonize", "-pidfile", f"{base}.pid"),
    )
    pid = int(Path(f"{base}.pid").read_text())
    guest = Guest(name=name, workload=workload, pid=pid, qmp=f"{base}.qmp", memory=memory)
    Path(f"{base}.json").write_text(json.dumps(guest))
    return guest


def up(specs: Iterable[str], memory: str = "256M", state: Path = STATE, timeout: float = 400) -> None:
    """Boot guests, each NAME=WORKLOAD (or one word for both); return when each one is ready."""
    bytes_of(memory)
    pairs = [(name, workload or name) for name, _, workload in (spec.partition("=") for spec in specs)]
    if taken := {guest["name"] for guest in alive(state)} & {name for name, _ in pairs}:
        raise GuestError(f"up already: {', '.join(sorted(taken))}")
    waiting = [boot(state, name, workload, memory) for name, workload in pairs]
    end = time.monotonic() + timeout
    while True:
        waiting = [g for g in waiting if "GUEST-READY" not in (state / f"{g['name']}.log").read_text(errors="replace")]
        if not waiting:
            return
        names = ", ".join(f"{state / guest['name']}.log" for guest in waiting)
        if dead := [guest["name"] for guest in waiting if not is_alive(guest)]:
            raise GuestError(f"{', '.join(dead)} ended before it was ready: see {names}")
        if time.monotonic() > end:
            raise GuestError(f"not ready in {timeout:g} s: see {names}")
        time.sleep(1)


def qmp_option(path: str) -> str:
    """How QEMU is told the path of its QMP socket."""
    return f"unix:{path},server=on,wait=off"


def is_alive(guest: Guest) -> bool:
    """Whether the guest's QEMU still runs: that very one, since its number may be used again, even for another QEMU."""
    try:
        words = Path(f"/proc/{guest['pid']}/cmdline").read_bytes().split(b"\0")
        return os.fsencode(qmp_option(guest["qmp"])) in words
    except (FileNotFoundError, ProcessLookupError):
        return False


def alive(state: Path = STATE) -> list[Guest]:
    """The guests that still live; what a dead one left is removed."""
    refuse_foreign(state)
    guests: list[Guest] = []
    for path in sorted(state.glob("*.json")):
        guest: Guest = json.loads(path.read_text())
        if is_alive(guest):
            guests.append(guest)
        else:
            path.unlink()
    return guests


def qmp(path: str, *commands: tuple[str, dict[str, Any]]) -> None:
    """Give QEMU these commands, one after the other."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        stream = s.makefile("rw")
        stream.readline()
        for name, arguments in (("qmp_capabilities", {}), *commands):
            stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
            stream.flush()
            answer: dict[str, Any] = {}
            while "return" not in answer:
                line = stream.readline()
                if not line:
                    raise GuestError(f"{path}: {name}: QEMU ended the connection")
                answer = json.loads(line)
                if "error" in answer:
                    raise GuestError(f"{path}: {name}: {answer['error']}")


def bytes_of(text: str) -> int:
    """256M, 1G: the size in bytes."""
    try:
        return int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1:]]
    except (KeyError, ValueError):
        raise GuestError(f"a size is a number and K, M or G, not {text!r}") from None


def dump(out: Path, form: Literal["raw", "elf"] = "raw", state: Path = STATE) -> list[Path]:
    """Stop every guest's CPU and write its RAM to a file of its own in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for guest in alive(state):
        path = (out / f"{guest['name']}.{form}").resolve()
        if form == "raw":
            order = ("pmemsave", {"val": 0, "size": bytes_of(guest["memory"]), "filename": str(path)})
        else:
            order = ("dump-guest-memory", {"paging": False, "protocol": f"file:{path}"})
        qmp(guest["qmp"], ("stop", {}), order)
        paths.append(path)
    return paths


def down(state: Path = STATE, timeout: float = 10) -> None:
    """End the guests."""
    guests = alive(state)
    for guest in guests:
        os.kill(guest["pid"], signal.SIGTERM)
    end = time.monotonic() + timeout
    while any(is_alive(guest) for guest in guests):
        if time.monotonic() > end:
            raise GuestError(f"still there after {timeout:g} s: {', '.join(g['name'] for g in guests if is_alive(g))}")
        time.sleep(0.05)
    alive(state)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=STATE)
    verbs = parser.add_subparsers(dest="verb", required=True)
    build_parser = verbs.add_parser("build")
    build_parser.add_argument("--workloads", type=Path, action="append", default=[])
    up_parser = verbs.add_parser("up")
    up_parser.add_argument("guests", nargs="+", metavar="NAME=WORKLOAD")
    up_parser.add_argument("--memory", default="256M")
    up_parser.add_argument("--timeout", type=int, default=400)
    dump_parser = verbs.add_parser("dump")
    dump_parser.add_argument("out", type=Path)
    dump_parser.add_argument("--format", choices=["raw", "elf"], default="raw")
    verbs.add_parser("list")
    verbs.add_parser("down")
    args = parser.parse_args()
    try:
        if args.verb == "build":
            build(args.state, args.workloads)
            print("built", args.state)
        elif args.verb == "up":
            up(args.guests, args.memory, args.state, args.timeout)
        elif args.verb == "dump":
            print(*dump(args.out, args.format, args.state), sep="\n")
        elif args.verb == "list":
            print(json.dumps(alive(args.state), indent=1))
        else:
            down(args.state)
    except (GuestError, OSError) as error:
        sys.exit(f"guests.py: {error}")


if __name__ == "__main__":
    main()
