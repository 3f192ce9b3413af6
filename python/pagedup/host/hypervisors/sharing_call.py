"""ESXi's call for page sharing when memory gets short."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.host.hypervisors.memory_states import MemoryState

if TYPE_CHECKING:
    from pagedup.host.hypervisors.hypervisor import HostView
    from pagedup.host.hypervisors.memory_states import MemoryStates
    from pagedup.sharing.policies import Esx

_CALLED = (MemoryState.CLEAR, MemoryState.SOFT, MemoryState.HARD)
_AT_ONCE = 1e-3
"""Minutes in which to scan a guest: so few that ShareRateMax and ShareScanGHz alone hold."""


class SharingCall(HostPolicy):
    """The policy that lets the scanner be as fast as it may in the states clear, soft and hard, and as usual in others.

    That ESXi "actively calls" page sharing there is published (Epping, 2015), and that its pace is adjusted (Guo et
    al., VEE 2015); assumed is that it then scans at ShareRateMax, or what ShareScanGHz allows for.
    """

    def __init__(self, host: HostView, states: MemoryStates, usual: Esx) -> None:
        self._host = host
        self._states = states
        self._paces = (usual, replace(usual, share_scan_time=min(usual.share_scan_time, _AT_ONCE)))
        self._is_called = False

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        called = self._states.state in _CALLED
        if called != self._is_called:
            self._is_called = called
            self._host.pool.retune(self._paces[called])
