"""Live QEMU guests: real ones that stand before their first instruction, and command lines and mappings made up."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import guests
from pagedup.memory.live import qmp
from pagedup.memory.live.qemu import QemuGuest, RamBlock, find_guest, find_guests, ram_blocks
from pagedup.memory.live.qmp import guest_at
from pagedup.memory.live.smaps import Mapping, read_mappings

MIB = 1 << 20
NOTHING = frozenset[str]()


def mapping(start: int, end: int, permissions: str = "rw-p", path: str = "", inode: int = 0) -> Mapping:
    return Mapping(start * MIB, end * MIB, permissions, inode, path, NOTHING)


class Qemu:
    """A QEMU that runs no instruction (-S), and whose sockets lie in `folder`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.qmp = str(folder / "qmp")
        self.monitor = str(folder / "monitor")
        nothing = ["-S", "-nodefaults", "-display", "none", "-serial", "none"]
        sockets = ["-qmp", f"unix:{self.qmp},server=on,wait=off", "-monitor", f"unix:{self.monitor},server=on,wait=off"]
        self.process = subprocess.Popen(["qemu-system-x86_64", *nothing, *sockets, *arguments])
        self.pid = self.process.pid
        end = time.monotonic() + 30
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < end
            time.sleep(0.01)

    def answers(self) -> bool:
        """Whether the machine is made; the greeting alone comes before."""
        try:
            guests.qmp(self.qmp, ("query-status", {}))
        except OSError:
            return False
        return True

    def mappings(self) -> list[Mapping]:
        return read_mappings(Path(f"/proc/{self.pid}/smaps").read_bytes())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Qemu]]:
    running: list[Qemu] = []

    def begin(*arguments: str) -> Qemu:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(Qemu(folder, *arguments))
        return running[-1]

    yield begin
    for qemu in running:
        qemu.process.kill()
        qemu.process.wait()


def backend(kind: str, name: str, size: str, more: str = "") -> list[str]:
    return ["-object", f"memory-backend-{kind},id={name},size={size}{more}"]


NODES = [
    *backend("ram", "r0", "64M"),
    *backend("ram", "r1", "64M"),
    "-numa",
    "node,memdev=r0",
    "-numa",
    "node,memdev=r1",
]
MACHINES: dict[str, tuple[list[str], list[tuple[str, int]]]] = {
    "default": ([], [("ram", 128 * MIB)]),
    "plain": (["-m", "96M"], [("ram", 96 * MIB)]),
    "4G": (["-m", "4G"], [("ram", 4096 * MIB)]),
    "kvm": (["-m", "96M", "-accel", "kvm", "-cpu", "qemu64"], [("ram", 96 * MIB)]),
    "not mergeable": (["-m", "96M", "-machine", "mem-merge=off"], [("ram", 96 * MIB)]),
    "microvm": (["-M", "microvm", "-m", "96M"], [("ram", 96 * MIB)]),
    "video": (["-m", "96M", "-vga", "std"], [("ram", 96 * MIB)]),
    "odd": (["-m", "100000001b"], [("ram", 100007936)]),
    "repeated": (["-m", "64M", "-m", "96"], [("ram", 96 * MIB)]),
    "file": (["-m", "96M", "-mem-path", "/dev/shm"], [("ram", 96 * MIB)]),
    "backend": (["-m", "96M", *backend("ram", "b", "96M"), "-machine", "memory-backend=b"], [("b", 96 * MIB)]),
    "memfd": (
        ["-m", "96M", *backend("memfd", "b", "96M", ",share=on"), "-machine", "q35,memory-backend=b"],
        [("b", 96 * MIB)],
    ),
    "json": (
        [
            *("-m", "size=98304k", "-machine", "memory-backend=b", "-object"),
            '{"qom-type":"memory-backend-memfd","id":"b","size":100663296,"share":true}',
        ],
        [("b", 96 * MIB)],
    ),
    "two nodes": (["-m", "128M", *NODES], [("r0", 64 * MIB), ("r1", 64 * MIB)]),
    "plugged in": (
        [
            *("-m", "96M,slots=2,maxmem=1G", *backend("ram", "d", "64M"), *backend("ram", "unused", "32M")),
            *("-device", "pc-dimm,memdev=d"),
        ],
        [("ram", 96 * MIB), ("d", 64 * MIB)],
    ),
}


