"""What sharing was worth: the memory that it saved and the CPU time that it took, both counted in guests."""

from __future__ import annotations

from dataclasses import dataclass

from pagedup.host.costs import Operation
from pagedup.host.result import Run, Simulation
from pagedup.memory.layouts import PAGE


@dataclass(frozen=True, slots=True)
class NetBenefit:
    """Sharing in one run, in guests such as those that ran.

    saved: bytes that it saved at the end. guests_more: guests whose memory that is, as they have it without sharing.
    scan_cores, cow_cores, tlb_cores: cores of the host that it took, on average over the run: for its scanner, for COW
    breaks, and for what smaller pages lose of the TLB's reach. guests_less: guests for whom these cores would have
    been, were all of the host's divided evenly. net: guests_more - guests_less.
    """

    saved: int
    guests_more: float
    scan_cores: float
    cow_cores: float
    tlb_cores: float
    guests_less: float

    @property
    def cores(self) -> float:
        """All that it took."""
        return self.scan_cores + self.cow_cores + self.tlb_cores

    @property
    def net(self) -> float:
        """Guests that sharing is worth; below 0 where it costs more than it saves."""
        return self.guests_more - self.guests_less


def net_benefit(simulation: Simulation, run: Run) -> NetBenefit:
    """What sharing was worth in a run; all is 0 where no guest ran, or nobody looked for pages to share."""
    if not run.samples or not run.samples[-1].guests or not (run.most_saved or run.scan_seconds):
        return NetBenefit(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    last = run.samples[-1]
    seconds = simulation.hours * 3600
    scan, cow, tlb = (
        spent / seconds
        for spent in (run.scan_seconds, run.guest_seconds.get(Operation.COW_BREAK, 0.0), run.tlb_seconds)
    )
    unshared = last.present + last.compressed + last.swapped
    return NetBenefit(
        saved=last.saved * PAGE,
        guests_more=last.guests * last.saved / unshared if unshared else 0.0,
        scan_cores=scan,
        cow_cores=cow,
        tlb_cores=tlb,
        guests_less=last.guests * (scan + cow + tlb) / simulation.cores,
    )
