"""All runs of a scenario: each hypervisor by itself, on the same host, with the same guests."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pagedup.guests import GuestSpec, generate, preset, preset_names, read_spec
from pagedup.guests.spec import SpecError, size_of
from pagedup.host.host import Host
from pagedup.host.result import Run, Simulation
from pagedup.host.side_by_side import Progress, side_by_side
from pagedup.host.trace import Trace
from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagedup.host.hypervisors import Hypervisor
    from pagedup.host.result import Sample
    from pagedup.host.scenario import GuestSet, Scenario
    from pagedup.memory.layouts import Layout

_CAUGHT_UP = 0.95  # of the most that sharing saves
_STEPS = 16  # between two reports of progress


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the combinations that a scenario asks for."""

    hypervisor: Hypervisor
    large_pages: bool
    aslr: bool

    def __str__(self) -> str:
        pages, aslr = "large" if self.large_pages else "small", "on" if self.aslr else "off"
        return f"{self.hypervisor.title}, {pages} pages, ASLR {aslr}"


@dataclass(frozen=True, slots=True)
class _Due:
    """A guest, and when it is to be started."""

    at: float
    layout: Layout
    settings: GuestSet
    cache: float


def simulate(
    scenario: Scenario, *, folder: str = ".", processes: int = 1, progress: Progress | None = None
) -> Simulation:
    """Run the scenario under each of its hypervisors, with large pages or not, with ASLR or not.

    folder: what paths in the scenario are relative to. processes: how many runs are under way at a time; if several,
    each in a child of its own (os.fork). progress(what, done, total) is called now and then. The same scenario gives
    the same result, but for `seconds`. A run takes some 45 bytes a page of the host and 12 a page of its guests.

    Raises SpecError, which names the field, for a scenario that cannot start; OSError and ValueError for a trace that
    cannot be read, or names what is not there; ChildProcessError if a child is killed.
    """
    specs = [guest_spec(scenario, number, folder) for number in range(len(scenario.guests))]
    ways = [
        _Way(hypervisor, large_pages, aslr)
        for aslr in scenario.aslr
        for hypervisor in scenario.hypervisors
        for large_pages in scenario.large_pages
    ]
    due = _guests(scenario, specs, ways[0].aslr, progress)
    trace = str(Path(folder) / scenario.trace) if scenario.trace else ""
    if trace:
        Trace(trace, [one.layout.n_pages for one in due])
    for number, hypervisor in enumerate(scenario.hypervisors):
        _require_a_start(scenario, number, hypervisor, due)
    runs: list[Run] = []
    for aslr in scenario.aslr:
        if aslr != scenario.aslr[0]:
            due = _guests(scenario, specs, aslr, progress)
        calls = [partial(_run, scenario, way, due, trace) for way in ways if way.aslr == aslr]
        runs += side_by_side(calls, processes, progress)
    return Simulation(
        scenario=scenario.name,
        seed=scenario.seed,
        hours=scenario.hours,
        guests=len(due),
        memory=size_of(scenario.host.memory, "host.memory"),
        cores=scenario.host.cores,
        promised=sum(one.layout.n_pages for one in due) * PAGE,
        runs=runs,
    )


def guest_spec(scenario: Scenario, number: int, folder: str) -> GuestSpec:
    """What guests of a set are made of: what the layout says, of as many hours as the scenario has."""
    guests = scenario.guests[number]
    try:
        if guests.layout in preset_names():
            spec = preset(guests.layout)
        elif guests.layout.endswith(".toml"):
            spec = read_spec(str(Path(folder) / guests.layout))
        else:
            spec = preset(guests.layout)  # which says what there is
    except SpecError as error:
        raise SpecError(f"guests[{number}].layout: {error}") from None
    except OSError as error:
        raise SpecError(f"guests[{number}].layout: {error.filename}: {error.strerror}") from None
    return msgspec.structs.replace(spec, guests=guests.count or spec.guests, hours=scenario.hours, churn=0.0)


def _guests(
    scenario: Scenario, specs: Sequence[GuestSpec], aslr: bool, progress: Progress | None
) -> list[_Due]:
    """All guests in the order in which they are started."""
    own = [spec if aslr else msgspec.structs.replace(spec, aslr=False) for spec in specs]
    layouts = iter(generate(own, None, scenario.seed, progress=progress))
    due = [
        _Due(guests.start + number * guests.every, next(layouts), guests, _cache_at_first(spec))
        for guests, spec in zip(scenario.guests, specs, strict=True)
        for number in range(spec.guests)
    ]
    return sorted(due, key=lambda one: one.at)


