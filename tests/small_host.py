"""A small host for tests of hypervisors: real frames, guests, pager and swap, in content names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagedup.host import Pager
from pagedup.host.boot import Boot
from pagedup.host.costs import Costs, Ledger, Operation
from pagedup.host.fresh_names import FreshNames
from pagedup.host.guest import HostGuest
from pagedup.host.guest_memory import GuestMemory
from pagedup.host.hypervisors import HostPolicy, Hypervisor
from pagedup.host.scenario import GuestSet, Machine
from pagedup.memory.layouts import Layout
from pagedup.sharing.frame_pool import OUT, FramePool
from pagedup.swap import CompressedNames, SwapNames

PAGE = 4096


class SmallHost:
    """A hypervisor on a machine of so many frames, and guests that do as they are told.

    cache: frames of the compression cache at the most, of a hypervisor that has one.
    """

    def __init__(
        self,
        hypervisor: Hypervisor,
        frames: int,
        *,
        swap: int = 1 << 20,
        cache: int = 0,
        large_pages: bool = False,
        compressible: float = 0.5,
        machine: Machine | None = None,
    ) -> None:
        self.machine = machine or Machine(memory=frames * PAGE, swap=swap * PAGE, cores=64, ghz=4)
        self.large_pages = large_pages
        self.pool = FramePool(frames, 8, policy=hypervisor.sharing(self.machine, 0))
        self.pager = Pager(
            self.pool, SwapNames(swap) if swap else None, CompressedNames(cache, compressible) if cache else None
        )
        self.capacity = frames
        self.guests: list[HostGuest] = []
        self.now = 0.0
        self._costs = Costs().seconds("ssd")
        self.ledger = Ledger(self._costs)
        self._names: list[FreshNames] = []
        self.policies: Sequence[HostPolicy] = hypervisor.policies(self)

    # --- as hypervisors see it ----------------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        return self.pool.limit - self.pool.counts().in_use

    def rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng(np.frombuffer(name.encode(), np.uint8))

    def charge(self, what: Operation, times: int) -> None:
        self.ledger.charge(what, times)

    def page_out(self, guest: HostGuest, gpns: NDArray[np.uint32]) -> int:
        went = self.pager.page_out(guest.pool, gpns)
        return went.compressed + went.swapped

    # --- as tests do --------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        return "".join(policy.state for policy in self.policies)

    @property
    def balloons(self) -> list[int]:
        return [guest.memory.balloon for guest in self.guests]

    @property
    def out(self) -> list[int]:
        return [guest.pool.out for guest in self.guests]

    @property
    def present(self) -> list[int]:
        return [guest.pool.present for guest in self.guests]

    def start(self, layout: Layout, settings: GuestSet | None = None, *, boots: bool = True) -> HostGuest | None:
        """A guest, or None if it is refused; `boots`: whether it fills its memory at once."""
        settings = settings or GuestSet(layout="made here", boot=1)
        number = len(self.pool.guests)
        pages = self.pool.add_guest(layout.n_pages, domain=settings.salt or None, large_pages=self.large_pages)
        ledger = Ledger(self._costs)
        memory = GuestMemory(layout, pages, self.pager, ledger)
        guest = HostGuest(number, f"guest {number}", settings, pages, memory, ledger)
        if not all(policy.admits(guest) for policy in self.policies):
            return None
        self.guests.append(guest)
        self._names.append(FreshNames(number))
        boot = Boot(memory, 1.0)
        while boots and not boot.done:
            filled = boot.next(1.0)
            self._write(guest, filled.gpns, filled.data)
        return guest

    def touch(
        self, guest: HostGuest, gpns: Any, *, names: NDArray[np.uint64] | None = None, reads: bool = False
    ) -> int:
        """Write what is nowhere else, or these names, into pages of the guest; or read them. How many could be done."""
        numbers = np.asarray(gpns, np.uint32)
        writes = np.full(len(numbers), not reads)
        if names is None:
            names = self._names[self.guests.index(guest)].take(len(numbers))
        at = 0
        while at < len(numbers):
            done, filled = guest.memory.fault(numbers[at:], writes[at:])
            self._write(guest, filled.gpns, filled.data)
            self._access(guest, numbers[at : at + done], writes[at : at + done], names[at : at + done])
            at += done
            if not done:
                break
        return at

    def tick(self, seconds: float = 10.0) -> None:
        """The guests have done what they do in that time."""
        self.now += seconds
        for policy in self.policies:
            policy.tick(seconds)
        for policy in self.policies:
            policy.settle()
        self.check()

    def check(self) -> None:
        """Memory adds up to the frame."""
        self.pool.check()
        counts = self.pool.counts()
        assert counts.in_use + self.pager.frames <= self.capacity
        assert counts.pages_present == sum(self.present)
        paged = self.pager.counts()
        assert sum(self.out) == paged.pages_compressed + paged.pages_swapped
        for guest in self.guests:
            memory = guest.memory
            assert memory.in_use + memory.free + memory.balloon == guest.pages
            assert guest.pool.present + guest.pool.out <= guest.pages

    def _write(self, guest: HostGuest, gpns: NDArray[np.uint32], names: NDArray[np.uint64]) -> None:
        if len(gpns):
            self._access(guest, gpns, np.ones(len(gpns), np.bool_), names)

    def _access(
        self, guest: HostGuest, gpns: NDArray[np.uint32], writes: NDArray[np.bool_], names: NDArray[np.uint64]
    ) -> None:
        at = 0
        while at < len(gpns):
            part = slice(at, at + 1024)
            self._page_in(guest, gpns[part])
            some = gpns[part], writes[part], names[part][writes[part]]
            at += guest.pool.touch(*some).done
            if at < min(len(gpns), part.stop):
                before = self.free
                self.make_room(512, guest)
                assert self.free > before or guest.pool.marks[gpns[at]] & OUT, "no guest could go on"

    def _page_in(self, guest: HostGuest, gpns: NDArray[np.uint32]) -> None:
        out = np.unique(gpns[(guest.pool.marks.take(gpns) & OUT) > 0])
        if len(out) > self.free:
            self.make_room(len(out), guest)
        out = out[(guest.pool.marks.take(out) & OUT) > 0]
        if len(out):
            self.pager.page_in(guest.pool, out)

    def make_room(self, frames: int, guest: HostGuest) -> None:
        """Ask the policies in order until there is room."""
        for policy in self.policies:
            if self.free >= frames:
                break
            policy.make_room(frames, guest)
