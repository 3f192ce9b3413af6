"""Whole hosts, whatever they are made of: memory adds up, no guest reads what it did not write, a seed tells all."""

import errno
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pagedup.host.contents import content_of
from pagedup.host.guest import HostGuest
from pagedup.host.host import Host
from pagedup.host.hypervisors import Esxi, HyperV, Hypervisor, Kvm
from pagedup.host.page_use import Use
from pagedup.host.result import Sample
from pagedup.host.scenario import DynamicMemory, GuestSet, Machine, Phase
from pagedup.memory.layouts import ABSENT, Layout
from pagedup.sharing.frame_pool import OUT
from tests.host_guests import of_sizes

PAGE = 4096
SIZES = ("kernel_text", "kernel_data", "image_text", "heap", "file_cache", "free")
WRITTEN = 1 << 50  # names from here on are written by the test, and stand in no layout


class Step(NamedTuple):
    seconds: float


class Access(NamedTuple):
    """Of the guest of that number, modulo those that run: pages and writes by the seed."""

    guest: int
    n: int
    writes: float
    seed: int


class Start(NamedTuple):
    sizes: Sequence[int]
    reservation: int
    startup: int
    works: bool


HYPERVISORS: list[Hypervisor] = [
    Esxi(share_force_salting=0, sample_pages=10),
    Esxi(sample_pages=10, balloon_rate="64 KiB", mem_zip_max_pct=30.0),
    Esxi(ctl_max_percent=10.0, mem_zip_max_pct=0.0),
    Kvm(monitor_interval=5.0, thres_const=0.0, npages_max=2000, npages_boost=2000),
    Kvm(monitor_interval=5.0, thres_const=0.0, max_page_sharing=3, use_zero_pages=True, npages_boost=2000),
    HyperV(),
]

starts = st.builds(
    Start,
    st.lists(st.integers(0, 250), min_size=len(SIZES), max_size=len(SIZES)).filter(lambda sizes: sum(sizes) > 8),
    st.integers(0, 100),
    st.integers(1, 400),
    st.booleans(),
)
accesses = st.builds(
    Access,
    st.integers(0, 7),
    st.integers(1, 600),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 2**32 - 1),
)
steps = st.builds(Step, st.sampled_from([0.5, 3.0, 10.0, 60.0]))
events = st.lists(st.one_of(steps, accesses, starts), min_size=3, max_size=14)


