"""VMware ESXi."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from pagedup.guests.spec import Share, Size, pages_of
from pagedup.host.hypervisors.active_memory import ActiveMemory
from pagedup.host.hypervisors.allocation import Allocation
from pagedup.host.hypervisors.ballooning import Ballooning
from pagedup.host.hypervisors.hypervisor import HostPolicy, HostView, Hypervisor
from pagedup.host.hypervisors.large_breaks import LargeBreaks
from pagedup.host.hypervisors.memory_states import MemoryStates
from pagedup.host.hypervisors.sharing import Sharing
from pagedup.host.hypervisors.sharing_call import SharingCall
from pagedup.host.hypervisors.swapping import Swapping
from pagedup.sharing.policies import Esx

if TYPE_CHECKING:
    from pagedup.host.scenario import GuestSet, Machine

Percent = Annotated[float, Meta(ge=0, le=100)]
Positive = Annotated[float, Meta(gt=0, le=1e6)]

_STATES = ("high_pct", "clear_pct", "soft_pct", "hard_pct", "low_pct")


class Esxi(Hypervisor, frozen=True, kw_only=True, tag="esxi"):
    """Page sharing, balloons, compression and swapping, by states of free memory.

    Published, as ESXi's settings are shipped: share_scan_time 60 minutes (Mem.ShareScanTime), share_scan_ghz 4 MB/s per
    GHz (Mem.ShareScanGHz), share_rate_max 1024 pages a second and guest (Mem.ShareRateMax), share_force_salting 2
    (Mem.ShareForceSalting, since 2014), idle_tax 75 % (Mem.IdleTax), ctl_max_percent 65 % of a guest that its balloon
    can be (Mem.CtlMaxPercent), mem_zip_max_pct 10 % of a guest that the compression cache can be (Mem.MemZipMaxPct;
    here of what the host has for all guests, whoever's pages are in it).

    Published, of the states: high_pct 400, below which large pages are broken, clear_pct 100, soft_pct 64, hard_pct 32,
    low_pct 16, each a percentage of minFree (Epping, 2015; another source says 300 for high). sample_pages 100 and
    sample_seconds 30: pages of each guest that are sampled to know what is idle (Waldspurger, OSDI 2002).

    Assumed: hysteresis, the share by which more must be free than a state's level before it is left for a better one
    ("significantly" more, OSDI 2002; "slightly", Epping 2015). balloon_rate, a second: by which a balloon can grow or
    shrink; that it is limited is published (OSDI 2002).
    """

    share_scan_time: Positive = 60.0
    share_scan_ghz: Positive = 4.0
    share_rate_max: Positive = 1024.0
    share_force_salting: Literal[0, 1, 2] = 2
    idle_tax: Annotated[float, Meta(ge=0, le=99)] = 75.0
    ctl_max_percent: Percent = 65.0
    mem_zip_max_pct: Percent = 10.0
    high_pct: Positive = 400.0
    clear_pct: Positive = 100.0
    soft_pct: Positive = 64.0
    hard_pct: Positive = 32.0
    low_pct: Positive = 16.0
    hysteresis: Share = 0.1
    balloon_rate: Size = "8 MiB"
    sample_pages: Annotated[int, Meta(ge=1, le=10_000)] = 100
    sample_seconds: Positive = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for (above, upper), (below, lower) in pairwise((name, getattr(self, name)) for name in _STATES):
            if lower >= upper:
                raise ValueError(f"{below} is {lower:g}; it must be less than {above}, which is {upper:g}")

    def sharing(self, machine: Machine, seed: int) -> Esx:
        """See Hypervisor."""
        return Esx(
            cpu_ghz=machine.cores * machine.ghz,
            share_scan_time=self.share_scan_time,
            share_scan_ghz=self.share_scan_ghz,
            share_rate_max=self.share_rate_max,
            share_force_salting=self.share_force_salting,
            seed=seed,
        )

    def domain(self, settings: GuestSet) -> Hashable:
        """See Hypervisor: its salt, as far as salting is on (`Esx.domain`)."""
        return settings.salt or None

    def left_large(self, without_equal: float) -> Sequence[tuple[str, float]]:
        """See Hypervisor."""
        return (("while memory is enough", 1.0), ("when memory is short", 0.0))

    def compressed_share(self) -> float:
        """See Hypervisor."""
        return self.mem_zip_max_pct / 100

    def policies(self, host: HostView) -> Sequence[HostPolicy]:
        """See Hypervisor."""
        states = MemoryStates(host, [getattr(self, name) for name in _STATES], self.hysteresis)
        active = ActiveMemory(host, self.sample_pages, self.sample_seconds)
        allocation = Allocation(host, active.of, self.idle_tax / 100)
        rate = pages_of(self.balloon_rate, "balloon_rate")
        return [
            states,
            active,
            allocation,
            LargeBreaks(host, states),
            SharingCall(host, states),
            Sharing(host),
            Ballooning(host, states, allocation, self.ctl_max_percent / 100, rate),
            Swapping(host, states, allocation),
        ]
