"""What guests lose in translation: nothing under large pages, and what the model says under small ones."""

from typing import Any

import numpy as np
import pytest

from pagedup.host import Costs, GuestSet, Host, HostGuest, HyperV, Machine, Phase
from pagedup.host.lost_reach import LostReach
from pagedup.host.translation import Translation
from pagedup.memory.layouts import RegionKind
from pagedup.tlb import microarchitecture
from tests.host_guests import layout_of

PAGES = 64 * 512
PHASE = Phase(touches=1000, working_set=0.5)
COSTS = Costs(page_turns=2000)


def running(*, large_pages: bool, phase: Phase = PHASE, costs: Costs = COSTS) -> tuple[Host, HostGuest]:
    """Two alike guests that have run for ten minutes."""
    host = Host(Machine(memory="2 GiB"), HyperV(), large_pages=large_pages, costs=costs, seed=5)
    settings = GuestSet(layout="here", boot=5, phases=(phase,), large_pages=True)
    for number in range(2):
        assert host.start(layout_of([RegionKind.HEAP] * PAGES, number), settings)
    host.run(600)
    return host, host.guests[0]


def test_large_pages_lose_nothing() -> None:
    host, _ = running(large_pages=True)
    with host:
        assert host.watch.tlb_seconds == 0


def test_small_pages_lose_what_the_model_says() -> None:
    host, guest = running(large_pages=False)
    with host:
        translation = Translation(microarchitecture("Zen 4"), PAGES, large_in_guest=True)
        gpns = host.work(guest).like(40_000)
        small, large = (translation.cycles(gpns, np.full(64, each)) for each in (False, True))
        share = 1000 * 2000 * (small - large) / 2.5e9
        assert small > 2 * large and share > 0.01
        assert host.watch.tlb_seconds == pytest.approx(2 * 600 * share, rel=0.1)  # but for the time of the start
        assert host.watch.slowdown > 1 + 0.8 * share


def test_it_is_in_proportion_to_the_turns_and_the_touches() -> None:
    lost = []
    for costs, phase in (
        (COSTS, PHASE),
        (Costs(page_turns=4000), PHASE),
        (COSTS, Phase(touches=500, working_set=0.5)),
        (COSTS, Phase(touches=0, working_set=0.5)),
    ):
        host, guest = running(large_pages=False, costs=costs)
        with host:
            work: Any = _Touching(host.work(guest), phase)
            lost.append(LostReach(host.machine, costs.page_turns).share(guest, work, 0.0))
    assert lost[0] > 0
    assert lost[1] == pytest.approx(2 * lost[0])
    assert lost[2] == pytest.approx(lost[0] / 2)
    assert lost[3] == 0


class _Touching:
    """Work that touches pages as often as another phase says."""

    def __init__(self, work: Any, phase: Phase) -> None:
        self.phase = phase
        self.touches = phase.touches
        self.like = work.like


def test_looking_at_it_changes_nothing() -> None:
    """A guest's accesses are the same whether somebody asks what they are like or not."""
    accesses = []
    for asks in (False, True):
        host, guest = running(large_pages=False)
        with host:
            work = host.work(guest)
            if asks:
                work.like(100)
            accesses.append(work.accesses(600.0, 10.0))
    assert (accesses[0][0] == accesses[1][0]).all() and (accesses[0][1] == accesses[1][1]).all()


def test_an_unknown_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cpu: there is no microarchitecture 'Zen 9'; there are Zen 2"):
        Machine(memory="2 GiB", cpu="Zen 9")


def test_half_of_the_pages_lose_about_half_of_the_time() -> None:
    host, guest = running(large_pages=True)
    with host:
        reach = LostReach(host.machine, 2000)
        assert reach.share(guest, host.work(guest), 0.0) == 0
        guest.pool.break_large(np.arange(0, 64, 2))
        half = reach.share(guest, host.work(guest), 10.0)
        guest.pool.break_large(np.arange(1, 64, 2))
        whole = reach.share(guest, host.work(guest), 20.0)
        assert 0.3 * whole < half < 0.7 * whole


def test_guests_that_differ_are_not_looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    host, guest = running(large_pages=True)
    with host:
        looks: list[float] = []
        cycles = Translation.cycles

        def counted(self: Translation, gpns: Any, large: Any) -> float:
            looks.append(cycles(self, gpns, large))
            return looks[-1]

        monkeypatch.setattr(Translation, "cycles", counted)
        reach = LostReach(host.machine, 2000)
        host.guests[1].pool.break_large(np.arange(64))
        guest.pool.break_large(np.arange(4))
        times = np.arange(0.0, 1800.0, 60.0).tolist()
        lost = [[reach.share(each, host.work(each), now) for each in host.guests] for now in times]
        assert len(looks) == 2 * 2  # the first guest, then the one with more: under small pages, and large
        assert lost[-1][0] == pytest.approx(lost[-1][1] / 16)
        reach.share(guest, host.work(guest), 1801.0)
        assert len(looks) == 3 * 2
