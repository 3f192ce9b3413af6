"""A host as a simulator uses it: its clock, its accesses, and what happens when swap fails it."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagedup.guests.spec import SpecError
from pagedup.host import Esxi, GuestSet, Host, HyperV, Kvm, Machine, Operation, PageLost, Phase, Scenario, simulate
from pagedup.host.result import Run
from pagedup.host.trace import save_trace
from tests.host_guests import of_sizes

PAGE = 4096
IDLE = GuestSet(layout="made here", boot=5, phases=(Phase(touches=0),))
BUSY = GuestSet(layout="made here", boot=5, phases=(Phase(touches=20, working_set=1.0, zipf=0.0),))


def machine(frames: int, swap: int = 4000) -> Machine:
    return Machine(memory=frames * PAGE, swap=swap * PAGE)


def pages(*numbers: int) -> Any:
    return np.array(numbers, np.uint32)


def test_memory_is_given_at_the_first_write() -> None:
    with Host(machine(3000), Kvm(), large_pages=False) as host:
        guest = host.start(of_sizes(1, heap=100, free=1900), IDLE)
        other = host.start(of_sizes(2, heap=100, free=1900), IDLE)
        assert guest is not None and other is not None and host.held == 0
        host.step(10)
        present = [guest.pool.present, other.pool.present]
        assert sum(present) <= host.held <= 3000 and sum(present) + guest.pool.out + other.pool.out == 4000
        assert host.now == 10 and guest.ledger.counts[Operation.FIRST_TOUCH] > 0


def test_accesses() -> None:
    """They are done in order, what is written can be read, and absent pages stay absent when they are read."""
    with Host(machine(1000), Kvm(), large_pages=False) as host:
        guest = host.start(of_sizes(1, heap=10, absent=90), IDLE)
        assert guest is not None
        host.step(10)
        writes = np.array([True, False, True])
        names = np.array([7, 8], np.uint64)
        assert host.access(guest, pages(50, 60, 50), writes, names) == 3 == host.accesses
        out = np.empty(2, np.uint64)
        host.pager.read(guest.pool, pages(50, 60), out)
        assert out.tolist() == [8, 0] and guest.pool.present == 11
        assert host.access(guest, pages(1, 2), np.array([True, True])) == 2, "what is nowhere else"
        host.pager.read(guest.pool, pages(1, 2), out)
        assert len({*out.tolist(), *guest.memory.layout.names.tolist()}) > len(guest.memory.layout.names) - 90
        with pytest.raises(ValueError, match="100 pages"):
            host.access(guest, pages(100), np.array([False]))
        with pytest.raises(ValueError, match="writes"):
            host.access(guest, pages(1), np.array([False, True]))


def test_without_swap_guests_wait() -> None:
    """A host that has nothing left blocks them; that takes their time, and is told."""
    with Host(machine(150, swap=0), Kvm(), large_pages=False) as host:
        guest = host.start(of_sizes(1, heap=200, absent=100), IDLE)
        assert guest is not None
        host.step(10)
        assert guest.pool.present == 150 and guest.ledger.by_operation[Operation.BLOCKED] == 10
        assert host.access(guest, pages(0, 1, 250, 2), np.ones(4, np.bool_)) == 2
        host.watch.look(at_end=True)
        assert host.watch.worst > 1.5 and host.watch.worst_guest == guest.name


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(SpecError, match=r"host\.kept is 1 GiB; it must be less than host\.memory, 1 GiB"):
        Host(Machine(memory="1 GiB", kept="1 GiB"), Kvm())
    with pytest.raises(ValueError, match="frame_size is 512; it must be 8 or 4096"):
        Host(machine(10), Kvm(), frame_size=512)
    with Host(machine(10), Kvm()) as host:
        for seconds in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=r"it must be more than 0"):
                host.step(seconds)


def test_who_is_refused_never_runs() -> None:
    with Host(machine(1000), HyperV(), large_pages=False) as host:
        settings = replace_memory(IDLE, 600)
        first, second = (host.start(of_sizes(number, heap=800), settings) for number in (1, 2))
        assert first is not None and second is None and host.refused == ["vm-2"] and host.guests == [first]
        host.run(60)
        assert host.held <= 1000 and second is None and len(host.watch.samples) == 1


def replace_memory(settings: GuestSet, pages: int) -> GuestSet:
    from msgspec.structs import replace as changed

    return changed(settings, dynamic_memory=changed(settings.dynamic_memory, startup=pages * PAGE, minimum=PAGE))


def thrashing(**more: Any) -> Host:
    """A host of bytes, whose guests have twice its memory, and use all of it."""
    host = Host(machine(200, swap=1000), Kvm(thres_const=0), large_pages=False, frame_size=PAGE, **more)
    for number in (1, 2):
        assert host.start(of_sizes(number, heap=200), BUSY) is not None
    host.run(60, tick=5)
    return host


def swap_file() -> int:
    """The largest file without a name that this process has open."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            if "(deleted)" in os.readlink(f"/proc/self/fd/{each}"):
                found.append(int(each))
    return max(found, key=lambda each: os.fstat(each).st_size)


