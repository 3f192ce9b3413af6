"""Linux with KVM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from pagedup.guests.spec import pages_of, size_of
from pagedup.host.hypervisors.hypervisor import HostPolicy, HostView, Hypervisor
from pagedup.host.hypervisors.ksm_tuned import KsmTuned, KsmTuning
from pagedup.host.hypervisors.kswapd import Kswapd
from pagedup.host.hypervisors.sharing import Sharing
from pagedup.host.hypervisors.watermarks import watermarks
from pagedup.memory.layouts import PAGE
from pagedup.sharing.policies import Ksm

if TYPE_CHECKING:
    from pagedup.host.scenario import Machine

Positive = Annotated[float, Meta(gt=0, le=1e6)]
Pages = Annotated[int, Meta(ge=1, le=10**6)]


class Kvm(Hypervisor, frozen=True, kw_only=True, tag="kvm"):
    """KSM, whose pace ksmtuned sets, and Linux's swap; balloons are not used, since nothing moves them by default.

    Published, of ksmtuned (Red Hat's Virtualization Tuning Guide, and the script): monitor_interval 60 seconds between
    two looks, npages_boost 300 and npages_decay -50 by which the pages that KSM visits each time rise and fall, within
    npages_min 64 and npages_max 1250; sleep_msec 10 between two times, on 16 GiB; thres_coef 20 % of memory, or
    thres_const 2048 MiB if that is more, which are to stay free.

    Published, of Linux: max_page_sharing 256, use_zero_pages off, smart_scan on
    (Documentation/admin-guide/mm/ksm.rst), watermark_scale_factor 10, which is 0.1 % of memory
    (Documentation/admin-guide/sysctl/vm.rst).
    """

    monitor_interval: Positive = 60.0
    npages_boost: Annotated[int, Meta(ge=0, le=10**6)] = 300
    npages_decay: Annotated[int, Meta(ge=-(10**6), le=0)] = -50
    npages_min: Pages = 64
    npages_max: Pages = 1250
    sleep_msec: Positive = 10.0
    thres_coef: Annotated[float, Meta(ge=0, le=100)] = 20.0
    thres_const: Annotated[float, Meta(ge=0, le=1e9)] = 2048.0
    max_page_sharing: Annotated[int, Meta(ge=2, le=2**31 - 1)] = 256
    use_zero_pages: bool = False
    smart_scan: bool = True
    watermark_scale_factor: Annotated[int, Meta(ge=1, le=3000)] = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.npages_min > self.npages_max:
            raise ValueError(
                f"npages_min is {self.npages_min}; it must be at most npages_max, which is {self.npages_max}"
            )

    def sharing(self, machine: Machine, seed: int) -> Ksm:
        """See Hypervisor."""
        return Ksm(
            max_page_sharing=self.max_page_sharing, use_zero_pages=self.use_zero_pages, smart_scan=self.smart_scan
        )

    def left_large(self, without_equal: float) -> Sequence[tuple[str, float]]:
        """See Hypervisor: KSM breaks each large page in which it finds a page to merge."""
        return (("when KSM has been everywhere", without_equal),)

    def policies(self, host: HostView) -> Sequence[HostPolicy]:
        """See Hypervisor."""
        tuning = KsmTuning(*(getattr(self, name) for name in KsmTuning._fields))
        total = size_of(host.machine.memory, "host.memory")
        tuned = KsmTuned(host, tuning, total, PAGE)
        marks = watermarks(pages_of(host.machine.memory, "host.memory"), self.watermark_scale_factor)
        return [tuned, Sharing(host, tuned.runs), Kswapd(host, marks)]
