"""To be written."""

from __future__ import annotations

from pagedup.host.hypervisors.hypervisor import Hypervisor


class Kvm(Hypervisor, frozen=True, kw_only=True, tag="kvm"):
    """To be written."""
