"""Large pages against sharing: the saving by brute force, the price from the model, and what hypervisors do."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from pagedup.guests import generate, preset
from pagedup.host import Costs, Esxi, GuestSet, HyperV, Kvm, Machine, Phase
from pagedup.host.trade import POINTS, Trade, trade, trades
from pagedup.host.translation import Translation
from pagedup.memory.layouts import Layout, LayoutRegion, RegionKind
from pagedup.tlb import microarchitecture

PAGES = 16 * 512
MACHINE = Machine(memory="64 GiB", cores=4)
SETTINGS = GuestSet(layout="here", phases=(Phase(touches=1000, working_set=0.5, zipf=0.5),))


def guest(number: int, names: Any) -> Layout:
    regions = np.zeros(len(names), np.uint8)
    table = (LayoutRegion(RegionKind.HEAP),)
    runs = np.array([[0, len(names)]], np.uint64)
    return Layout(f"vm-{number}", np.asarray(names, np.uint64), regions, table, runs, "here")


def two_guests() -> list[Layout]:
    """Every other page of theirs is equal; in range 3 nothing is, and range 5 is zero."""
    made = []
    for number in range(2):
        names = np.arange(1, PAGES + 1, dtype=np.uint64)
        names[::2] += np.uint64((number + 1) << 32)
        names[3 * 512 : 4 * 512] = np.arange(512, dtype=np.uint64) + np.uint64((number + 1) << 40)
        names[5 * 512 : 6 * 512] = 0
        made.append(guest(number, names))
    return made


def traded(hypervisor: Any, layouts: list[Layout], settings: GuestSet = SETTINGS) -> Trade:
    return trade(layouts, settings, hypervisor, machine=MACHINE, costs=Costs(), seed=3)


def saved_by(layouts: list[Layout], broken: Any, *, alone: bool) -> int:
    """Pages saved within the broken ranges, counted one by one."""
    seen: set[tuple[int, int]] = set()
    saved = 0
    for number, layout in enumerate(layouts):
        for gpn, name in enumerate(layout.names.tolist()):
            if broken[number][gpn // 512]:
                key = (number if alone else 0, name)
                saved += key in seen
                seen.add(key)
    return saved


def test_all_small_saves_what_sharing_saves() -> None:
    layouts = two_guests()
    everything = np.ones((2, 16), np.bool_)
    for hypervisor, alone in ((Esxi(share_force_salting=0), False), (Esxi(), True), (Kvm(), False)):
        found = traded(hypervisor, layouts)
        for curve in found.curves:
            assert len(curve.large) == len(curve.saved) == POINTS
            assert (curve.large[0], curve.large[-1]) == (1, 0)
            assert curve.saved[0] == curve.cycles[0] - curve.cycles[0] == curve.lost[0] == curve.net[0] == 0
            assert curve.saved[-1] == 4096 * saved_by(layouts, everything, alone=alone)
            assert (np.diff(curve.saved) >= 0).all()


def test_most_equal_first_begins_with_the_zero_range_and_ends_with_the_one_that_has_nothing() -> None:
    layouts = two_guests()
    curve = next(each for each in traded(Kvm(), layouts).curves if each.order == "most equal first")
    broken = np.zeros((2, 16), np.bool_)
    broken[:, 5] = True
    assert curve.saved[1] >= 4096 * saved_by(layouts, broken, alone=False) == 4096 * 1023
    assert curve.saved[-1] - curve.saved[-2] == 4096 * 256  # of the last three ranges one has pages that are equal


def test_hyper_v_shares_nothing_and_is_best_with_large_pages() -> None:
    found = traded(HyperV(), two_guests())
    assert all((curve.saved == 0).all() and curve.best == 0 for curve in found.curves)
    assert found.policy == (("always", 1.0),)


def test_what_hypervisors_leave_large() -> None:
    layouts = two_guests()
    assert [share for _, share in traded(Esxi(), layouts).policy] == [1.0, 0.0]
    ((_, share),) = traded(Kvm(), layouts).policy
    assert share == 1 / 16  # KSM breaks all but the range in which nothing is equal


def test_coldest_first_costs_less_than_at_random() -> None:
    """Half of the memory is never touched: to break that costs next to nothing."""
    settings = replace(SETTINGS, phases=(Phase(touches=1000, working_set=0.05, zipf=1.2),), large_pages=True)
    layouts = [next(iter(generate(preset("windows-7-x64"), 1, seed=1)))]
    found = {curve.order: curve for curve in traded(Esxi(share_force_salting=0), layouts, settings).curves}
    cold, random = found["coldest first"], found["at random"]
    assert (cold.cycles[1:6] < random.cycles[1:6]).all()
    assert cold.cycles[-1] == random.cycles[-1] > 2 * cold.cycles[0]


def test_net_is_what_is_saved_less_what_is_lost() -> None:
    curve = traded(Kvm(), two_guests()).curves[0]
    cores = 2 * curve.lost
    np.testing.assert_allclose(curve.net, curve.saved / (PAGES * 4096) - 2 * cores / MACHINE.cores)
    np.testing.assert_allclose(curve.lost, 1000 * 5000 * (curve.cycles - curve.cycles[0]) / 2.5e9)


def test_the_same_seed_gives_the_same() -> None:
    first, second = (traded(Kvm(), two_guests()) for _ in range(2))
    for one, other in zip(first.curves, second.curves, strict=True):
        assert one.order == other.order and (one.net == other.net).all()


def test_guests_of_different_sizes_are_refused() -> None:
    layouts = [two_guests()[0], guest(1, np.arange(2 * PAGES))]
    with pytest.raises(ValueError, match="guests of one kind"):
        traded(Kvm(), layouts)
    with pytest.raises(ValueError, match="less than 2 MiB"):
        traded(Kvm(), [guest(0, np.arange(511))])


def test_of_a_scenario_each_set_under_each_hypervisor() -> None:
    from pagedup.host import scenario_preset

    scenario = scenario_preset("vdi-50")
    scenario = replace(scenario, guests=(replace(scenario.guests[0], layout="windows-xp", count=2),))
    found = trades(scenario)
    assert [(each.hypervisor, each.guests) for each in found] == [
        (hypervisor.title, 2) for hypervisor in scenario.hypervisors
    ]


def test_translation_is_cheapest_with_large_pages_on_both_sides() -> None:
    gpns = np.random.default_rng(1).integers(0, 1 << 18, 40_000).astype(np.uint32)
    none, all_ = np.zeros(512, np.bool_), np.ones(512, np.bool_)
    cycles = {
        (own, host): Translation(microarchitecture("Zen 4"), 1 << 18, large_in_guest=own).cycles(
            gpns, all_ if host else none
        )
        for own in (False, True)
        for host in (False, True)
    }
    assert cycles[True, True] < cycles[False, True] < cycles[False, False]
    assert cycles[True, True] < cycles[True, False] < cycles[False, False]
