"""Microsoft Hyper-V."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pagedup.host.hypervisors.dynamic_memory import DynamicMemory
from pagedup.host.hypervisors.hypervisor import HostPolicy, HostView, Hypervisor

if TYPE_CHECKING:
    from pagedup.host.scenario import Machine


class HyperV(Hypervisor, frozen=True, kw_only=True, tag="hyperv"):
    """Dynamic Memory: hot add, and balloons; each guest has its own settings (`dynamic_memory` of a set of guests).

    Published (Savill, "Mastering Windows Server 2016 Hyper-V", 2016): no page sharing, no swapping by the hypervisor
    while guests run, and never more assigned than there is; a guest whose startup memory does not fit does not start.
    Smart Paging, which is for guests that restart, is left out: none does.
    """

    def sharing(self, machine: Machine, seed: int) -> None:
        """See Hypervisor."""

    def left_large(self, without_equal: float) -> Sequence[tuple[str, float]]:
        """See Hypervisor."""
        return (("always", 1.0),)

    def policies(self, host: HostView) -> Sequence[HostPolicy]:
        """See Hypervisor."""
        return [DynamicMemory(host)]
