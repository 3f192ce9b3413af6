"""ESXi's call for page sharing when memory gets short."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pagedup.host.hypervisors.hypervisor import HostPolicy
from pagedup.host.hypervisors.memory_states import MemoryState
from pagedup.sharing.policies import Esx

if TYPE_CHECKING:
    from pagedup.host.hypervisors.hypervisor import HostView
    from pagedup.host.hypervisors.memory_states import MemoryStates

_CALLED = (MemoryState.CLEAR, MemoryState.SOFT, MemoryState.HARD)
_AT_ONCE = 1e-3
"""Minutes in which to scan a guest: so few that ShareRateMax and ShareScanGHz alone hold."""


class SharingCall(HostPolicy):
    """The policy that lets the scanner be as fast as it may when one of the states clear, soft and hard is come to.

    It is for one pass through the largest guest: then all has been looked at that was there. That ESXi "actively calls"
    page sharing in these states is published (Epping, 2015), and that it adjusts the pace to what there is to be found
    (Guo et al., VEE 2015); assumed is this way, at ShareRateMax, or what ShareScanGHz allows for.
    """

    def __init__(self, host: HostView, states: MemoryStates) -> None:
        usual = host.pool.policy
        assert isinstance(usual, Esx)
        self._host = host
        self._states = states
        self._usual = usual
        self._called = replace(usual, share_scan_time=min(usual.share_scan_time, _AT_ONCE))
        self._was_short = False
        self._left = 0.0  # seconds of the call

    def tick(self, seconds: float) -> None:
        """See HostPolicy."""
        is_short = self._states.state in _CALLED
        if is_short and not self._was_short:
            pages = [guest.pages for guest in self._host.guests]
            self._left = max(n / rate for n, rate in zip(pages, self._called.rates(pages), strict=True)) + seconds
            self._host.pool.retune(self._called)
        elif self._left > 0:
            self._left -= seconds
            if self._left <= 0 or not is_short:
                self._left = 0.0
                self._host.pool.retune(self._usual)
        self._was_short = is_short
