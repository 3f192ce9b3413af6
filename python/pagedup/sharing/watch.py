"""Live memory goes on changing: which of the pages that were found to be equal stay as they are, and for how long."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory import LiveSource, Source
from pagedup.sharing.duplicates import Duplicates
from pagedup.sharing.lifetime import Lifetime, Volatility

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory import Progress


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the matched pages found.

    seconds: since they were first read. changed: how many differ from what they were when they were read before.
    unchanged: how many have been found as they were first read at every look so far.
    """

    seconds: float
    changed: int
    unchanged: int


class Watch:
    """The matched pages of live guests: those with a frame that is zero or whose content stands more than once.

    Also those that seemed to be, by their hashes, but had moved when they were to be compared.

    Attributes:
        n_pages: how many there are, of the system's page size.
        looks: what each look found.
    """

    def __init__(self, sources: Sequence[Source], duplicates: Duplicates) -> None:
        """Choose the pages; `sources` are the guests of `duplicates`, in that order."""
        self._duplicates = duplicates
        self._mask = np.uint64(-os.sysconf("SC_PAGE_SIZE") % (1 << 64))
        self._zero = duplicates.zero
        matched = duplicates.counts().copies[duplicates.canonical] > 1
        matched |= self._zero
        addresses = duplicates.addresses
        self._guests: list[tuple[LiveSource, int]] = []
        self._pages: list[NDArray[np.uint64]] = []
        self._changed: list[NDArray[np.bool_]] = []
        for guest, source in enumerate(sources):
            own = slice(*duplicates.guest_offsets[guest : guest + 2])
            if isinstance(source, LiveSource):
                matched[own] |= source.moved(addresses[own] & self._mask)
            if isinstance(source, LiveSource) and matched[own].any():
                pages = addresses[own][matched[own]] & self._mask
                pages = pages[np.diff(pages, prepend=pages[0] + np.uint64(1)) != 0]  # frames may be smaller than pages
                self._guests.append((source, guest))
                self._pages.append(pages)
                self._changed.append(source.moved(pages))
        self._addresses = addresses
        self.n_pages = sum(map(len, self._pages))
        self.looks: list[Look] = []

    def look(self, repeat: int, interval: float, progress: Progress | None = None) -> None:
        """Look `repeat` times, at least `interval` seconds apart, the first time so long after copying.

        A time that is past is now. Comparing was a look already; without an interval what was looked at by it is not
        looked at once more. Raises OSError when a guest ended.
        """
        if not self.n_pages:
            return
        first = max(source.first_read for source, _ in self._guests)
        now = max(source.taken_at for source, _ in self._guests)
        for number in range(repeat):
            _wait(now + interval, _reporter(progress, f"waiting for look {number + 1} of {repeat}"))
            now = time.monotonic()
            changed = unchanged = 0
            for index, (source, _) in enumerate(self._guests):
                pages = self._pages[index]
                # What moved before it was compared has changed by the first look.
                found = np.zeros(len(pages), np.bool_) if self.looks else self._changed[index].copy()
                due = np.ones(len(pages), np.bool_) if self.looks or interval else ~source.looked_at(pages)
                found[due] |= source.look_again(pages[due])
                changed += int(np.count_nonzero(found))
                self._changed[index] |= found
                unchanged += int(np.count_nonzero(~self._changed[index]))
                if progress is not None:
                    progress("looking again", index + 1, len(self._guests))
            self.looks.append(Look(now - first, changed, unchanged))

    def volatile(self, duplicates: Duplicates) -> NDArray[np.bool_]:
        """Bool ndarray (n_frames,): which frames lie in a page that had changed at any look.

        `duplicates` is the grouping that is watched, or one coarsened from it.
        """
        mask = np.zeros(duplicates.n_frames, np.bool_)
        if any(changed.any() for changed in self._changed):
            pages = duplicates.addresses & self._mask
            for (_, guest), own, changed in zip(self._guests, self._pages, self._changed, strict=True):
                frames = slice(*duplicates.guest_offsets[guest : guest + 2])
                nearest = np.minimum(np.searchsorted(own, pages[frames]), len(own) - 1)  # both ascend
                mask[frames] = changed[nearest] & (own[nearest] == pages[frames])
        return mask

    def volatility(self) -> Volatility | None:
        """What had changed at any look; None if there was none."""
        if not self.looks:
            return None
        zero = 0
        for (_, guest), own, changed in zip(self._guests, self._pages, self._changed, strict=True):
            frames = slice(*self._duplicates.guest_offsets[guest : guest + 2])
            begins = np.searchsorted(self._addresses[frames], own[changed])  # a page is what its first frame is
            zero += int(np.count_nonzero(self._zero[frames][np.minimum(begins, frames.stop - frames.start - 1)]))
        n_changed = self.n_pages - self.looks[-1].unchanged
        return Volatility(self.looks[-1].seconds, self.n_pages, n_changed, zero, n_changed - zero)

    def lifetime(self) -> Lifetime | None:
        """How long matched pages stay as they are, from all looks; None if there was none."""
        if not self.looks:
            return None
        unchanged = [(0.0, self.n_pages), *((look.seconds, look.unchanged) for look in self.looks)]
        half_life, method = _half_life(unchanged)
        hours = self.looks[-1].seconds / 3600
        writes = sum(look.changed for look in self.looks) / (self.n_pages * hours) if hours else None
        return Lifetime(tuple(unchanged), half_life, method, writes)


def _half_life(unchanged: Sequence[tuple[float, int]]) -> tuple[float | None, str]:
    """Seconds until half of the pages have changed, and how that was obtained."""
    first, last = unchanged[0], unchanged[-1]
    if last[1] == first[1]:
        return None, f"no page changed in {last[0]:.3g} s"
    half = first[1] / 2
    for (before, more), (after, fewer) in pairwise(unchanged):
        if fewer <= half:
            return before + (after - before) * (more - half) / (more - fewer), "interpolated between two looks"
    # What changes all the time has changed by the first look; how fast the rest does, the looks after it tell.
    (begin, more), (end, fewer) = unchanged[1], last
    if more == fewer:
        return None, f"no page changed from the first look after {begin:.3g} s to the last after {end:.3g} s"
    # Changes by the time that pages were seen unchanged: the likeliest rate if that is constant.
    exposed = sum((after - before) * (more + fewer) / 2 for (before, more), (after, fewer) in pairwise(unchanged[1:]))
    rate = (more - fewer) / exposed
    how = f"extrapolated from {begin:.3g} to {end:.3g} s, as if pages went on changing at the rate seen then"
    return end + math.log(fewer / half) / rate, how


def _wait(until: float, report: Callable[[float, float], None]) -> None:
    """Sleep, in steps short enough that progress moves."""
    total = until - time.monotonic()
    while (left := until - time.monotonic()) > 0:
        report(total - left, total)
        time.sleep(min(left, 0.2))
    report(total, total)


def _reporter(progress: Progress | None, phase: str) -> Callable[[float, float], None]:
    def report(done: float, total: float) -> None:
        if progress is not None and total > 0:
            progress(phase, int(done * 1000), int(total * 1000))

    return report
