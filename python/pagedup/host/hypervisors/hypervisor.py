"""What a hypervisor is to the host: settings, and policies made of them for one host."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Protocol

from pagedup.guests.spec import Part

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pagedup.host.costs import Operation
    from pagedup.host.guest import HostGuest
    from pagedup.host.scenario import GuestSet, Machine
    from pagedup.sharing.frame_pool import FramePool
    from pagedup.sharing.policies import Policy


class HostView(Protocol):
    """What policies see of their host."""

    @property
    def pool(self) -> FramePool:
        """Its frames, and the pages of its guests."""

    @property
    def guests(self) -> Sequence[HostGuest]:
        """Those that run, in the order of their numbers."""

    @property
    def capacity(self) -> int:
        """Frames for guests, and for what is compressed: the machine's less those that the hypervisor keeps."""

    @property
    def free(self) -> int:
        """Frames that can still be given out."""

    @property
    def now(self) -> float:
        """Seconds of simulated time."""

    @property
    def machine(self) -> Machine:
        """As the scenario describes it."""

    @property
    def large_pages(self) -> bool:
        """Whether guests get large pages at their first touch."""

    def charge(self, what: Operation, times: int) -> None:
        """The host's own CPU has done so many more."""

    def rng(self, name: str) -> np.random.Generator:
        """Random numbers for that purpose, from the scenario's seed: each call with a name begins anew."""

    def page_out(self, guest: HostGuest, gpns: NDArray[np.uint32]) -> int:
        """Page out what these pages hold, and return how many went; the others stay where they are."""


class HostPolicy:
    """One means by which a hypervisor governs memory. The host asks its policies in the order in which they stand.

    This one does nothing; others override what they have to do with.
    """

    @property
    def state(self) -> str:
        """The hypervisor's word for how short memory is, or "" if this policy has none."""
        return ""

    @property
    def assigned(self) -> int:
        """Frames that guests hold by this policy, be they in use or not; 0 if it assigns none."""
        return 0

    def admits(self, guest: HostGuest) -> bool:
        """Whether the guest may start now. It is asked once; a guest that is refused never runs."""
        return True

    def tick(self, seconds: float) -> None:
        """So much simulated time has passed, in which the guests have run."""

    def settle(self) -> None:
        """Charge what was done and is not charged yet, since telling how much that is takes time: somebody asks."""

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

    def domain(self, settings: GuestSet) -> Hashable:
        """Of a guest: only guests of equal domains ever share a frame."""
        return None

    def left_large(self, without_equal: float) -> Sequence[tuple[str, float]]:
        """When it leaves how large a share of memory in large pages; without_equal: of which no page has an equal."""
        return ()

    def compressed_share(self) -> float:
        """The most that its compression cache may take, as a share of a guest's memory."""
        return 0.0

    def policies(self, host: HostView) -> Sequence[HostPolicy]:
        """Its means for this host, in the order in which they are asked."""
        raise NotImplementedError
