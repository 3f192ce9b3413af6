"""A simulated host: guests run on it in simulated time, and its hypervisor finds memory for them."""

from __future__ import annotations

import math
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from pagedup.guests.spec import SpecError, pages_of
from pagedup.host.contents import content_of
from pagedup.host.costs import Costs, Ledger, Operation
from pagedup.host.guest import HostGuest
from pagedup.host.guest_memory import GuestMemory
from pagedup.host.lost_reach import LostReach
from pagedup.host.paged_out import PagedOutReport
from pagedup.host.pager import Pager
from pagedup.host.paging import PageLost
from pagedup.host.running import Running
from pagedup.host.touching import Touching
from pagedup.host.watch import Watch
from pagedup.memory.batch import NAME, flags, whole_numbers
from pagedup.memory.closing import Closing
from pagedup.memory.layouts import PAGE
from pagedup.sharing import FramePool
from pagedup.sharing.frame_pool import ABSENT
from pagedup.swap import CompressedCache, CompressedNames, SwapFile, SwapNames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from pagedup.host.hypervisors import Hypervisor
    from pagedup.host.scenario import GuestSet, Machine
    from pagedup.host.work import Work
    from pagedup.memory.layouts import Layout
    from pagedup.swap import CompressedPages, SwapSpace

_SCANNING = (Operation.SCAN_VISIT, Operation.SCAN_HASH, Operation.SHARE)


