"""What a simulation found: everything that its reports show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """The host at one time. Pages of 4096 bytes, unless it says otherwise.

    time: seconds of simulated time. guests: that run. state: the hypervisor's word for how short memory is, or "".
    promised: memory that the guests think they have, less what is in balloons. present: guest pages that are in memory,
    shared or not. in_use: frames that hold them. held: frames that nobody else can have, of guests and of the
    compression cache (Hyper-V: all that is assigned). saved_zero, saved_equal: present pages less frames, by sharing
    zero pages and others. ballooned: in balloons; of these `given` were free in their guest, for the others it pays.
    compressed, swapped: pages that the hypervisor has put there. cache: frames of the compression cache. guest_swapped:
    pages in guests' own swap; guest_dropped: of files, that a guest dropped from its cache for its balloon. large:
    present pages in large pages. slowdown, worst: time that guests took / time that they would have taken if nothing
    had cost anything, since the sample before: the mean of all, and the slowest one's.
    """

    time: float
    guests: int
    state: str
    promised: int
    present: int
    in_use: int
    held: int
    saved_zero: int
    saved_equal: int
    ballooned: int
    given: int
    compressed: int
    swapped: int
    cache: int
    guest_swapped: int
    guest_dropped: int
    large: int
    slowdown: float
    worst: float

    @property
    def saved(self) -> int:
        """By sharing, in all."""
        return self.saved_zero + self.saved_equal


@dataclass(frozen=True, slots=True)
class Victims:
    """Pages of one region that the hypervisor paged out, and what that cost their guests.

    hot: they were in their guest's working set. paged_out, paged_in: pages, each time counted. seconds: that guests
    waited for them.
    """

    region: str
    hot: bool
    paged_out: int
    paged_in: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """One hypervisor on the host.

    hypervisor: its kind; name: as the scenario calls it. capacity: frames for guests. started, refused: guests.
    fits: so many guests such as these the host could hold at the end, without balloons that hurt, compression and swap.
    caught_up: seconds until sharing had saved 95 % of the most that it ever saved; None: it saved nothing. most_saved:
    that, in pages. counts: each operation by its name (pagedup.host.Operation). guest_seconds: that all guests waited,
    by operation. scan_seconds: CPU time of the sharing scanner. tlb_seconds: that guests lost for large pages that were
    broken. lost: pages that could not be read back, "guest, page: why". seconds: that the simulation took.
    """

    hypervisor: str
    name: str
    large_pages: bool
    aslr: bool
    capacity: int
    started: int
    refused: int
    fits: int
    slowdown: float
    worst: float
    worst_guest: str
    caught_up: float | None
    most_saved: int
    counts: Mapping[str, int]
    guest_seconds: Mapping[str, float]
    scan_seconds: float
    tlb_seconds: float
    accesses: int
    samples: Sequence[Sample]
    victims: Sequence[Victims]
    lost: Sequence[str]
    seconds: float


@dataclass(frozen=True, slots=True)
class Simulation:
    """A scenario, by each of its hypervisors."""

    scenario: str
    seed: int
    hours: float
    guests: int
    memory: int
    """Bytes of the host."""
    cores: int
    """Of the host."""
    promised: int
    """Bytes of all guests."""
    runs: Sequence[Run]
