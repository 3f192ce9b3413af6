"""Live memory goes on changing: which of the pages that were found to be equal stay as they are, and for how long."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory import LiveSource, Source
from pagedup.sharing.duplicates import Duplicates

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory import Progress


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the matched pages found.

    seconds: since they were copied. changed: how many differ from what they were at the look before this one.
    unchanged: how many have been found as they were copied at every look so far.
    """

    seconds: float
    changed: int
    unchanged: int


class Watch:
    """The matched pages of live guests: those with a frame that is zero or whose content stands more than once.

    Attributes:
        n_pages: how many there are, of the system's page size.
        looks: what each look found.
    """

    def __init__(self, sources: Sequence[Source], duplicates: Duplicates) -> None:
        """Choose the pages; `sources` are the guests of `duplicates`, in that order."""
        self._duplicates = duplicates
        self._mask = np.uint64(-os.sysconf("SC_PAGE_SIZE") % (1 << 64))
        matched = duplicates.counts().copies[duplicates.canonical] > 1
        matched |= duplicates.zero
        addresses = duplicates.addresses
        self._guests: list[tuple[LiveSource, slice]] = []
        self._pages: list[NDArray[np.uint64]] = []
        self._changed: list[NDArray[np.bool_]] = []
        for source, start, end in zip(
            sources, duplicates.guest_offsets[:-1].tolist(), duplicates.guest_offsets[1:].tolist(), strict=True
        ):
            own = slice(start, end)
            if isinstance(source, LiveSource) and matched[own].any():
                pages = addresses[own][matched[own]] & self._mask
                pages = pages[np.diff(pages, prepend=pages[0] + np.uint64(1)) != 0]  # frames may be smaller than pages
                self._guests.append((source, own))
                self._pages.append(pages)
                self._changed.append(np.zeros(len(pages), np.bool_))
        self._addresses = addresses
        self.n_pages = sum(map(len, self._pages))
        self.looks: list[Look] = []

    def look(self, repeat: int, interval: float, progress: Progress | None = None) -> None:
        """Look `repeat` times, `interval` seconds apart, the first time so long after copying.

        A time that is past is now. Raises OSError when a guest ended.
        """
        if not self.n_pages:
            return
        copied = max(source.copied_at for source, _ in self._guests)
        for number in range(repeat):
            _wait(copied + (number + 1) * interval, _reporter(progress, f"waiting for look {number + 1} of {repeat}"))
            now = time.monotonic()
            changed = unchanged = 0
            for index, (source, _) in enumerate(self._guests):
                found = source.look_again(self._pages[index])
                changed += int(np.count_nonzero(found))
                self._changed[index] |= found
                unchanged += int(np.count_nonzero(~self._changed[index]))
                if progress is not None:
                    progress("looking again", index + 1, len(self._guests))
            self.looks.append(Look(now - copied, changed, unchanged))

    def volatile(self) -> NDArray[np.bool_]:
        """Bool ndarray (n_frames,): which frames lie in a page that had changed at any look."""
        mask = np.zeros(self._duplicates.n_frames, np.bool_)
        for (_, own), pages, changed in zip(self._guests, self._pages, self._changed, strict=True):
            if changed.any():
                mask[own] = np.isin(self._addresses[own] & self._mask, pages[changed])
        return mask


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