def _cache_at_first(spec: GuestSpec) -> float:
    """The share of the file cache that is there when the guest has booted."""
    size = size_of(spec.file_cache.size, "file_cache.size")
    grown = size_of(spec.file_cache.growth, "file_cache.growth") * spec.hours
    return size / (size + grown) if grown else 1.0


def _require_a_start(scenario: Scenario, number: int, hypervisor: Hypervisor, due: Sequence[_Due]) -> None:
    """SpecError if the hypervisor would start no guest."""
    with Host(scenario.host, hypervisor) as host:
        if not any(host.start(one.layout, settings) for settings in scenario.guests for one in _first(due, settings)):
            raise SpecError(
                f"hypervisors[{number}]: {hypervisor.title} can start none of the guests: host.memory, or what it"
                " needs beside that (esxi: host.swap for memory that is not reserved; hyperv: dynamic_memory.startup)"
            )


def _first(due: Sequence[_Due], settings: GuestSet) -> list[_Due]:
    return [one for one in due if one.settings is settings][:1]


def _run(scenario: Scenario, way: _Way, due: Sequence[_Due], trace: str, progress: Progress | None) -> Run:
    began = time.perf_counter()
    accesses = Trace(trace, [one.layout.n_pages for one in due]) if trace else None
    seconds = scenario.hours * 3600
    steps = math.ceil(seconds / scenario.tick - 1e-9)
    with Host(
        scenario.host,
        way.hypervisor,
        large_pages=way.large_pages,
        compressible=scenario.compressible,
        costs=scenario.costs,
        seed=scenario.seed,
    ) as host:
        coming = list(reversed(due))
        for step in range(steps):
            begin, end = step * scenario.tick, min((step + 1) * scenario.tick, seconds)
            while coming and coming[-1].at <= begin:
                one = coming.pop()
                host.start(one.layout, one.settings, cache=one.cache, growth=seconds)
            if accesses is not None:
                _play(host, accesses, end)
            host.step(end - begin)
            if progress is not None and not step % _STEPS:
                progress(str(way), step, steps)
        if progress is not None:
            progress(str(way), steps, steps)
        return _report(host, way, time.perf_counter() - began)


def _play(host: Host, accesses: Trace, until: float) -> None:
    """Recorded accesses of guests that run."""
    running = {guest.number: guest for guest in host.guests}
    for number, (gpns, writes) in accesses.take(until).items():
        if number in running:
            host.access(running[number], gpns, writes)


def _report(host: Host, way: _Way, seconds: float) -> Run:
    watch = host.watch
    watch.look(at_end=True)
    most = max((sample.saved for sample in watch.samples), default=0)
    return Run(
        hypervisor=way.hypervisor.kind,
        name=way.hypervisor.title,
        large_pages=way.large_pages,
        aslr=way.aslr,
        capacity=host.capacity,
        started=len(host.guests),
        refused=len(host.refused),
        fits=_fits(host, watch.samples[-1]),
        slowdown=watch.slowdown,
        worst=watch.worst,
        worst_guest=watch.worst_guest,
        caught_up=_caught_up(watch.samples, most),
        most_saved=most,
        counts={str(what): times for what, times in watch.counts().items()},
        guest_seconds={str(what): waited for what, waited in watch.waited().items()},
        scan_seconds=host.scan_seconds,
        tlb_seconds=watch.tlb_seconds,
        accesses=host.accesses,
        samples=watch.samples,
        victims=host.paged_out.victims(),
        lost=[f"guest {lost.guest}, page {lost.gpn}: {lost.why}" for lost in host.pager.lost],
        seconds=seconds,
    )


def _fits(host: Host, last: Sample) -> int:
    """How many guests such as these would have all that they use in memory, as densely as it is stored now."""
    used = last.held - last.cache + last.compressed + last.swapped + last.guest_swapped
    return host.capacity * last.guests // used if used else 0


def _caught_up(samples: Sequence[Sample], most: int) -> float | None:
    return next((sample.time for sample in samples if most and sample.saved >= _CAUGHT_UP * most), None)