def test_swap_is_a_file_that_nobody_else_can_open() -> None:
    with thrashing() as host:
        assert host.pager.counts().pages_swapped > 150
        told = os.fstat(swap_file())
        assert told.st_size >= 150 * PAGE and told.st_mode & 0o777 == 0o600 and not told.st_nlink
        for guest in host.guests:
            out = np.empty((200, PAGE), np.uint8)
            host.pager.read(guest.pool, np.arange(200, dtype=np.uint32), out)
            assert out.any(axis=1).all()
            host.pool.check()


def test_a_page_that_is_lost_stops_its_guest() -> None:
    """Never read as anything else: the host says which page, and the other guest goes on."""
    with thrashing() as host:
        assert host.pager.swap is not None and not host.stopped
        with open(f"/proc/self/fd/{swap_file()}", "r+b") as file:  # root could; O_DIRECT would want it aligned
            file.write(b"x" * os.fstat(file.fileno()).st_size)
        victim = host.guests[0]
        out = np.flatnonzero(victim.pool.page_table == 2**32 - 1)[:5].astype(np.uint32)
        with pytest.raises(PageLost, match="guest 0"):
            host.access(victim, out, np.zeros(5, np.bool_))
        assert {lost.gpn for lost in host.pager.lost} == set(out.tolist())
        before = victim.ledger.seconds
        host.run(60)
        assert victim in host.stopped and victim.ledger.seconds - before >= 50
        host.pool.check()


# --- whole scenarios ----------------------------------------------------------------------------------------------

SPEC = """
system = "linux"
memory = "8 MiB"
guests = 2
kernel = { data = "1 MiB" }
[[processes]]
name = "office"
heap = "4 MiB"
"""


def scenario(folder: Path, **changes: Any) -> Scenario:
    (folder / "guest.toml").write_text(SPEC)
    guests = (GuestSet(layout="guest.toml", every=10, boot=10, phases=(Phase(touches=50),)),)
    usual = {"hours": 0.05, "host": Machine(memory="12 MiB", swap="32 MiB"), "guests": guests}
    return Scenario(**{**usual, "hypervisors": (Kvm(), Esxi()), **changes})


def without_seconds(runs: Any) -> list[Run]:
    return [replace(run, seconds=0.0) for run in runs]


def test_side_by_side_is_as_one_after_the_other(tmp_path: Path) -> None:
    both = scenario(tmp_path, aslr=(True, False), large_pages=(True, False))
    told: list[tuple[str, int, int]] = []
    one = simulate(both, folder=str(tmp_path), progress=lambda *what: told.append(what))
    phases = [what for what, done, total in told if done == total]
    assert len(one.runs) == 8 and phases.count("generating") == 2 and "kvm, small pages, ASLR off" in phases
    again: list[tuple[str, int, int]] = []
    two = simulate(both, folder=str(tmp_path), processes=3, progress=lambda *what: again.append(what))
    assert without_seconds(one.runs) == without_seconds(two.runs) and sorted(told) == sorted(again)
    assert one.runs[0].samples != one.runs[2].samples


def test_traces_are_played(tmp_path: Path) -> None:
    still = scenario(tmp_path, guests=(GuestSet(layout="guest.toml", every=0, boot=10, phases=(Phase(touches=0),)),))
    save_trace(str(tmp_path / "trace.npy"), [20.0, 30.0, 170.0, 500.0], [0, 1, 1, 0], [5, 6, 7, 8], [1, 0, 1, 1])
    played = simulate(scenario_with(still, "trace.npy"), folder=str(tmp_path))
    assert [run.accesses for run in played.runs] == [3, 3], "the last one is after the end"
    assert simulate(still, folder=str(tmp_path)).runs[0].accesses == 0


def scenario_with(still: Scenario, trace: str) -> Scenario:
    from msgspec.structs import replace as changed

    return changed(still, trace=trace)


def test_a_trace_that_does_not_fit_is_refused_before_anything_runs(tmp_path: Path) -> None:
    save_trace(str(tmp_path / "trace.npy"), [1.0], [1], [2048], [False])
    with pytest.raises(ValueError, match=r"trace\.npy: record 0: gpn: 2048 is not in guest 1, which has 2,048 pages"):
        simulate(scenario(tmp_path, trace="trace.npy"), folder=str(tmp_path))
    with pytest.raises(FileNotFoundError):
        simulate(scenario(tmp_path, trace="none.npy"), folder=str(tmp_path))


def test_a_hypervisor_that_can_start_nothing_is_refused(tmp_path: Path) -> None:
    none = scenario(tmp_path, host=Machine(memory="12 MiB"))
    with pytest.raises(SpecError, match=r"hypervisors\[1\]: esxi can start none of the guests: .*host\.swap"):
        simulate(none, folder=str(tmp_path))


def test_a_child_that_is_killed_is_told_of(tmp_path: Path) -> None:
    def kill(what: str, done: int, total: int) -> None:
        if what.startswith("kvm") and not done:
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                os.kill(int(child), 9)

    with pytest.raises(ChildProcessError, match="-9"):
        simulate(scenario(tmp_path, hours=24), folder=str(tmp_path), processes=2, progress=kill)