class Host(Closing):
    """One host under one hypervisor.

    Simulated time passes in steps: `step` for simulators that own the clock, `run` for others. In a step each guest
    does what its settings say, and then the hypervisor looks after memory. A simulator that knows better what guests
    touch gives them a phase without touches, and calls `access`. Memory is given at the first write; all guests
    together may have been promised more than there is.

    Args:
        machine: what the host has.
        hypervisor: its settings.
        large_pages: whether guests' memory is given in pages of 2 MiB, where it can be.
        compressible: the share of pages that compress to half or less, in frames of 8 bytes.
        costs: of each operation; None: Costs().
        seed: all that is random descends from it.
        frame_size: 8: a frame holds a content name, which stands for a page of 4096 bytes. 4096: it holds such a page,
            swap is a file, and what compresses is found out.

    Attributes:
        machine, hypervisor, large_pages: as given.
        now: seconds of simulated time.
        guests: list of HostGuest, those that were started.
        refused: list of str, the names of guests that the hypervisor did not start.
        capacity: frames for guests and for the compression cache.
        pool, pager: the frames, and what was paged out.
        paged_out: what the pages were that were paged out.
        watch: samples, one a minute.
        swap_error: OSError, the last one that the swap file had, or None. Nothing is lost by it.
        stopped: list of HostGuest, those that needed a page that was lost (`pager.lost`), and are not run any more.

    Raises SpecError for a machine that keeps all memory to itself; ValueError for another frame size; OSError when no
    swap file can be made.
    """

    def __init__(
        self,
        machine: Machine,
        hypervisor: Hypervisor,
        *,
        large_pages: bool = True,
        compressible: float = 0.5,
        costs: Costs | None = None,
        seed: int = 0,
        frame_size: int = NAME,
    ) -> None:
        if frame_size not in (NAME, PAGE):
            raise ValueError(f"frame_size is {frame_size}; it must be {NAME} or {PAGE}")
        self.machine = machine
        self.hypervisor = hypervisor
        self.large_pages = large_pages
        self.now = 0.0
        self.guests: list[HostGuest] = []
        self.refused: list[str] = []
        self.stopped: list[HostGuest] = []
        self.swap_error: OSError | None = None
        self.capacity = pages_of(machine.memory, "host.memory") - pages_of(machine.kept, "host.kept")
        if self.capacity < 1:
            raise SpecError(f"host.kept is {machine.kept}; it must be less than host.memory, {machine.memory}")
        self._seed = seed
        costs = costs or Costs()
        self._costs = costs.seconds(machine.device)
        self._ledger = Ledger(self._costs)
        self._frame_size = frame_size
        self.pool = FramePool(
            self.capacity,
            frame_size,
            policy=hypervisor.sharing(machine, self._number("sharing")),
            seed=self._number("victims"),
        )
        self.pager = Pager(self.pool, self._swap(), self._cache(compressible))
        self.paged_out = PagedOutReport()
        self._running: dict[HostGuest, Running] = {}
        self._touching = Touching(self)
        self._waiting: HostGuest | None = None
        self._policies = hypervisor.policies(self)
        self.watch = Watch(self, LostReach(machine, costs.page_turns))

    def _swap(self) -> SwapSpace | None:
        slots = pages_of(self.machine.swap, "host.swap")
        if not slots:
            return None
        return SwapNames(slots) if self._frame_size == NAME else SwapFile(slots, self._frame_size)

    def _cache(self, compressible: float) -> CompressedPages | None:
        frames = int(self.capacity * self.hypervisor.compressed_share())
        if not frames:
            return None
        if self._frame_size == NAME:
            return CompressedNames(frames, compressible)
        return CompressedCache(frames, self._frame_size)

    def close(self) -> None:
        """No call after it. Its memory and its swap file go back. Closing twice does nothing."""
        for part in (self.pager.swap, self.pager.cache, self.pool):
            if part is not None:
                part.close()

    # --- for whoever runs it --------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """The hypervisor's word for how short memory is, or "" if it has none."""
        return next((policy.state for policy in self._policies if policy.state), "")

    @property
    def held(self) -> int:
        """Frames that nobody else can have: in use, of the compression cache, or assigned to guests."""
        in_use = self.pool.counts().in_use + self.pager.frames
        return max(in_use, *(policy.assigned for policy in self._policies))

    @property
    def accesses(self) -> int:
        """That guests did."""
        return self._touching.accesses

    @property
    def ledger(self) -> Ledger:
        """What the host's own CPU did."""
        for policy in self._policies:
            policy.settle()
        return self._ledger

    @property
    def scan_seconds(self) -> float:
        """CPU time of the sharing scanner."""
        spent = self.ledger.by_operation
        return sum(spent.get(what, 0.0) for what in _SCANNING)

    def start(
        self, layout: Layout, settings: GuestSet, *, cache: float = 1.0, growth: float = 0.0
    ) -> HostGuest | None:
        """Start a guest, which will hold what the layout says when it has booted; None if the hypervisor refuses it.

        settings: its `layout`, `count`, `start` and `every` are not looked at. cache: the share of the layout's file
        cache that is there when it has booted; the rest comes within `growth` seconds.
        """
        number = len(self.pool.guests)
        domain = self.hypervisor.domain(settings)
        pool = self.pool.add_guest(layout.n_pages, domain=domain, large_pages=self.large_pages)
        ledger = Ledger(self._costs)
        content = content_of(layout, self._frame_size)
        key = self._number(f"cache of guest {number}")
        memory = GuestMemory(layout, pool, self.pager, ledger, content=content, cache=cache, key=key)
        guest = HostGuest(number, layout.name, settings, pool, memory, ledger)
        if not all(policy.admits(guest) for policy in self._policies):
            self.refused.append(layout.name)
            return None
        self.guests.append(guest)
        key = self._number(f"work of guest {number}")
        self._running[guest] = Running(guest, started=self.now, growth=growth, key=key, content=content)
        return guest

    def step(self, seconds: float) -> None:
        """So much simulated time passes. ValueError if that is not more than 0."""
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds is {seconds}; it must be more than 0")
        for guest, running in self._running.items():
            if guest in self.stopped:
                guest.ledger.block(seconds)
                continue
            try:
                running.run(self._touching, self.now, seconds)
            except PageLost:
                self.stopped.append(guest)
                guest.ledger.block(seconds)
            except OSError as error:
                self.swap_error = error
                guest.ledger.block(seconds)
        self.now += seconds
        for policy in self._policies:
            policy.tick(seconds)
        self.watch.look()

    def work(self, guest: HostGuest) -> Work:
        """What a guest does."""
        return self._running[guest].work

    def run(self, seconds: float, tick: float = 10.0) -> None:
        """Step by step, of `tick` seconds each, until so much simulated time has passed, or a step more."""
        for _ in range(math.ceil(seconds / tick - 1e-9)):
            self.step(tick)

    def access(
        self, guest: HostGuest, gpns: ArrayLike, writes: NDArray[np.bool_], data: NDArray[Any] | None = None
    ) -> int:
        """A guest touches pages now, in this order; it is charged what it waits for. Returns how many were done.

        gpns: integers (n,), any pages of the guest, which may repeat. writes: bool ndarray (n,). data: what each write
        puts into its page, in their order, as PoolGuest.write takes it; None: what is nowhere else. Fewer than n were
        done if there is no memory for the next one.

        Raises ValueError for pages that the guest has not; PageLost, which names the page, and OSError, for what was
        swapped and cannot be read: all accesses before it may have been done.
        """
        numbers = whole_numbers("gpns", gpns, guest.pages, "pages").astype(np.uint32, copy=False)
        which = flags("writes", writes, len(numbers), "gpn").view(np.bool_)
        if data is None:
            data = self._running[guest].fresh(which)
        return self._touching.touch(guest, numbers, which, data, any_page=True)

    # --- for the hypervisor's policies, as HostView says ----------------------------------------------------------

    @property
    def free(self) -> int:
        """Frames that can still be given out."""
        return max(self.pool.limit - self.pool.counts().in_use, 0)

    def rng(self, name: str) -> np.random.Generator:
        """See HostView."""
        return np.random.default_rng(self._child(name))

    def charge(self, what: Operation, times: int) -> None:
        """See HostView."""
        self._ledger.charge(what, times)

    def page_out(self, guest: HostGuest, gpns: NDArray[np.uint32]) -> int:
        """See HostView. Who waits for it is charged, or else the host."""
        hot = self._running[guest].work.is_hot(gpns)
        went = self.pager.page_out(guest.pool, gpns)
        ledger = self._waiting.ledger if self._waiting is not None else self._ledger
        if self.pager.cache is not None:
            ledger.charge(Operation.COMPRESS, went.compressed + went.swapped)
        ledger.charge(Operation.SWAP_OUT, went.swapped + went.evicted)
        if went.error is not None:
            self.swap_error = went.error
        if went.kept:
            gone = guest.pool.page_table.take(gpns) == ABSENT
            gpns, hot = gpns[gone], hot[gone]
        self.paged_out.went_out(guest, gpns, hot)
        return len(gpns)

    def make_room(self, frames: int, guest: HostGuest) -> None:
        """Let the policies free so many frames, as far as they can, for a guest that waits for them."""
        with self._waits(guest):
            for policy in self._policies:
                if self.free >= frames:
                    return
                policy.make_room(frames, guest)

    @contextmanager
    def _waits(self, guest: HostGuest) -> Iterator[None]:
        self._waiting = guest
        try:
            yield
        finally:
            self._waiting = None

    # --- randomness -----------------------------------------------------------------------------------------------

    def _child(self, name: str) -> np.random.SeedSequence:
        return np.random.SeedSequence(self._seed, spawn_key=(zlib.crc32(name.encode()),))

    def _number(self, name: str) -> int:
        return int(self._child(name).generate_state(1, np.uint64)[0])
