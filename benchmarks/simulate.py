"""Measurements of simulated hosts: the desktops for a working day, and a host on which nothing changes."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterator

import numpy as np
from msgspec.structs import replace

import dedupcore
from benchmarks.measure import Outcome, rounds_of
from benchmarks.settings import Settings
from pagedup.host import Esxi, GuestSet, Host, HyperV, Kvm, Machine, Phase, scenario_preset
from pagedup.host import simulate as simulate_scenario
from pagedup.memory.layouts import Layout, LayoutRegion, RegionKind

_SECONDS, _BYTES = 20.0, 4e9  # of a hypervisor
_SMALL, _LARGE = 1 << 16, 1 << 20  # pages of a guest
_TICKS = 32
_PAGE = 4096


def simulate(settings: Settings) -> Iterator[Outcome]:
    """Whole hosts: the scenario vdi-50 under each of its hypervisors, and a tick in which nothing happens."""
    yield from _desktops(settings)
    for hypervisor in (Esxi(), Kvm(), HyperV()):
        settings.say(f"idle ticks under {hypervisor.title}")
        with _idle(hypervisor, _SMALL) as small, _idle(hypervisor, _LARGE) as large:
            times = rounds_of(
                {"small": lambda: small.run(10.0 * _TICKS), "large": lambda: large.run(10.0 * _TICKS)}, settings.rounds
            )
        yield Outcome(
            "simulate",
            f"a tick when nothing changed, {hypervisor.title}: with 256 MiB a guest / 4 GiB",
            [each["small"] / each["large"] for each in times],
            0.5,
            note=f"{min(each['large'] for each in times) / _TICKS * 1e6:.0f} us a tick of 10 s, eight guests",
        )


def _desktops(settings: Settings) -> Iterator[Outcome]:
    settings.say("vdi-50 under each hypervisor, some minutes")
    scenario = scenario_preset("vdi-50")
    hours = scenario.hours / (16 if settings.quick else 1)
    scenario = replace(scenario, large_pages=(True,), aslr=(True,), hours=hours)
    processes = min(2, dedupcore.available_threads())
    begin = time.perf_counter()
    found = simulate_scenario(scenario, processes=processes)
    seconds = (time.perf_counter() - begin) / len(found.runs)
    if processes == 2:
        each = ", ".join(f"{run.name} {run.seconds:.0f} s" for run in found.runs)
        what = f"vdi-50, {scenario.hours:g} hours, two runs side by side: 20 s / time for each hypervisor"
        yield Outcome("simulate", what, [_SECONDS / seconds], 1, note=f"{seconds:.0f} s; each by itself: {each}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if processes > 1 else resource.RUSAGE_SELF).ru_maxrss * 1024
    yield Outcome("simulate", "memory of a run: 4 GB / peak", [_BYTES / peak], 1, note=f"{peak / 1e9:.2f} GB")


def _idle(hypervisor: Esxi | Kvm | HyperV, pages: int) -> Host:
    """Eight guests that do nothing, of that many pages, half of them zero; all of it was shared that can be."""
    regions = np.zeros(pages, np.uint8)
    table = (LayoutRegion(RegionKind.HEAP),)
    host = Host(Machine(memory=16 * pages * _PAGE, swap=16 * pages * _PAGE), hypervisor, large_pages=False)
    for number in range(8):
        names = np.arange(1, pages + 1, dtype=np.uint64) + np.uint64(number << 32)
        names[::2] = 0
        layout = Layout(f"vm-{number}", names, regions, table, np.array([[0, pages]], np.uint64), "bench")
        host.start(layout, GuestSet(layout="made here", boot=5, phases=(Phase(touches=0),)))
    host.run(30.0)
    for _ in range(3):
        if host.pool.policy is not None:
            host.pool.scan(math.inf)
    host.run(30.0)
    return host
