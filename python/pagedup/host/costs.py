"""What everything costs that a host does to its guests, and whom it is charged to."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from pagedup.guests.spec import Part

Micros = Annotated[float, Meta(ge=0, le=1e9)]
"""Microseconds."""


class Operation(StrEnum):
    """What takes time. The value is the name of its cost in `Costs`, and of its count in results."""

    FIRST_TOUCH = "first_touch"
    """A page is written that had no frame."""
    COW_BREAK = "cow_break"
    """A page is written that shared its frame."""
    BREAK_LARGE = "break_large"
    """A large page becomes small ones."""
    COMPRESS = "compress"
    UNCOMPRESS = "uncompress"
    SWAP_OUT = "swap_out"
    """The hypervisor writes a page to its swap. Done ahead, it is charged to the host; where the guest waits, to it."""
    SWAP_IN = "swap_in"
    """A guest touches a page that the hypervisor has swapped."""
    BALLOON_PAGE = "balloon_page"
    """The balloon driver takes a page from its guest, or gives one back."""
    GUEST_SWAP_OUT = "guest_swap_out"
    """A guest writes a page to its own swap."""
    GUEST_SWAP_IN = "guest_swap_in"
    """A guest touches a page that is in its own swap."""
    GUEST_FILE_READ = "guest_file_read"
    """A guest reads a file's page again that it dropped from its cache."""
    SCAN_VISIT = "scan_visit"
    """The sharing scanner comes by a page."""
    SCAN_HASH = "scan_hash"
    """The sharing scanner reads a page for a checksum."""
    SHARE = "share"
    """A page is found equal to another one, and mapped there."""
    BLOCKED = "blocked"
    """A guest waits for memory that the hypervisor cannot find; this has no cost of its own, but takes its time."""


class Costs(Part, frozen=True, kw_only=True):
    """Microseconds that each operation takes; of a device, from the request to the answer.

    Published by Gupta et al., "Difference Engine", OSDI 2008, table 1 (which has a disk of its time): share, cow_break,
    compress, uncompress, swap_out, swap_in_disk.

    Assumed: swap_in_ssd 100 and swap_in_nvme 20, orders of magnitude of a read of 4 KiB; a guest's own disk is such a
    device, too, as its host says. first_touch 2: an exit of a guest, a frame to be zeroed. break_large 10: 512 entries
    to be written, and the TLB to be flushed. balloon_page 1. scan_visit 0.05, a cache miss or two. scan_hash 1.0, as
    4 KiB read from memory at 4 GB/s. page_turns 5000: not a time, but how often a guest turns to a page for each touch
    that is simulated, by the same law; each turn needs a translation.
    """

    first_touch: Micros = 2.0
    cow_break: Micros = 25.1
    break_large: Micros = 10.0
    compress: Micros = 29.7
    uncompress: Micros = 10.4
    swap_out: Micros = 48.9
    swap_in_disk: Micros = 7151.6
    swap_in_ssd: Micros = 100.0
    swap_in_nvme: Micros = 20.0
    balloon_page: Micros = 1.0
    scan_visit: Micros = 0.05
    scan_hash: Micros = 1.0
    share: Micros = 6.2
    page_turns: Annotated[float, Meta(ge=0, le=1e9)] = 5000.0

    def seconds(self, device: str) -> dict[Operation, float]:
        """Seconds of each operation on a host whose guests and swap are on such a device: "disk", "ssd", "nvme"."""
        read = getattr(self, f"swap_in_{device}")
        own = {
            Operation.SWAP_IN: read,
            Operation.GUEST_SWAP_IN: read,
            Operation.GUEST_FILE_READ: read,
            Operation.GUEST_SWAP_OUT: self.swap_out,
        }
        named = {each: getattr(self, each) for each in Operation if each not in own and each != Operation.BLOCKED}
        return {each: cost * 1e-6 for each, cost in (named | own).items()}


class Ledger:
    """What was done, how often, to or for one guest, or by the host itself.

    Attributes:
        counts: how often each operation was.
        by_operation: the seconds that each took.
        seconds: that they took in all.
    """

    def __init__(self, costs: dict[Operation, float]) -> None:
        self.counts: Counter[Operation] = Counter()
        self.by_operation: dict[Operation, float] = {}
        self.seconds = 0.0
        self._costs = costs

    def charge(self, what: Operation, times: int = 1) -> None:
        """So many of them more."""
        if times:
            self._add(what, times, times * self._costs[what])

    def block(self, seconds: float) -> None:
        """Time in which the guest could not go on."""
        self._add(Operation.BLOCKED, 1, seconds)

    def _add(self, what: Operation, times: int, seconds: float) -> None:
        self.counts[what] += times
        self.by_operation[what] = self.by_operation.get(what, 0.0) + seconds
        self.seconds += seconds