@pytest.mark.qemu
@pytest.mark.parametrize("machine", MACHINES)
def test_ram_is_where_qemu_says(start: Callable[..., Qemu], machine: str) -> None:
    arguments, expected = MACHINES[machine]
    if machine == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm")
    qemu = start(*arguments)
    found = find_guest(str(qemu.pid))
    assert found.ram == expected
    blocks = ram_blocks(found, qemu.mappings())
    told = guest_at(qemu.qmp)
    assert (told.pid, told.name, told.status) == (qemu.pid, "", "prelaunch")
    exact = ram_blocks(told, qemu.mappings())
    assert [(block.start, block.end) for block in exact] == [(block.start, block.end) for block in blocks]
    assert sorted(block.end - block.start for block in exact) == sorted(size for _, size in expected)
    for by_process, by_qemu in zip(blocks, exact, strict=True):
        if machine == "two nodes":
            assert (by_process.name, by_qemu.name in ("r0", "r1")) == ("r0 or r1", True)
        elif by_process.name == "ram":
            assert by_qemu.name in ("pc.ram", "microvm.ram")
        else:
            assert by_process.name == by_qemu.name
    assert len({block.name for block in exact}) == len(expected)


@pytest.mark.qemu
def test_where_only_qemu_can_tell(start: Callable[..., Qemu]) -> None:
    """Video memory that is as large as the RAM."""
    qemu = start("-m", "16M", "-vga", "std")
    with pytest.raises(OSError, match=r"asks for 1 of 16,777,216 bytes, and 2 of .*; give the path of its QMP socket"):
        ram_blocks(find_guest(str(qemu.pid)), qemu.mappings())
    (block,) = ram_blocks(guest_at(qemu.qmp), qemu.mappings())
    assert (block.name, block.end - block.start) == ("pc.ram", 16 * MIB)


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["-name", "a1"], "a1"),
        (["--name", "guest=a2,debug-threads=on"], "a2"),
        (["-name", "debug-threads=on,guest=a3"], "a3"),
        (["-name", "a4,,b,process=other"], "a4,b"),
        (["-name", "first", "-name", "a5"], "a5"),
        (["-name", "a6", "-name", "debug-threads=on"], "a6"),
        (["-name", "a 7", "-async-teardown"], "a 7"),
    ],
)
def test_names(start: Callable[..., Qemu], arguments: list[str], name: str) -> None:
    qemu = start("-m", "32M", *arguments)
    assert find_guest(name).pid == find_guest(str(qemu.pid)).pid == guest_at(qemu.qmp).pid == qemu.pid
    assert find_guest(str(qemu.pid)).name == guest_at(qemu.qmp).name == name


@pytest.mark.qemu
def test_one_of_several(start: Callable[..., Qemu]) -> None:
    one, two, three = start("-name", "twin"), start("-name", "twin"), start("-name", "other")
    assert {one.pid, two.pid, three.pid} <= {guest.pid for guest in find_guests()}
    with pytest.raises(OSError, match=rf"qemu:twin: 2 guests .*: qemu:{one.pid}, qemu:{two.pid}$"):
        find_guest("twin")
    with pytest.raises(OSError, match=r"qemu:nobody: there is no such guest; there are .*qemu:twin.*qemu:other"):
        find_guest("nobody")
    named = start("-name", str(three.pid))
    assert find_guest(str(three.pid)).pid == named.pid, "a name comes before a number"


def test_what_is_no_qemu(tmp_path: Path) -> None:
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & wait", "qemu-system-x86_64", "-name", "fake"])
    renamed = subprocess.Popen(["qemu-system-x86_64", "60"], executable="/bin/sleep")
    try:
        assert not {shell.pid, renamed.pid} & {guest.pid for guest in find_guests()}
        with pytest.raises(OSError, match=f"qemu:{shell.pid}: there is no such guest"):
            find_guest(str(shell.pid))
    finally:
        for process in (renamed, shell):
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512 * MIB),
        ("512M", 512 * MIB),
        ("0.5G", 512 * MIB),
        ("size=4G,slots=2,maxmem=8G", 4096 * MIB),
        ("maxmem=8G,size=1t", MIB * MIB),
        ("maxmem=8G,slots=2", 128 * MIB),
        ("0", 128 * MIB),
        ("8193b", 16384),
        ("0x10", 16 * MIB),
        ("0.1G", 107380736),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert QemuGuest(1, "", ("qemu", "-m", text)).ram == [("ram", size)]


@pytest.mark.parametrize("text", ["many", "-5", "1e3", "5Q", "1.2.3", "", "9" * 500, "0x" + "f" * 500, "²"])
def test_sizes_that_are_none(text: str) -> None:
    guest = QemuGuest(7, "a", ("qemu", "-m", f"size={text}x"))
    with pytest.raises(
        OSError, match=r"qemu:a: its RAM is not found in process 7: -m of its command line has the size"
    ):
        print(guest.ram)


