"""How Hyper-V divides memory: by what guests have committed, a buffer beyond it, and weights where it is short."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from pagedup.host.hypervisors.entitlements import entitlements
from pagedup.host.hypervisors.spread import spread


class Demand(NamedTuple):
    """Of one guest, in pages: what it holds, has committed, must have at least and can have at most.

    buffer: beyond what it has committed, as a share of that. weight: who is served first. can_shrink: whether its
    balloon may grow.
    """

    held: int
    committed: int
    minimum: int
    maximum: int
    buffer: float
    weight: int
    can_shrink: bool

    @property
    def least(self) -> int:
        """What its demand allows to shrink it to; what it holds if that is less."""
        floor = min(max(self.committed, self.minimum), self.maximum) if self.can_shrink else self.held
        return min(self.held, floor)

    @property
    def needed(self) -> int:
        """What it has committed, as far as it can hold that."""
        return min(max(self.committed, self.minimum), self.maximum)

    @property
    def wanted(self) -> int:
        """With its buffer."""
        return min(max(ceil(self.committed * (1 + self.buffer)), self.minimum), self.maximum)


def shrunk(demands: Sequence[Demand], pages: int, *, buffers: bool) -> list[int]:
    """What each guest holds after so many pages were taken, from those of the lowest pressure first.

    buffers: whether the buffers can be taken, too; no guest gets less than it has committed. It may be that fewer
    pages than asked for can be taken.
    """
    held = [demand.held for demand in demands]
    lower = [demand.least if buffers else max(demand.least, min(demand.held, demand.wanted)) for demand in demands]
    # Pressure is what a page costs by shares that are the demand, without a tax on anything.
    rates = [max(demand.committed, 1) for demand in demands]
    return entitlements(rates, lower, held, sum(held) - max(0, pages), active=held, tax=0.0)


def assigned(demands: Sequence[Demand], capacity: int) -> list[int]:
    """What each guest is to hold, of so many pages for all.

    A guest that wants more gets what is unassigned, and then what other guests hold beyond what they want. If that is
    not even enough for what guests have committed, these get it from other guests' buffers, too. Who has a higher
    weight is served before others. Nobody gives what it has committed, and what nobody wants stays where it is.
    """
    held = [demand.held for demand in demands]
    free = capacity - sum(held)
    needs = [max(0, demand.needed - demand.held) for demand in demands]
    wants = [max(0, demand.wanted - demand.held) for demand in demands]
    left = shrunk(demands, sum(wants) - free, buffers=False)
    if capacity - sum(left) < sum(needs):
        left = shrunk(demands, sum(needs) - free, buffers=True)
    for gaps in (needs, [want - need for want, need in zip(wants, needs, strict=True)]):
        left = _served(demands, left, gaps, capacity - sum(left))
    return left


def _served(demands: Sequence[Demand], held: list[int], gaps: list[int], pages: int) -> list[int]:
    """What each holds after so many pages were given out: by weight, and of one weight in proportion to the gaps."""
    held = held.copy()
    for weight in sorted({demand.weight for demand in demands}, reverse=True):
        turn = [gap if demand.weight == weight else 0 for demand, gap in zip(demands, gaps, strict=True)]
        for guest, given in enumerate(spread(pages, turn)):
            held[guest] += given
            pages -= given
    return held
