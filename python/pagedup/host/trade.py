"""What large pages cost in sharing and small ones in translation: both, as ever fewer large pages are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from pagedup.guests import generate
from pagedup.host.page_use import LayoutUse
from pagedup.host.simulate import guest_spec
from pagedup.host.translation import Translation
from pagedup.host.work import Work
from pagedup.host.zipf import zipf_chances
from pagedup.memory.layouts import PAGE
from pagedup.sharing.find import find_duplicates
from pagedup.sharing.frame_pool import LARGE_PAGE
from pagedup.tlb import microarchitecture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.host.costs import Costs
    from pagedup.host.hypervisors import Hypervisor
    from pagedup.host.scenario import GuestSet, Machine, Scenario
    from pagedup.memory.layouts import Layout

POINTS = 11
_ACCESSES = 100_000  # the first half warms up
_SPACE = 8  # bytes of a name
_GUESTS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One order in which large pages are broken; arrays of POINTS, from all large to none.

    order: which are first. large: float64, the share of memory that is still in large pages. saved: float64, bytes that
    sharing the others saves. cycles: float64, of translation for each page turned to. lost: float64, the share of its
    time that a guest loses by that, beside one with large pages alone. net: float64, in guests: those whose memory is
    saved, less those for whom the cores would have been that are lost.
    """

    order: str
    large: NDArray[np.float64]
    saved: NDArray[np.float64]
    cycles: NDArray[np.float64]
    lost: NDArray[np.float64]
    net: NDArray[np.float64]

    @property
    def best(self) -> int:
        """The point with the most net."""
        return int(np.argmax(self.net))


@dataclass(frozen=True, slots=True, eq=False)
class Trade:
    """Large pages against sharing, for some guests under one hypervisor.

    hypervisor: as the scenario calls it. layout: of the guests, as their settings say; guests: how many. memory: bytes
    of all of them. curves: by order. policy: when the hypervisor itself leaves how large a share in large pages.
    """

    hypervisor: str
    layout: str
    guests: int
    memory: int
    curves: Sequence[Curve]
    policy: Sequence[tuple[str, float]]

    @property
    def best(self) -> Curve:
        """The curve that has the best point of all."""
        return max(self.curves, key=lambda curve: float(curve.net[curve.best]))