@pytest.mark.parametrize("json_text", ["{", '{"a":' * 100_000, "{}"])
def test_objects_that_are_none(json_text: str) -> None:
    guest = QemuGuest(7, "a", ("qemu", "-object", json_text, "-machine", "memory-backend=b"))
    with pytest.raises(OSError, match="has no -object with the id b"):
        print(guest.ram)


GUEST = QemuGuest(7, "a", ("qemu", "-m", "64M"))


@pytest.mark.parametrize(
    "mappings",
    [
        [mapping(0, 64)],
        [mapping(0, 64), mapping(64, 65, "---p")],
        [mapping(0, 8), mapping(8, 72)],  # a stack of a thread in front
        [mapping(0, 8), mapping(8, 10), mapping(10, 12), mapping(12, 72), mapping(72, 73, "---p")],  # cut
        [mapping(8, 72), mapping(72, 73, path="/lib/x", inode=1)],
        [mapping(8, 72), mapping(72, 73, "rw-s", "/memfd:x", 1)],
        [mapping(8, 40, "rw-s", "/memfd:x", 1), mapping(40, 72, "r--s", "/memfd:x", 1)],
        [mapping(0, 64, "rwxp"), mapping(100, 164)],
        [mapping(0, 64, path="[heap]"), mapping(100, 164, path="[anon:x]")],
        [mapping(0, 64, "---p"), mapping(100, 164)],
    ],
)
def test_a_block_among_mappings(mappings: list[Mapping]) -> None:
    (block,) = ram_blocks(GUEST, mappings)
    assert block.name == "ram"
    assert block.end - block.start == 64 * MIB
    assert block.end // MIB in (64, 72, 164)


@pytest.mark.parametrize(
    ("mappings", "found"),
    [
        ([], "none"),
        ([mapping(0, 65)], "none"),  # its end alone does not tell where it begins
        ([mapping(0, 64), mapping(64, 65)], "none"),
        ([mapping(0, 63), mapping(63, 64, "---p")], "none"),
        ([mapping(0, 32), mapping(33, 65)], "none"),
        ([mapping(0, 32), mapping(32, 64, "rw-s", "/memfd:x", 1)], "none"),
        ([mapping(0, 64), mapping(65, 129)], "2"),
    ],
)
def test_no_block_or_too_many(mappings: list[Mapping], found: str) -> None:
    with pytest.raises(
        OSError, match=f"asks for 1 of 67,108,864 bytes, and {found} of its mappings could be that; give"
    ):
        ram_blocks(GUEST, mappings)


def test_what_qemu_told_must_be_there() -> None:
    guest = QemuGuest(7, "a", (), (RamBlock("pc.ram", 0, 64 * MIB),))
    assert ram_blocks(guest, [mapping(0, 32), mapping(32, 70)]) == list(guest.blocks)
    with pytest.raises(
        OSError, match=r"its block pc.ram at 0x0 has 67,108,864 bytes, of which process 7 maps 33,554,432"
    ):
        ram_blocks(guest, [mapping(0, 32), mapping(32, 70, "---p")])


def ram(qemu: Qemu) -> str:
    """What the kernel says of the guest's RAM: how much of it is there, and whether it was referenced."""
    (block,) = ram_blocks(find_guest(str(qemu.pid)), qemu.mappings())
    smaps = Path(f"/proc/{qemu.pid}/smaps").read_text()
    return smaps[smaps.index(f"{block.start:x}-") :].split("VmFlags")[0]


@pytest.mark.qemu
def test_asking_changes_nothing(start: Callable[..., Qemu], capfd: pytest.CaptureFixture[str]) -> None:
    qemu = start("-m", "32M", "-name", "still")
    before = ram(qemu)
    assert guest_at(qemu.qmp) == guest_at(qemu.qmp)
    assert ram(qemu) == before
    assert qemu.process.poll() is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.qemu
