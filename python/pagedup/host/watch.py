"""What is noted of a host as time passes: its samples, and what they add up to."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pagedup.host.costs import Operation
from pagedup.host.result import Sample
from pagedup.sharing.frame_pool import LARGE_PAGE

if TYPE_CHECKING:
    from pagedup.host.guest import HostGuest
    from pagedup.host.host import Host
    from pagedup.host.lost_reach import LostReach

_INTERVAL = 60.0  # seconds between two samples


class Watch:
    """Samples of one host.

    Attributes:
        samples: one a minute of simulated time.
        worst, worst_guest: the greatest slowdown of a guest between two samples, and which guest that was.
        tlb_seconds: that guests lost because large pages under them were broken, or are small ones.
    """

    def __init__(self, host: Host, lost_reach: LostReach) -> None:
        self.samples: list[Sample] = []
        self.worst = 1.0
        self.worst_guest = ""
        self.tlb_seconds = 0.0
        self._host = host
        self._lost_reach = lost_reach
        self._next = _INTERVAL
        self._last = 0.0
        self._waited: dict[HostGuest, float] = {}
        self._lived = 0.0  # seconds of all guests, as they would have been
        self._taken = 0.0  # and as they were

    @property
    def slowdown(self) -> float:
        """Time that guests took / time that they would have taken, of all guests and all the time."""
        return self._taken / self._lived if self._lived else 1.0

    def look(self, *, at_end: bool = False) -> None:
        """Take a sample, if it is time for one or the last."""
        now = self._host.now
        if now < self._next and not (at_end and now > self._last):
            return
        self._next = now - now % _INTERVAL + _INTERVAL
        slowdowns = [self._slowdown(guest, now - self._last) for guest in self._host.guests]
        self._last = now
        self.samples.append(self._sample(slowdowns))

    def _slowdown(self, guest: HostGuest, seconds: float) -> float:
        """Of one guest since the last sample."""
        waited = guest.ledger.seconds
        cost = waited - self._waited.get(guest, 0.0)
        self._waited[guest] = waited
        if not seconds:
            return 1.0
        lost = seconds * self._lost_reach.share(guest, self._host.work(guest), self._host.now)
        self.tlb_seconds += lost
        self._lived += seconds
        self._taken += seconds + cost + lost
        slowdown = 1 + (cost + lost) / seconds
        if slowdown > self.worst:
            self.worst, self.worst_guest = slowdown, guest.name
        return slowdown

    def _sample(self, slowdowns: list[float]) -> Sample:
        host = self._host
        counts, paged = host.pool.counts(), host.pager.counts()
        memories = [guest.memory for guest in host.guests]
        ballooned = sum(memory.balloon for memory in memories)
        return Sample(
            time=host.now,
            guests=len(host.guests),
            state=host.state,
            promised=sum(memory.pages for memory in memories) - ballooned,
            present=counts.pages_present,
            in_use=counts.in_use,
            held=host.held,
            saved_zero=counts.zero_pages - counts.zero_frames,
            saved_equal=counts.pages_sharing,
            ballooned=ballooned,
            given=sum(memory.given for memory in memories),
            compressed=paged.pages_compressed,
            swapped=paged.pages_swapped,
            cache=host.pager.frames,
            guest_swapped=sum(memory.swapped for memory in memories),
            guest_dropped=sum(memory.dropped for memory in memories),
            large=counts.large_pages * LARGE_PAGE,
            slowdown=sum(slowdowns) / len(slowdowns) if slowdowns else 1.0,
            worst=max(slowdowns, default=1.0),
        )

    def counts(self) -> Counter[Operation]:
        """How often each operation was, of all guests and of the host itself."""
        counts = Counter(self._host.ledger.counts)
        for guest in self._host.guests:
            counts.update(guest.ledger.counts)
        return counts

    def waited(self) -> Counter[Operation]:
        """The seconds that all guests waited, by operation."""
        seconds: Counter[Operation] = Counter()
        for guest in self._host.guests:
            for what, waited in guest.ledger.by_operation.items():
                seconds[what] += waited  # type: ignore[assignment]
        return seconds
