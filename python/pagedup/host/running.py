"""What a guest of a host does by itself: it boots, it works, and its file cache grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.host.boot import Boot
from pagedup.host.fresh_names import FreshNames
from pagedup.host.work import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.host.contents import Content
    from pagedup.host.guest import HostGuest
    from pagedup.host.touching import Touching

_BOOT_AT_ONCE = 1 << 16  # pages
_WITHOUT_ROOM = 64  # the same where the host has no memory left: the guest may have some, and page by itself
_GROW_AT_ONCE = 1024  # the same of the file cache


class Running:
    """One guest that was started.

    Args:
        guest: with nothing in its memory yet.
        started: seconds of the host's time.
        growth: seconds in which the file cache grows to its end, once the guest has booted.
        key: of random numbers.
        content: frames of names.

    Attributes:
        guest: as given.
        work: its accesses.
    """

    def __init__(
        self, guest: HostGuest, *, started: float, growth: float, key: int, content: Content
    ) -> None:
        self.guest = guest
        self.work = Work(guest.memory, guest.settings.phases, key)
        self._names = FreshNames(guest.number)
        self._content = content
        self._started = started
        self._growth = guest.memory.to_grow / growth if growth else 0.0  # pages a second
        self._owed = 0.0
        self._boot: Boot | None = Boot(guest.memory, guest.settings.boot)

    def run(self, touching: Touching, now: float, seconds: float) -> None:
        """Go on for so many seconds from `now` on, of the host's time; blocked where there is no memory for that."""
        if self._boot is not None:
            self._go_on_booting(touching, self._boot, seconds)
            return
        gpns, writes = self.work.accesses(now - self._started, seconds)
        if len(gpns):
            done = touching.touch(self.guest, gpns, writes, self.fresh(writes), any_page=False)
            if done < len(gpns):
                self.guest.ledger.block(seconds * (1 - done / len(gpns)))
        if self.guest.memory.to_grow:
            self._grow(touching, seconds)

    def fresh(self, writes: NDArray[np.bool_]) -> NDArray[np.generic]:
        """What the writes of these accesses put into pages: what is nowhere else."""
        return self._content(self._names.take(int(np.count_nonzero(writes))))

    def _go_on_booting(self, touching: Touching, boot: Boot, seconds: float) -> None:
        passes = seconds
        while not boot.done:
            most = max(touching.with_room(self.guest, _BOOT_AT_ONCE), _WITHOUT_ROOM)
            filled = boot.next(passes, most)
            if touching.fill(self.guest, filled) < len(filled.gpns):
                self.guest.ledger.block(seconds)
                return
            if len(filled.gpns) < most:
                break
            passes = 0.0
        if boot.done:
            self._boot = None

    def _grow(self, touching: Touching, seconds: float) -> None:
        self._owed += self._growth * seconds
        if self._owed < min(_GROW_AT_ONCE, self.guest.memory.to_grow):
            return
        pages = touching.with_room(self.guest, min(int(self._owed), self.guest.memory.free))
        self._owed -= pages
        touching.fill(self.guest, self.guest.memory.grow_cache(pages))