def test_a_socket_that_others_hold(
    start: Callable[..., Qemu], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(qmp, "_PATIENCE", 0.3)
    qemu = start("-m", "32M")
    others = [socket.socket(socket.AF_UNIX)]
    try:
        others[0].connect(qemu.qmp)
        assert b"QMP" in others[0].recv(1000)
        with pytest.raises(OSError, match=rf"no answer in 0.3 s; .* one client at a time, .* is qemu:{qemu.pid}$"):
            guest_at(qemu.qmp)
        for _ in range(10):
            others.append(socket.socket(socket.AF_UNIX))
            others[-1].setblocking(False)
            others[-1].connect_ex(qemu.qmp)
        with pytest.raises(OSError, match=r"more clients wait for this socket than it takes; .* one client at a time"):
            guest_at(qemu.qmp)
    finally:
        for other in others:
            other.close()
    monkeypatch.undo()
    assert qemu.answers(), "QEMU has taken leave of them all"
    assert guest_at(qemu.qmp).pid == qemu.pid
    assert capfd.readouterr() == ("", "")


@pytest.mark.qemu
def test_another_monitor(start: Callable[..., Qemu], capfd: pytest.CaptureFixture[str]) -> None:
    qemu = start("-m", "32M")
    with pytest.raises(OSError, match=f"qemu:{qemu.monitor}: does not answer as QMP does: "):
        guest_at(qemu.monitor)
    assert capfd.readouterr() == ("", "")


def test_who_is_no_qemu(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        with pytest.raises(OSError, match=f"qemu:{path}: is no QMP socket that can be used: Connection refused"):
            guest_at(path)
        server.listen()
        with pytest.raises(OSError, match=rf"who opened this socket [(]process {os.getpid()}[)] is no QEMU"):
            guest_at(path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.touch(), lambda path: path.mkdir()])
def test_what_is_no_socket(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "socket")
    with pytest.raises(OSError, match=r"is no QMP socket that can be used: (No such file|Connection refused)"):
        guest_at(str(tmp_path / "socket"))
    with pytest.raises(OSError, match=r"is no QMP socket that can be used: AF_UNIX path too long"):
        guest_at("/" + "x" * 200)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qemu.qmp", None)
    with pytest.raises(OSError, match=r"not installed: pip install 'pagedup\[qemu\]'"):
        guest_at("/some/socket")


def answer_as_qemu(server: socket.socket, answers: dict[str, object]) -> None:
    """One client's QMP session with these answers, by the command or the line of the other monitor."""
    connection, _ = server.accept()
    with connection:
        connection.sendall(
            b'{"QMP": {"version": {"qemu": {"major": 9, "minor": 0, "micro": 0}}, "capabilities": []}}\n'
        )
        while line := connection.recv(10_000):
            command = json.loads(line)
            what = command.get("arguments", {}).get("command-line", command["execute"])
            answer = {"return": answers.get(what, {}), "id": command.get("id")}
            connection.sendall(json.dumps(answer).encode() + b"\n")


TREE = """
FlatView #0
 AS "I/O", root: io
  0000000000000000-0000000001ffffff (prio 0, ram): b @0000000000000100

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): b KVM
  0000000000100000-0000000000ffffff (prio 0, ram): b @0000000000100000 KVM
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios KVM
"""
TOLD: dict[str, object] = {
    "query-status": {"status": "running"},
    "query-memdev": [{"id": "b", "size": 16 * MIB}, {"id": "unused", "size": MIB}, {"size": 5}],
    "info mtree -f": TREE,
    "gpa2hva 0x100000": "Host virtual address for 0x100000 (b) is 0x7f0000100000\r\n",
}


def test_an_answer_with_more_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As QEMU tells it under KVM, in several address spaces."""
    guest = told(tmp_path, monkeypatch, TOLD)
    assert guest.blocks == (RamBlock("b", 0x7F0000000000, 0x7F0000000000 + 16 * MIB),)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("query-status", {}),
        ("query-status", "running"),
        ("query-name", []),
        ("query-memdev", [{}]),
        ("query-memdev", {}),
        ("query-memdev", [{"id": "b", "size": "16M"}]),
        ("info mtree -f", ""),
        ("info mtree -f", {}),
        ("info mtree -f", "FlatView #1\n nothing that is known\n"),
        ("gpa2hva 0x100000", "No memory is mapped at address 0x100000"),
        ("gpa2hva 0x100000", "Host virtual address for 0x100000 (c) is 0x7f0000100000"),
        ("gpa2hva 0x100000", 5),
    ],
)
def test_an_answer_that_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, answer: object
) -> None:
    with pytest.raises(OSError, match=f"qemu:{tmp_path}/socket: QEMU answers in a form that is not known: "):
        told(tmp_path, monkeypatch, {**TOLD, command: answer})


def told(folder: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, object]) -> QemuGuest:
    """What is made of these answers."""
    monkeypatch.setattr(qmp, "guest_of", lambda pid: QemuGuest(pid, "", ()))
    path = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        thread = threading.Thread(target=answer_as_qemu, args=(server, answers))
        thread.start()
        try:
            return guest_at(path)
        finally:
            thread.join()
