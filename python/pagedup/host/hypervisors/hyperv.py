"""To be written."""

from __future__ import annotations

from pagedup.host.hypervisors.hypervisor import Hypervisor


class HyperV(Hypervisor, frozen=True, kw_only=True, tag="hyperv"):
    """To be written."""
