"""What simulated hosts give for each published figure: small hosts, few guests, and what is read off them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from msgspec.structs import replace

from benchmarks.host_figures import HOST_FIGURES
from pagedup.guests import GuestSpec, generate, preset
from pagedup.host.host import Host
from pagedup.host.hypervisors import Esxi, HostPolicy, HostView, HyperV, Kvm
from pagedup.host.hypervisors.large_breaks import LargeBreaks
from pagedup.host.hypervisors.memory_states import MemoryStates, min_free
from pagedup.host.result import Sample
from pagedup.host.scenario import DynamicMemory, GuestSet, Machine, Phase
from pagedup.memory.layouts import PAGE, Layout
from pagedup.sharing import FramePool, Ksm

Values = dict[str, float]
"""By the key of a figure, in its unit."""

_GIB = 1 << 30
_MINUTE, _HOUR = 60.0, 3600.0
_TICK = 10.0
_PAGES_IN_MIB = (1 << 20) // PAGE


def simulate(seed: int, keys: Sequence[str] | None = None) -> Values:
    """The values of all figures, or of these."""
    wanted = [figure.key for figure in HOST_FIGURES] if keys is None else keys
    values: Values = {}
    for host, told in _TOLD.items():
        if set(told) & set(wanted):
            values |= host(seed)
    return {key: values[key] for key in wanted}


# --- hosts ------------------------------------------------------------------------------------------------------------


class _Start(NamedTuple):
    """A guest, and the second in which it is started."""

    at: float
    layout: Layout
    settings: GuestSet


def _starts(layouts: Sequence[Layout], *, every: float = 0.0, phases: Sequence[Phase] = (Phase(),)) -> list[_Start]:
    settings = GuestSet(layout="made here", phases=tuple(phases))
    return [_Start(number * every, layout, settings) for number, layout in enumerate(layouts)]


def _steps(host: Host, starts: Sequence[_Start], seconds: float) -> Iterator[None]:
    """Run the host for so long; after each step it is the caller's turn to look."""
    coming = list(starts)
    while host.now < seconds:
        while coming and coming[0].at <= host.now:
            one = coming.pop(0)
            host.start(one.layout, one.settings)
        host.step(_TICK)
        yield


def _run(host: Host, starts: Sequence[_Start], seconds: float) -> list[Sample]:
    for _ in _steps(host, starts, seconds):
        pass
    return host.watch.samples


def _desktops(n: int, seed: int, *, hours: float) -> list[Layout]:
    """Windows 7, of 2 GiB, so many hours after they were started."""
    return generate(replace(preset("windows-7-x86"), hours=hours), n, seed)


# --- KSM --------------------------------------------------------------------------------------------------------------


