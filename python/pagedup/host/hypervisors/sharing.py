"""The sharing scanner of a host: it runs, and what it does is charged to the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pagedup.host.costs import Operation
from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.sharing.policies import EsxCounts, KsmScanCounts

if TYPE_CHECKING:
    from pagedup.host.hypervisors.hypervisor import HostView


class Sharing(HostPolicy):
    """The policy that lets the pool's scanner go on.

    Args:
        runs: whether it does so now, asked each tick.
    """

    def __init__(self, host: HostView, runs: Callable[[], bool] = lambda: True) -> None:
        self._host = host
        self._runs = runs
        self._charged = (0, 0, 0)

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        if self._runs():
            self._host.pool.scan(seconds)

    def settle(self) -> None:
        """See HostPolicy: counting the visits of which nothing came takes as long as they would have."""
        done = self._done()  # breaking large pages shares, too
        for what, now, before in zip(_WORK, done, self._charged, strict=True):
            self._host.charge(what, now - before)
        self._charged = done

    def _done(self) -> tuple[int, int, int]:
        counts: KsmScanCounts | EsxCounts = self._host.pool.scan_counts()
        hashed = counts.pages_checksummed if isinstance(counts, KsmScanCounts) else counts.pages_hashed
        return counts.pages_scanned, hashed, self._host.pool.counts().pages_merged


_WORK = (Operation.SCAN_VISIT, Operation.SCAN_HASH, Operation.SHARE)
