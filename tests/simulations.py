"""What simulations may find, made up on the spot: reports are pure functions of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pagedup.host.result import Run, Sample, Simulation, Victims
from pagedup.host.trade import POINTS, Curve, Trade

GIB = (1 << 30) // 4096
"""Pages."""


def sample(minute: int, **changes: Any) -> Sample:
    """Fifty desktops that fill 96 GiB within an hour, and are then compressed and swapped."""
    filled = min(minute / 60, 1.0)
    short = max(minute - 60, 0)
    usual = Sample(
        time=60.0 * minute,
        guests=50,
        state="high" if minute < 50 else "soft" if minute < 90 else "hard",
        promised=200 * GIB,
        present=int(120 * GIB * filled),
        in_use=int(90 * GIB * filled),
        held=int(92 * GIB * filled),
        saved_zero=int(10 * GIB * filled),
        saved_equal=int(20 * GIB * filled),
        ballooned=min(short, 60) * GIB // 2,
        given=min(short, 60) * GIB // 4,
        compressed=min(short, 20) * GIB // 10,
        swapped=short * GIB // 20,
        cache=min(short, 20) * GIB // 20,
        guest_swapped=short * GIB // 50,
        guest_dropped=short * GIB // 60,
        large=int(100 * GIB * (1 - filled)),
        slowdown=1.02 + short / 1000,
        worst=1.1 + short / 10,
    )
    return replace(usual, **changes)


VICTIMS = [
    Victims("kernel data", True, 1000, 900, 9.0),
    Victims("heap: office", True, 20_000, 15_000, 150.5),
    Victims("heap: office", False, 80_000, 1_000, 10.0),
    *(Victims(f"image text: dlls {i}", False, 500 - i, 10, 0.1) for i in range(8)),
]
ESXI = Run(
    hypervisor="esxi",
    name="ESXi, salting 0",
    large_pages=True,
    aslr=True,
    capacity=94 * GIB,
    started=50,
    refused=0,
    fits=63,
    slowdown=1.04,
    worst=13.1,
    worst_guest="vdi-50-17",
    caught_up=3240.0,
    most_saved=30 * GIB,
    counts={"first_touch": 31_457_280, "cow_break": 1_000_000, "swap_in": 17_000, "scan_hash": 500_000_000},
    guest_seconds={"first_touch": 62.9, "cow_break": 25.1, "swap_in": 1.7, "compress": 0.0},
    scan_seconds=2880.0,
    tlb_seconds=5000.0,
    accesses=432_000_000,
    samples=[sample(minute) for minute in range(1, 481)],
    victims=VICTIMS,
    lost=[],
    seconds=17.5,
)
HYPERV = replace(
    ESXI,
    hypervisor="hyperv",
    name="Hyper-V",
    started=24,
    refused=26,
    fits=24,
    slowdown=1.01,
    worst=1.01,
    worst_guest="",
    caught_up=None,
    most_saved=0,
    counts={"first_touch": 10_000_000},
    guest_seconds={"first_touch": 20.0},
    scan_seconds=0.0,
    tlb_seconds=1000.0,
    samples=[
        sample(
            minute, guests=24, state="", saved_zero=0, saved_equal=0, compressed=0, swapped=0, held=93 * GIB,
            slowdown=1.01, worst=1.01,
        )
        for minute in range(1, 481)
    ],
    victims=[],
)  # fmt: skip
NOT_STARTED = replace(
    HYPERV, name="Nothing", started=0, refused=50, fits=0, slowdown=1.0, worst=1.0, guest_seconds={}, counts={},
    tlb_seconds=0.0, accesses=0,
    samples=[
        sample(
            0, guests=0, state="", promised=0, present=0, in_use=0, held=0, saved_zero=0, saved_equal=0, ballooned=0,
            given=0, large=0, slowdown=1.0, worst=1.0,
        )
    ],
)  # fmt: skip


def simulation(*runs: Run, **changes: Any) -> Simulation:
    """Of these runs: fifty desktops of 4 GiB on a host of 96 GiB, for eight hours."""
    usual = Simulation(
        scenario="vdi-50", seed=7, hours=8.0, guests=50, memory=96 << 30, cores=16, promised=200 << 30, runs=runs
    )
    return replace(usual, **changes)


def all_ways(*runs: Run) -> Sequence[Run]:
    """Each of the runs with large pages and small, with ASLR and without."""
    either = (True, False)
    return [replace(run, large_pages=large, aslr=aslr) for run in runs for large in either for aslr in either]


KVM = replace(ESXI, name="KVM", hypervisor="kvm", fits=60, lost=["vm3, page 17: slot 5 is corrupt"])
WHOLE = simulation(ESXI, KVM, HYPERV)


def curve(order: str, saved: float, lost: float) -> Curve:
    """From all large pages to none: what is saved and lost grows to these."""
    large = np.linspace(1, 0, POINTS)
    return Curve(
        order=order,
        large=large,
        saved=saved * (1 - large),
        cycles=100 + 100 * (1 - large) ** 2,
        lost=lost * (1 - large) ** 2,
        net=2 * (1 - large) - 5 * (1 - large) ** 2,
    )


def trade_of(hypervisor: str, *policy: tuple[str, float], saved: float = 8.0 * 2**30) -> Trade:
    """Six guests of 24 GiB in all."""
    curves = [curve(order, saved, 0.04) for order in ("coldest first", "most equal first", "at random")]
    return Trade(hypervisor, "windows-7-x64", 6, 24 << 30, curves, policy)


TRADES = [
    trade_of("ESXi", ("while memory is enough", 1.0), ("when memory is short", 0.0)),
    trade_of("Hyper-V", ("always", 1.0), saved=0.0),
]