def _ksm(seed: int) -> Values:
    """On 1 GiB, a tenth of it zero and half of it copies, mixed."""
    pages = _GIB // PAGE
    rng = np.random.default_rng(seed)
    names = np.arange(1, pages + 1, dtype=np.uint64)
    zeros, copies, others = np.split(rng.permutation(pages), [pages // 10, pages * 6 // 10])
    names[zeros] = 0
    names[copies] = names[rng.choice(others, len(copies))]
    policy = Ksm()
    sleep = policy.sleep_millisecs / 1000
    saved = [0]
    with FramePool(pages + 1, 8, policy=policy) as pool:
        pool.add_guest(pages).write(np.arange(pages), names)
        while pool.scan_counts().full_scans < 3:
            pool.scan(sleep)
            saved.append(pool.scan_counts().pages_sharing)
    first = sleep * int(np.argmax(np.array(saved) > 0))
    return {"ksm-first": first, "ksm-not-before": first, "ksm-all": sleep * saved.index(saved[-1])}


def _zero_pages(seed: int) -> Values:
    policy = Kvm().sharing(Machine(memory=_GIB), seed)
    with FramePool(1001, 8, policy=policy) as pool:
        pool.add_guest(1000).write(np.arange(1000), np.zeros(1000, np.uint64))
        for _ in range(3):
            pool.scan(math.inf)
        return {"ksm-zero": pool.counts().in_use}


# --- ESXi -------------------------------------------------------------------------------------------------------------


def _large_pages(seed: int) -> Values:
    """Four guests that leave enough free, and three quarters of an hour later a fifth one."""
    machine = Machine(memory="12 GiB", swap="12 GiB")
    late = 45 * _MINUTE
    *first, last = _starts(_desktops(5, seed, hours=0))
    before, zero, began = 0, 0, math.inf
    with Host(machine, Esxi(share_force_salting=0), seed=seed) as host:
        for _ in _steps(host, [*first, last._replace(at=late)], late + 30 * _MINUTE):
            counts = host.pool.counts()
            if host.now <= late:
                before = max(before, counts.pages_sharing)
                zero = max(zero, counts.zero_pages)
            if math.isinf(began) and counts.pages_sharing + counts.zero_pages:
                began = 100 * (host.capacity - counts.pages_present) * PAGE / min_free(12 * _GIB)
        after = host.pool.counts().pages_sharing
    return {
        "large-before": before / _PAGES_IN_MIB,
        "large-zero": zero / _PAGES_IN_MIB,
        "large-when": began,
        "large-after": after / _PAGES_IN_MIB,
    }


class _BreaksLast(Esxi, frozen=True, kw_only=True, tag="esxi-breaks-last"):
    """ESXi that breaks large pages after all else: what balloons and swap leave missing below the state hard."""

    def policies(self, host: HostView) -> Sequence[HostPolicy]:
        """See Hypervisor."""
        others = [policy for policy in super().policies(host) if not isinstance(policy, LargeBreaks)]
        return [*others, LargeBreaks(host, MemoryStates(host, [self.hard_pct, self.low_pct], self.hysteresis))]


_Device = Literal["disk", "ssd"]


class _Felt(NamedTuple):
    """What guests felt of one order of means: slowdowns at work and in the scan, and pages that were taken."""

    work: float
    scan: float
    taken: int


_EVERY, _QUIET, _SCAN = 10 * _MINUTE, 15 * _MINUTE, 10 * _MINUTE


def _felt(hypervisor: Esxi, device: _Device, layouts: Sequence[Layout], seed: int) -> _Felt:
    """Guests start one after the other; some time later a virus scan goes through all that each of them holds."""
    starts = _starts(layouts, every=_EVERY)
    scan = starts[-1].at + _QUIET
    machine = Machine(memory="7 GiB", swap="8 GiB", device=device)
    scanning = [
        one._replace(
            settings=replace(
                one.settings, phases=(Phase(), Phase(name="scan", start=(scan - one.at) / _HOUR, burst="2 GiB"))
            )
        )
        for one in starts
    ]
    with Host(machine, hypervisor, seed=seed) as host:
        samples = _run(host, scanning, scan + _SCAN)
    return _Felt(
        work=_mean([each.slowdown for each in samples if scan - _QUIET < each.time <= scan]),
        scan=_mean([each.slowdown for each in samples if each.time > scan]),
        taken=max(each.ballooned + each.compressed + each.swapped for each in samples),
    )


def _breaking(seed: int) -> Values:
    """On a disk as of 2008."""
    early, late = _felt_of_both("disk", seed)
    return {"early-reclaimed": _percent(early.taken, late.taken), "early-disk": late.scan / early.scan}


def _breaking_ssd(seed: int) -> Values:
    early, late = _felt_of_both("ssd", seed)
    return {"early-ssd": late.scan / early.scan, "early-work": late.work / early.work}


def _felt_of_both(device: _Device, seed: int) -> tuple[_Felt, _Felt]:
    layouts = _desktops(4, seed, hours=2)
    early, late = Esxi(share_force_salting=0), _BreaksLast(share_force_salting=0)
    return _felt(early, device, layouts, seed), _felt(late, device, layouts, seed)


def _coverage(seed: int) -> Values:
    return {f"cover-{gib}": _looked_at(gib, seed) for gib in (16, 12)}


def _looked_at(gib: int, seed: int) -> float:
    """The share of an idle guest's pages that the scanner comes by in an hour, once the guest has booted."""
    (layout,) = generate(replace(preset("windows-server"), memory=f"{gib} GiB", hours=0), 1, seed)
    machine = Machine(memory=f"{gib + 8} GiB", swap=f"{gib} GiB")
    with Host(machine, Esxi(), large_pages=False, seed=seed) as host:
        _run(host, _starts([layout], phases=[Phase(touches=0)]), 2 * _MINUTE)
        before = host.pool.scan_counts().pages_scanned
        host.run(_HOUR)
        return _percent(host.pool.scan_counts().pages_scanned - before, layout.n_pages)


_UNLIKE = ("windows-xp", "windows-7-x64", "windows-10", "debian-server", "debian-desktop", "windows-server")


def _bands(seed: int) -> Values:
    """In small pages, once the scanner has been everywhere; memory is not short."""
    debian = _caught_up(preset("debian-server"), 6, "6 GiB", seed)
    windows = _caught_up(replace(preset("windows-7-x86"), hours=0), 5, "16 GiB", seed)
    unlike = _caught_up([replace(preset(name), hours=24) for name in _UNLIKE], 1, "32 GiB", seed)
    return {
        "near-debian": _saved_not_zero(debian),
        "near-windows": _saved_not_zero(windows),
        "near-windows-zero": _percent(windows.saved, windows.present),
        "diverse": _saved_not_zero(unlike),
        "diverse-zero": _percent(unlike.saved, unlike.present),
    }


def _caught_up(specs: GuestSpec | Sequence[GuestSpec], count: int, memory: str, seed: int) -> Sample:
    machine = Machine(memory=memory, swap=memory)
    with Host(machine, Esxi(share_force_salting=0), large_pages=False, seed=seed) as host:
        return _run(host, _starts(generate(specs, count, seed)), 65 * _MINUTE)[-1]


def _saved_not_zero(sample: Sample) -> float:
    return _percent(sample.saved_equal, sample.present - sample.saved_zero)


# --- Hyper-V ----------------------------------------------------------------------------------------------------------


def _hyperv(seed: int) -> Values:
    """Guests that keep 128 MiB at the least: six of eight fit at the most."""
    rng = np.random.default_rng(seed)
    starts = _starts(generate(preset("windows-xp"), 8, seed), every=2 * _MINUTE)
    starts = [
        one._replace(settings=replace(one.settings, dynamic_memory=DynamicMemory(startup=startup, minimum="128 MiB")))
        for one, startup in zip(starts, (rng.integers(128, 385, len(starts)) << 20).tolist(), strict=True)
    ]
    most = 0
    with Host(Machine(memory="768 MiB"), HyperV(), seed=seed) as host:
        for _ in _steps(host, starts, _HOUR / 2):
            most = max(most, host.held)
        return {"hyperv-held": _percent(most, host.capacity), "hyperv-refused": len(host.refused)}


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


_TOLD: dict[Callable[[int], Values], tuple[str, ...]] = {
    _ksm: ("ksm-first", "ksm-not-before", "ksm-all"),
    _zero_pages: ("ksm-zero",),
    _large_pages: ("large-before", "large-zero", "large-when", "large-after"),
    _breaking: ("early-reclaimed", "early-disk"),
    _breaking_ssd: ("early-ssd", "early-work"),
    _coverage: ("cover-16", "cover-12"),
    _bands: ("near-debian", "near-windows", "near-windows-zero", "diverse", "diverse-zero"),
    _hyperv: ("hyperv-held", "hyperv-refused"),
}
"""Which figures a host tells, so that no more is simulated than was asked for."""
