"""What a hypervisor is to the host: settings, and policies made of them for one host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pagedup.guests.spec import Part

if TYPE_CHECKING:
    from pagedup.host.guest import HostGuest
    from pagedup.host.host import Host
    from pagedup.host.scenario import Machine
    from pagedup.sharing.policies import Policy


class HostPolicy(Protocol):
    """One means by which a hypervisor governs memory. The host asks its policies in the order in which they stand."""

    @property
    def state(self) -> str:
        """The hypervisor's word for how short memory is, or "" if this policy has none."""

    def admits(self, guest: HostGuest) -> bool:
        """Whether the guest may start now. It is asked once; a guest that is refused never runs."""

    def tick(self, seconds: float) -> None:
        """So much simulated time has passed, in which the guests have run."""

    def make_room(self, frames: int, guest: HostGuest) -> None:
        """The guest waits for so many frames: free them, as far as this policy's means go."""


class Hypervisor(Part, frozen=True, kw_only=True, tag_field="kind"):
    """Settings, with published defaults. A new hypervisor is a file with a subclass, named in this package.

    name: what reports call it; "": its kind.
    """

    name: str = ""

    @property
    def kind(self) -> str:
        """As in scenarios: "esxi"."""
        return str(self.__struct_config__.tag)

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or self.kind

    def sharing(self, machine: Machine, seed: int) -> Policy | None:
        """How its pool shares pages; None: not at all."""
        raise NotImplementedError

    def compressed_share(self) -> float:
        """The most that its compression cache may take, as a share of a guest's memory."""
        return 0.0

    def policies(self, host: Host) -> Sequence[HostPolicy]:
        """Its means for this host, in the order in which they are asked."""
        raise NotImplementedError
