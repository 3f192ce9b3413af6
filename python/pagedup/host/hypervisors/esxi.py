"""To be written."""

from __future__ import annotations

from pagedup.host.hypervisors.hypervisor import Hypervisor


class Esxi(Hypervisor, frozen=True, kw_only=True, tag="esxi"):
    """To be written."""
