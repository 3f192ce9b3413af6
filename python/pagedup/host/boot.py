"""What a guest writes while it is being started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.host.guest_memory import Faulted, Filled
from pagedup.host.page_use import Use, by_region
from pagedup.memory.layouts import RegionKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.host.guest_memory import GuestMemory

_AT_ONCE = 1 << 16  # pages that are looked at together
_ALL = 1 << 32  # more than a guest has

_KERNEL = (RegionKind.KERNEL_TEXT, RegionKind.KERNEL_DATA, RegionKind.PAGE_TABLES)
_TURN = {kind: 0 if kind in _KERNEL else 2 if kind == RegionKind.FILE_CACHE else 1 for kind in RegionKind}
_FREE = 3  # the turn of what is not in use, the last one


class Boot:
    """The start of a guest, part by part: its kernel, its programs, what it reads of files, and then what is free.

    Windows zeroes free memory while it has nothing else to do (the zero page thread: Windows Internals, 6th ed., part
    2, ch. 10), and so touches all that it has. It does that here if most of what its layout has free is zero; other
    systems leave free memory as it was, absent but for what the layout says. What is in the balloon is left alone.

    Args:
        memory: of a guest that is not started yet.
        seconds: that the start takes, above 0; all of its pages are filled at one rate (assumed).

    Attributes:
        done: whether it is over.
    """

    def __init__(self, memory: GuestMemory, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds is {seconds}; it must be more than 0")
        self.done = False
        self._memory = memory
        self._rate = (memory.unloaded + int(np.count_nonzero(memory.uses == Use.FREE))) / seconds
        self._owed = 0.0
        self._turns = by_region(memory.layout, _TURN)
        self._turn = self._next = 0
        self._all = False  # whether the pages that were found last are all that there are close by

    def next(self, seconds: float, most: int = _ALL) -> Filled:
        """What is filled in so many seconds, but at most so many pages now: each once, in order.

        Where that is not enough, or the guest would have to page out what it has just loaded, it is more later.
        """
        self._owed += self._rate * seconds
        parts: list[Filled] = []
        while self._owed >= 1 and most > 0 and not self.done:
            gpns = self._some(min(int(self._owed), most))
            if len(gpns):
                done, filled = self._fill(gpns)
                self._owed -= done
                most -= len(filled.gpns)
                parts.append(filled)
                if done < len(gpns):
                    self._next = int(gpns[done])
                    break
            self._go_on(gpns)
        if not parts:
            return self._memory.left_free(np.empty(0, np.uint32))
        if len(parts) == 1:
            return parts[0]
        return Filled(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _some(self, n: int) -> NDArray[np.uint32]:
        """The next pages that have their turn, up to n of them; none where there are none close by."""
        here = slice(self._next, self._next + _AT_ONCE)
        uses = self._memory.uses[here]
        if self._turn == _FREE:
            found = uses == Use.FREE
        else:
            found = (uses == Use.UNLOADED) & (self._turns.take(self._memory.layout.regions[here]) == self._turn)
        gpns = np.flatnonzero(found)
        self._all = len(gpns) <= n
        return (gpns[:n] + self._next).astype(np.uint32)

    def _go_on(self, gpns: NDArray[np.uint32]) -> None:
        """Look behind these from now on."""
        self._next = self._next + _AT_ONCE if self._all else int(gpns[-1]) + 1
        if self._next >= self._memory.pages:
            self._turn, self._next = self._turn + 1, 0
            self.done = self._turn > _FREE

    def _fill(self, gpns: NDArray[np.uint32]) -> Faulted:
        if self._turn == _FREE:
            return Faulted(len(gpns), self._memory.left_free(gpns))
        return self._memory.fault(gpns)
