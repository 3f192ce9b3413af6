"""How short of memory an ESXi host is: its states, and where they begin."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from pagedup.guests.spec import size_of
from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from pagedup.host.guest import HostGuest
    from pagedup.host.hypervisors.hypervisor import HostView

_MB, _GB = 1 << 20, 1 << 30
_SCALE = [(0, 0.06), (4 * _GB, 0.04), (12 * _GB, 0.02), (28 * _GB, 0.01)]
"""From so many bytes of memory on, this share of it: Mem.MinFreePct (Denneman, 2011)."""
_FIRST_28 = 899 * _MB
"""What is published for the first 28 GB (Epping, 2015); by the scale they would be 901."""


class MemoryState(StrEnum):
    """From much free memory to none; the value is ESXi's word."""

    HIGH = "high"
    CLEAR = "clear"
    SOFT = "soft"
    HARD = "hard"
    LOW = "low"


_STATES = list(MemoryState)


def min_free(memory: int) -> int:
    """Bytes of minFree, which the states are measured by, of a host with so many bytes of memory.

    899 MB for the first 28 GB, and 1 % of the rest (published); a smaller host's are 6 % of its first 4 GB, 4 % of the
    next 8 and 2 % of the next 16 (published for the same setting).
    """
    ends = [start for start, _ in _SCALE[1:]] + [max(memory, 28 * _GB)]
    parts = [max(0, min(memory, end) - start) * share for (start, share), end in zip(_SCALE, ends, strict=True)]
    return round(min(sum(parts[:3]), _FIRST_28) + sum(parts[3:]))


def next_state(state: MemoryState, free: int, levels: Sequence[float], margin: float) -> MemoryState:
    """The state after this one, with so many frames free.

    levels: frames below which clear, soft, hard and low begin, in that order. A state is left at once for a worse one;
    for a better one only when more is free than its level by that margin, a share of it.
    """
    falls = sum(free < level for level in levels)
    rises = sum(free < level * (1 + margin) for level in levels)
    return _STATES[min(max(_STATES.index(state), falls), rises)]


class MemoryStates(HostPolicy):
    """The policy that knows the state, for those that act by it; asked before them.

    Args:
        percents: of minFree, where high, clear, soft, hard and low begin: frames free above, or below. In the state
            high large pages are broken below the first of them; the state itself ends at the second.
    """

    def __init__(self, host: HostView, percents: Sequence[float], margin: float) -> None:
        self._host = host
        self._margin = margin
        self._state = MemoryState.HIGH
        least = min_free(size_of(host.machine.memory, "host.memory")) // PAGE
        self.high, *self.levels = (least * percent / 100 for percent in percents)

    @property
    def state(self) -> MemoryState:
        """As of the last tick, or call for room."""
        return self._state

    def level(self, state: MemoryState) -> float:
        """Frames below which a state other than high begins."""
        return self.levels[_STATES.index(state) - 1]

    def leaves(self, state: MemoryState) -> float:
        """Free frames at which it is left for a better one."""
        return self.level(state) * (1 + self._margin)

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        self._state = next_state(self._state, self._host.free, self.levels, self._margin)

    def make_room(self, frames: int, guest: HostGuest) -> None:
        """See HostPolicy: what is there for the guest that waits is not free any more."""
        free = max(0, self._host.free - frames)
        self._state = next_state(self._state, free, self.levels, self._margin)