class World:
    """A host, and what each guest that does nothing by itself must read."""

    def __init__(self, hypervisor: Hypervisor, frames: int, swap: int, large: bool, frame_size: int, seed: int) -> None:
        machine = Machine(memory=frames * PAGE, swap=swap * PAGE)
        self.host = Host(
            machine, hypervisor, large_pages=large, compressible=0.0, seed=seed, frame_size=frame_size
        )
        self.frame_size = frame_size
        self.expected: dict[HostGuest, dict[int, int]] = {}
        self.n_started = 0
        self.n_written = WRITTEN
        self.checked = 0

    def do(self, event: Step | Access | Start) -> None:
        if isinstance(event, Step):
            self.host.step(event.seconds)
        elif isinstance(event, Start):
            self.start(event)
        elif self.host.guests:
            self.access(self.host.guests[event.guest % len(self.host.guests)], event)
        self.check()

    def start(self, event: Start) -> None:
        self.n_started += 1
        layout = of_sizes(self.n_started, **dict(zip(SIZES, event.sizes, strict=True)))
        guest = self.host.start(
            layout,
            GuestSet(
                layout="made here",
                boot=5,
                reservation=event.reservation * PAGE,
                dynamic_memory=DynamicMemory(startup=event.startup * PAGE, minimum=4 * PAGE),
                phases=(Phase(touches=20.0 if event.works else 0.0, working_set=0.5, drift=50.0),),
            ),
            cache=0.5 if event.works else 1.0,
            growth=60.0,
        )
        if guest is not None and not event.works:
            self.expected[guest] = {}

    def access(self, guest: HostGuest, event: Access) -> None:
        rng = np.random.default_rng(event.seed)
        gpns = rng.integers(0, guest.pages, event.n).astype(np.uint32)
        writes = rng.random(event.n) < event.writes
        names = np.arange(self.n_written, self.n_written + np.count_nonzero(writes), dtype=np.uint64)
        self.n_written += len(names)
        done = self.host.access(guest, gpns, writes, self.frames(guest.memory.layout, names))
        assert 0 <= done <= event.n
        if guest in self.expected:
            written = gpns[:done][writes[:done]].tolist()
            self.expected[guest].update(zip(written, names.tolist(), strict=False))
            if done:
                last = gpns[done - 1 : done]
                assert self.read(guest, last).tolist() == [self.must_read(guest, int(last[0]))]

    def must_read(self, guest: HostGuest, gpn: int) -> int:
        """What was written last; else what the layout says, where free pages are zero."""
        if gpn in self.expected[guest]:
            return self.expected[guest][gpn]
        name = int(guest.memory.layout.names[gpn])
        return 0 if name == ABSENT else name

    def frames(self, layout: Layout, names: NDArray[np.uint64]) -> NDArray[Any]:
        return content_of(layout, self.frame_size)(names)

    def read(self, guest: HostGuest, gpns: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """The names of what the pages hold, wherever it is; of bytes by comparison with all that it could be."""
        if self.frame_size == 8:
            names = np.empty(len(gpns), np.uint64)
            self.host.pager.read(guest.pool, gpns, names)
            return names
        out = np.empty((len(gpns), PAGE), np.uint8)
        self.host.pager.read(guest.pool, gpns, out)
        must = np.array([self.must_read(guest, gpn) for gpn in gpns.tolist()], np.uint64)
        same = (self.frames(guest.memory.layout, must) == out).all(axis=1)
        return np.where(same, must, np.uint64(ABSENT))

    def check(self) -> None:
        """Memory adds up to the frame; what a guest has in memory is what it wrote."""
        host = self.host
        host.pool.check()
        counts, paged = host.pool.counts(), host.pager.counts()
        present = sum(guest.pool.present for guest in host.guests)
        assert counts.in_use + host.pager.frames <= host.capacity and host.held <= host.capacity
        assert counts.pages_present == present
        assert sum(guest.pool.out for guest in host.guests) == paged.pages_compressed + paged.pages_swapped
        assert paged.pages_lost == 0 and not host.stopped
        assert host.swap_error is None or host.swap_error.errno == errno.ENOSPC
        if host.pager.swap is not None:
            assert host.pager.swap.used == paged.pages_swapped
        for guest in host.guests:
            memory = guest.memory
            assert memory.in_use + memory.free + memory.balloon == guest.pages
            assert min(memory.in_use, memory.free, memory.balloon, memory.given) >= 0
        for sample in host.watch.samples[self.checked :]:
            assert sample.present - sample.in_use == sample.saved_zero + sample.saved_equal
            assert sample.held <= host.capacity and sample.slowdown >= 1 and sample.worst >= 1
        self.checked = len(host.watch.samples)
        for guest, written in self.expected.items():
            there = guest.memory.uses <= Use.CACHED
            gpns = np.flatnonzero(there)
            some = [*gpns[:: max(1, len(gpns) // 64)].tolist(), *(gpn for gpn in written if there[gpn])]
            must = [self.must_read(guest, gpn) for gpn in some]
            assert self.read(guest, np.array(some, np.uint32)).tolist() == must, guest.name


def run(world: World, script: Sequence[Step | Access | Start]) -> tuple[list[Sample], dict[str, int], list[int]]:
    with world.host as host:
        for event in script:
            world.do(event)
        host.watch.look(at_end=True)
        marks = [int(np.count_nonzero(guest.pool.marks & OUT)) for guest in host.guests]
        return host.watch.samples, {str(what): n for what, n in host.watch.counts().items()}, marks


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(HYPERVISORS),
    st.integers(64, 1500),
    st.sampled_from([0, 50, 5000]),
    st.booleans(),
    st.integers(0, 3),
    starts,
    events,
)
def test_memory_adds_up(
    hypervisor: Hypervisor, frames: int, swap: int, large: bool, seed: int, first: Start, script: list[Any]
) -> None:
    """In names; and again, which gives the same."""
    script = [first, *script]
    samples, counts, out = run(World(hypervisor, frames, swap, large, 8, seed), script)
    note(f"{counts}, out {out}")
    assert run(World(hypervisor, frames, swap, large, 8, seed), script) == (samples, counts, out)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(HYPERVISORS),
    st.integers(64, 1000),
    st.sampled_from([0, 50, 5000]),
    st.booleans(),
    starts,
    events,
)
def test_bytes_are_as_names(
    hypervisor: Hypervisor, frames: int, swap: int, large: bool, first: Start, script: list[Any]
) -> None:
    """Frames of 4096 bytes, a swap file and zlib: the same to the page, where only zero pages compress."""
    script = [first, *script]
    names = run(World(hypervisor, frames, swap, large, 8, 1), script)
    assert run(World(hypervisor, frames, swap, large, PAGE, 1), script) == names


@pytest.mark.parametrize("hypervisor", HYPERVISORS[1:4:2], ids=["esxi", "kvm"])
def test_the_tests_above_page_out(hypervisor: Hypervisor) -> None:
    """They would prove little if nothing went out and came back."""
    start = Start([10, 20, 30, 100, 100, 40], 0, 400, False)
    world = World(hypervisor, 400, 5000, False, 8, 1)
    script: list[Step | Access | Start] = [start, start, Step(10.0), Step(10.0)]
    script += [*(Access(n, 500, 1.0, n) for n in range(12)), Step(10.0)]
    _, counts, out = run(world, script)
    assert sum(out) > 50 and counts["swap_out"] > 100 and counts["swap_in"] > 50


@pytest.mark.parametrize("frame_size", [8, PAGE])
def test_guests_that_page(frame_size: int) -> None:
    """The same of what guests write to their own swap, and read there."""
    world = World(HyperV(), 200, 0, False, frame_size, 1)
    start = Start([10, 0, 20, 250, 20, 0], 0, 200, False)
    script: list[Step | Access | Start] = [start, Step(10.0)]
    script += [Access(0, 400, writes, n) for n in range(12) for writes in (1.0, 0.0)]
    _, counts, _ = run(world, script)
    assert counts["guest_swap_out"] > 500 and counts["guest_swap_in"] > 500 and counts["guest_file_read"] > 10
