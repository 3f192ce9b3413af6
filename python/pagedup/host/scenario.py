"""What a simulation is of: the host, its guests and what they do, and the hypervisors to compare. From a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pagedup.guests.spec import Part, Share, Size, SpecError
from pagedup.host.costs import Costs
from pagedup.host.hypervisors import AnyHypervisor, Esxi, HyperV, Kvm
from pagedup.tlb import microarchitecture

Positive = Annotated[float, Meta(gt=0, le=1e6)]
NotNegative = Annotated[float, Meta(ge=0, le=1e6)]


class Machine(Part, frozen=True, kw_only=True):
    """The host.

    memory: of the machine; what the hypervisor keeps for itself is `kept`. cores, ghz: its CPU, of which a sharing
    scanner may take a part. cpu: its microarchitecture, one of those that pagedup.tlb knows, for what translation
    costs. swap: the hypervisor's, on a device of that kind; guests' own disks are such devices, too.
    """

    memory: Size
    kept: Size = 0
    cores: Annotated[int, Meta(ge=1, le=4096)] = 16
    ghz: Positive = 2.5
    cpu: str = "Zen 4"
    swap: Size = 0
    device: Literal["disk", "ssd", "nvme"] = "ssd"

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            microarchitecture(self.cpu)
        except ValueError as error:
            raise ValueError(f"cpu: {error}") from None


class Phase(Part, frozen=True, kw_only=True):
    """What a guest does from one time on, until the next phase begins.

    start: hours since the guest was started. touches: pages touched a second. writes: the share of touches that are
    writes. working_set: the share of the memory in use that is touched at all (Denning's working set, at one time).
    zipf: the exponent by which touches prefer some pages to others; 0: all alike. drift: the share of the working set
    that is exchanged for other pages in an hour. burst: pages, of those in use, that are touched once at its begin, as
    at a log-on.
    """

    name: Annotated[str, Meta(min_length=1)] = "work"
    start: NotNegative = 0.0
    touches: NotNegative = 300.0
    writes: Share = 0.3
    working_set: Share = 0.1
    zipf: Annotated[float, Meta(ge=0, le=4)] = 0.8
    drift: NotNegative = 0.5
    burst: Size = 0


class DynamicMemory(Part, frozen=True, kw_only=True):
    """Hyper-V's settings of a virtual machine; other hypervisors take no notice.

    startup: memory that it must have to start. minimum, maximum: what it may be shrunk to and grow to, 0: all of its
    layout. buffer: memory beyond its demand, as a share of that; Hyper-V's default is 20 %. weight: 0 to 10,000, who
    goes first where memory is short; 5,000 by default. (Savill, "Mastering Windows Server 2016 Hyper-V", 2016.)
    """

    startup: Size = "1 GiB"
    minimum: Size = "512 MiB"
    maximum: Size = 0
    buffer: Annotated[float, Meta(ge=0.05, le=20)] = 0.2
    weight: Annotated[int, Meta(ge=0, le=10_000)] = 5000


class GuestSet(Part, frozen=True, kw_only=True):
    """Guests of one kind.

    layout: a preset of `pagedup layout`, or the path of a specification (docs/layouts.md), relative to the scenario's.
    count: how many; 0: as many as the specification says. start: when the first is started, in seconds of simulated
    time; every: the time between two. boot: seconds that a start takes, in which all of its memory is written.
    shares, reservation, limit: ESXi's, by which memory is divided where it is short (Waldspurger, OSDI 2002); limit 0:
    none. salt: guests of one salt share under salting 1 and 2; "" is none. large_pages: whether the guest's system
    itself maps its memory in pages of 2 MiB (Linux with transparent huge pages; Windows does not for programs).
    """

    layout: Annotated[str, Meta(min_length=1)]
    count: Annotated[int, Meta(ge=0, le=100_000)] = 0
    start: NotNegative = 0.0
    every: NotNegative = 20.0
    boot: Positive = 60.0
    shares: Annotated[int, Meta(ge=1, le=10**9)] = 1000
    reservation: Size = 0
    limit: Size = 0
    salt: str = ""
    large_pages: bool = False
    dynamic_memory: DynamicMemory = DynamicMemory()
    phases: tuple[Phase, ...] = (Phase(),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.phases:
            raise ValueError("phases is empty; at least one is needed")
        starts = [phase.start for phase in self.phases]
        if starts[0] != 0:
            raise ValueError(f"phases: the first starts at {starts[0]:g} hours; it must start at 0")
        if sorted(set(starts)) != starts:
            raise ValueError("phases: each must start later than the one before it")


class Scenario(Part, frozen=True, kw_only=True):
    """One question.

    hours: of simulated time. tick: seconds of one step. trace: a file of accesses (docs/simulate.md), played beside
    what the phases say. hypervisors: those to compare, each by itself on the same host with the same guests.
    large_pages, aslr: both can be lists of true and false, all of which are combined. compressible: the share of pages
    that compress to half or less; of content names nobody can tell, so it is assumed. sources: for each field where its
    value comes from.
    """

    name: Annotated[str, Meta(min_length=1)] = "scenario"
    hours: Positive
    tick: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    host: Machine
    guests: tuple[GuestSet, ...]
    hypervisors: tuple[AnyHypervisor, ...] = (Esxi(), Kvm(), HyperV())
    large_pages: tuple[bool, ...] = (True,)
    aslr: tuple[bool, ...] = (True,)
    compressible: Share = 0.5
    trace: str = ""
    costs: Costs = Costs()
    sources: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("guests", "hypervisors", "large_pages", "aslr"):
            if not getattr(self, field):
                raise ValueError(f"{field} is empty; at least one is needed")
        titles = [hypervisor.title for hypervisor in self.hypervisors]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        if twice is not None:
            raise ValueError(f"hypervisors: '{twice}' is there twice; each needs a name of its own")


def read_scenario(path: str) -> Scenario:
    """The scenario in a TOML file. OSError if it cannot be read, SpecError for what is wrong, with its field."""
    try:
        return msgspec.toml.decode(Path(path).read_bytes(), type=Scenario)
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: bytes or digits that TOML's reader refuses
        raise SpecError(f"{path}: {error}") from None
    except RecursionError:
        raise SpecError(f"{path}: brackets are nested too deeply") from None