class _Booted:
    """A guest's memory as its layout has it, as Work takes it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.pages = layout.n_pages
        self.uses = LayoutUse(layout).of_all()


def trade(
    layouts: Sequence[Layout],
    settings: GuestSet,
    hypervisor: Hypervisor,
    *,
    machine: Machine,
    costs: Costs,
    seed: int = 0,
) -> Trade:
    """Break the large pages of guests, each like `settings`, in three orders, and look at every tenth of them.

    Coldest first: those go first whose pages are accessed least, and of those that are not accessed the ones with the
    most equal pages (Guo et al., VEE 2015; SmartMD, ATC 2017). Most equal first: those that save most. At random. What
    a small page saves is counted within what the hypervisor lets share; a large page shares nothing. Translation is
    that of the first guest's working set, in its first phase, on machine.cpu.

    layouts: of at least one guest, all of as many pages; of the last range of 2 MiB a part is left out. Takes some 30
    bytes a page. Raises ValueError for layouts that cannot be compared.
    """
    ranges = layouts[0].n_pages // LARGE_PAGE
    if any(layout.n_pages != layouts[0].n_pages for layout in layouts) or not ranges:
        raise ValueError("layouts differ in their pages, or have less than 2 MiB; trade takes guests of one kind")
    work = [_work(layout, settings, seed + number) for number, layout in enumerate(layouts)]
    heat = np.concatenate([_heat(each, settings, ranges) for each in work])
    contents = _contents(layouts, settings, hypervisor, machine, ranges)
    equal = _equal(contents)
    dice = np.random.default_rng(seed)
    orders = {
        "coldest first": np.lexsort((-equal, heat)),
        "most equal first": np.lexsort((heat, -equal)),
        "at random": dice.permutation(len(heat)),
    }
    gpns, _ = work[0].accesses(0.0, _ACCESSES / max(settings.phases[0].touches, 1e-9))
    weigh = _Weigh(settings, machine, costs, len(layouts), layouts[0].n_pages, gpns)
    return Trade(
        hypervisor=hypervisor.title,
        layout=settings.layout,
        guests=len(layouts),
        memory=len(layouts) * layouts[0].n_pages * PAGE,
        curves=[weigh.curve(name, order, contents, ranges) for name, order in orders.items()],
        policy=hypervisor.left_large(float(np.mean(equal == 0))),
    )


def trades(
    scenario: Scenario, *, folder: str = ".", progress: Callable[[str, int, int], None] | None = None
) -> list[Trade]:
    """For each set of guests under each of the scenario's hypervisors, with up to six of the guests.

    folder: what paths in the scenario are relative to. Raises SpecError, as simulate does.
    """
    found = []
    for number, settings in enumerate(scenario.guests):
        spec = guest_spec(scenario, number, folder)
        some = msgspec.structs.replace(spec, guests=min(spec.guests, _GUESTS), aslr=scenario.aslr[0])
        layouts = list(generate([some], None, scenario.seed))
        for done, hypervisor in enumerate(scenario.hypervisors):
            if progress is not None:
                progress("large pages against sharing", done, len(scenario.hypervisors))
            found.append(
                trade(
                    layouts, settings, hypervisor, machine=scenario.host, costs=scenario.costs, seed=scenario.seed
                )
            )
    return found


def _work(layout: Layout, settings: GuestSet, key: int) -> Work:
    return Work(_Booted(layout), settings.phases[:1], key)


def _heat(work: Work, settings: GuestSet, ranges: int) -> NDArray[np.float64]:
    """The share of a guest's accesses that each of its ranges has."""
    work.accesses(0.0, 1e-9)  # its phase begins
    pages = work.working_set
    chances = zipf_chances(len(pages), settings.phases[0].zipf) if len(pages) else np.empty(0)
    return np.bincount(pages // LARGE_PAGE, weights=chances, minlength=ranges + 1)[:ranges].astype(np.float64)


def _contents(
    layouts: Sequence[Layout], settings: GuestSet, hypervisor: Hypervisor, machine: Machine, ranges: int
) -> NDArray[np.int64]:
    """(ranges of all guests, LARGE_PAGE): pages with the same number may share a frame."""
    n = ranges * LARGE_PAGE
    policy = hypervisor.sharing(machine, 0)
    own = np.arange(len(layouts) * n, dtype=np.int64)
    if policy is None:
        return own.reshape(-1, LARGE_PAGE)
    domains = [policy.domain(hypervisor.domain(settings), number) for number in range(len(layouts))]
    found = find_duplicates([layout.names[:n] for layout in layouts], frame_size=_SPACE, domains=domains)
    numbers = found.canonical.astype(np.int64)
    present = np.concatenate([layout.present[:n] for layout in layouts])
    return np.where(present, numbers, own + len(own)).reshape(-1, LARGE_PAGE)


def _equal(contents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each range the pages whose content is there again, in whatever range."""
    times = np.bincount(contents.ravel())
    equal: NDArray[np.int64] = (times[contents] > 1).sum(axis=1)
    return equal


def _saved(contents: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pages saved once so many ranges are broken, in this order; from none to all."""
    numbers = contents[order].ravel()
    places = np.arange(len(numbers))
    first = np.empty(int(numbers.max()) + 1, np.int64)
    first[numbers[::-1]] = places[::-1]  # of a number that comes again, the last one written stays: its first place
    again = (first[numbers] != places).reshape(contents.shape)
    return np.concatenate(([0], np.cumsum(again.sum(axis=1))))


class _Weigh:
    """What a share of large pages costs and saves, for guests that turn to these pages."""

    def __init__(
        self,
        settings: GuestSet,
        machine: Machine,
        costs: Costs,
        guests: int,
        pages: int,
        gpns: NDArray[np.uint32],
    ) -> None:
        self._translation = Translation(microarchitecture(machine.cpu), pages, large_in_guest=settings.large_pages)
        self._turns = settings.phases[0].touches * costs.page_turns
        self._hertz = machine.ghz * 1e9
        self._cores = machine.cores
        self._guests, self._pages, self._gpns = guests, pages, gpns

    def curve(
        self, name: str, order: NDArray[np.int64], contents: NDArray[np.int64], ranges: int
    ) -> Curve:
        saved = _saved(contents, order)
        broken = np.round(np.linspace(0, len(order), POINTS)).astype(np.int64)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        cycles = np.array([self._translation.cycles(self._gpns, rank[:ranges] >= n) for n in broken])
        lost = self._turns * (cycles - cycles[0]) / self._hertz
        more = saved[broken] / self._pages
        less = self._guests * (self._guests * lost) / self._cores
        return Curve(
            order=name,
            large=1 - broken / len(order),
            saved=(saved[broken] * PAGE).astype(np.float64),
            cycles=cycles,
            lost=lost,
            net=more - less,
        )
