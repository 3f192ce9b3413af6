"""ksmtuned, the script that decides whether KSM runs, and how fast."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.sharing.policies import Ksm

if TYPE_CHECKING:
    from pagedup.host.hypervisors.hypervisor import HostView

_MIB, _GIB = 1 << 20, 1 << 30
_LEAST_SLEEP = 10
"""Milliseconds; the script goes no lower."""


class KsmTuning(NamedTuple):
    """Settings of /etc/ksmtuned.conf, of the same names: seconds, pages, milliseconds, percent, MiB."""

    monitor_interval: float
    npages_boost: int
    npages_decay: int
    npages_min: int
    npages_max: int
    sleep_msec: float
    thres_coef: float
    thres_const: float

    def threshold(self, total: int) -> int:
        """Bytes that are to stay free, of a machine with so many."""
        return max(int(total * self.thres_coef / 100), int(self.thres_const * _MIB))

    def sleep(self, total: int) -> int:
        """Milliseconds between two times that KSM wakes: sleep_msec on 16 GiB, more on less memory."""
        return max(int(self.sleep_msec * 16 * _GIB / total), _LEAST_SLEEP)

    def npages(self, before: int, total: int, committed: int, free: int) -> int | None:
        """Pages of each time that KSM wakes, after so many; None: it is stopped. All other arguments are bytes.

        It runs if what the guests take and the threshold are more than there is, or less is free than the threshold;
        faster each time while less is free than that, and else slower.
        """
        threshold = self.threshold(total)
        if committed + threshold < total and free > threshold:
            return None
        step = self.npages_boost if free < threshold else self.npages_decay
        return min(max(before + step, self.npages_min), self.npages_max)


class KsmTuned(HostPolicy):
    """The policy that looks at the host's memory once a minute, and sets KSM's pace; asked before it runs.

    Until it has looked for the first time, KSM does not run.
    """

    def __init__(self, host: HostView, tuning: KsmTuning, total: int, page: int) -> None:
        ksm = host.pool.policy
        assert isinstance(ksm, Ksm)
        self._host = host
        self._tuning = tuning
        self._ksm = ksm
        self._total = total
        self._page = page
        self._npages = 0
        self._seconds = 0.0
        self._runs = False

    def runs(self) -> bool:
        """Whether KSM does."""
        return self._runs

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        self._seconds += seconds
        if self._seconds < self._tuning.monitor_interval - 1e-6:
            return
        self._seconds = 0.0
        committed = self._host.pool.counts().pages_present * self._page  # resident, as ps tells it of each guest
        npages = self._tuning.npages(self._npages, self._total, committed, self._host.free * self._page)
        self._runs = npages is not None
        if npages is not None:
            self._npages = npages
            pace = replace(self._ksm, pages_to_scan=npages, sleep_millisecs=self._tuning.sleep(self._total))
            self._host.pool.retune(pace)
