"""Hypervisors: each a named set of published defaults, and the policies that it asks in order."""

from pagedup.host.hypervisors.esxi import Esxi
from pagedup.host.hypervisors.hyperv import HyperV
from pagedup.host.hypervisors.hypervisor import HostPolicy, HostView, Hypervisor
from pagedup.host.hypervisors.kvm import Kvm

AnyHypervisor = Esxi | Kvm | HyperV

__all__ = ["AnyHypervisor", "Esxi", "HostPolicy", "HostView", "HyperV", "Hypervisor", "Kvm"]
