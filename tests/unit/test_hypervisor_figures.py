"""What hypervisors compute, against what is published of them, and on both sides of each threshold."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from pagedup.host.hypervisors import AnyHypervisor, Esxi, HyperV, Kvm
from pagedup.host.hypervisors.active_memory import ActiveShare
from pagedup.host.hypervisors.demands import Demand, assigned, shrunk
from pagedup.host.hypervisors.entitlements import entitlements, price
from pagedup.host.hypervisors.ksm_tuned import KsmTuning
from pagedup.host.hypervisors.memory_states import MemoryState, min_free, next_state
from pagedup.host.hypervisors.spread import spread
from pagedup.host.hypervisors.watermarks import watermarks
from pagedup.host.scenario import Machine

MB, GB = 1 << 20, 1 << 30
PAGES_A_GB = GB // 4096

# --- ESXi: states ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gb", "mb"),
    [(28, 899), (29, 899 + 10.24), (96, 899 + 696.32), (128, 1923), (512, 899 + 4956.16), (4, 245.76), (12, 573.44)],
)
def test_min_free(gb: int, mb: float) -> None:
    """899 MB for the first 28 GB and 1 % of the rest; 128 GB is the published example."""
    assert min_free(gb * GB) == round(mb * MB)


def test_min_free_rises_with_memory() -> None:
    sizes = [*range(0, 40 * GB, GB // 4), 28 * GB - 1, 28 * GB + 1]
    assert all(below <= above for below, above in pairwise(min_free(size) for size in sorted(sizes)))
    assert min_free(0) == 0


LEVELS = (1000, 640, 320, 160)
ENTERED = [
    (1000, "high"),
    (999, "clear"),
    (640, "clear"),
    (639, "soft"),
    (320, "soft"),
    (319, "hard"),
    (160, "hard"),
    (159, "low"),
    (0, "low"),
]


@pytest.mark.parametrize(("free", "state"), ENTERED)
def test_a_worse_state_comes_at_once(free: int, state: str) -> None:
    assert next_state(MemoryState.HIGH, free, LEVELS, 0.1) == state


@pytest.mark.parametrize(("free", "state"), [(175, "low"), (176, "hard"), (351, "hard"), (352, "soft"), (703, "soft")])
@pytest.mark.parametrize(("more", "better"), [(0, None), (1100, "high"), (1099, "clear"), (704, "clear")])
def test_a_better_one_only_when_more_is_free(free: int, state: str, more: int, better: str | None) -> None:
    """By a tenth of the level that is left; then as far up as that holds."""
    assert next_state(MemoryState.LOW, more or free, LEVELS, 0.1) == (better or state)


def test_between_the_two_the_state_stays() -> None:
    for state, free in [("high", 1000), ("clear", 1099), ("clear", 1000), ("soft", 700), ("hard", 330), ("low", 170)]:
        assert next_state(MemoryState(state), free, LEVELS, 0.1) == state


# --- ESXi: who holds what --------------------------------------------------------------------------------------------


def test_an_idle_page_costs_four() -> None:
    """K = 1 / (1 - tax): 4 at the default of 75 %."""
    assert price(1000, 100, 1.0, 0.75) == 10
    assert price(1000, 100, 0.0, 0.75) == 10 / 4
    assert price(1000, 100, 0.5, 0.75) == 1000 / (100 * (0.5 + 4 * 0.5))
    assert price(1000, 100, 0.3, 0.0) == 10  # pure shares


def test_the_tax_moves_memory_from_who_does_not_use_it() -> None:
    """Two guests of 256 MB and equal shares, one idle and one busy, have 360 MB: with no tax, and with the default."""
    pages = 256 * MB // 4096
    both: dict[str, Any] = {"lower": [0, 0], "upper": [pages, pages], "total": 360 * MB // 4096, "active": [0, pages]}
    assert entitlements([1, 1], tax=0.0, **both) == [180 * MB // 4096] * 2
    assert entitlements([1, 1], tax=0.75, **both) == [104 * MB // 4096, pages]


def test_entitlements_by_hand() -> None:
    equal: dict[str, Any] = {"lower": [0, 0, 0], "active": [1e9, 1e9, 1e9], "tax": 0.75}
    assert entitlements([1, 2, 3], upper=[900] * 3, total=600, **equal) == [100, 200, 300]
    assert entitlements([1, 2, 3], upper=[900, 150, 900], total=600, **equal) == [113, 150, 337]  # 112.5 and 337.5
    assert entitlements([1, 2, 3], upper=[900] * 3, total=9999, **equal) == [900, 900, 900]
    assert entitlements([1, 1], [80, 0], [100, 100], 100, active=[100, 100], tax=0.5) == [80, 20]
    assert entitlements([1, 1], [80, 70], [100, 100], 100, active=[100, 100], tax=0.5) == [80, 70]
    assert entitlements([], [], [], 10, active=[], tax=0.5) == []


def test_esx_follows_more_at_once_and_less_slowly() -> None:
    share = ActiveShare()
    assert share.estimate == 1
    share.so_far(0.2)
    assert share.estimate == 1  # nothing is known before the first sample is complete
    share.complete(0.2)
    assert share.estimate == 0.2
    share.so_far(0.8)
    assert share.estimate == pytest.approx(0.5)
    share.complete(0.8)
    assert share.estimate == pytest.approx(0.5)
    falling = []
    for _ in range(40):
        share.complete(0.0)
        falling.append(share.estimate)
    assert 0.2 < falling[0] < 0.26
    assert falling[5] > 0.1  # the slow average
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.01


def test_large_guests_are_not_covered_in_an_hour() -> None:
    """ShareRateMax: 1024 pages a second and guest are 3,686,400 in 60 minutes, which is 14.06 GiB."""
    policy = Esxi().sharing(Machine(memory="1 GiB", cores=64, ghz=4), 0)
    fits, just_not = 3_686_400, 3_686_401
    assert policy.rates([fits])[0] * 3600 == fits
    assert policy.rates([just_not])[0] * 3600 < just_not
    assert policy.rates([16 * PAGES_A_GB])[0] * 3600 == pytest.approx(14.0625 * PAGES_A_GB)


def test_settings_of_the_scanner() -> None:
    policy = Esxi(share_scan_time=30, share_force_salting=0).sharing(Machine(memory=0, cores=10, ghz=2), 7)
    assert (policy.cpu_ghz, policy.share_scan_time, policy.share_force_salting, policy.seed) == (20, 30, 0, 7)
    assert policy.domain("salt", 3) is None
    assert Esxi().sharing(Machine(memory=0), 0).domain(None, 3) == ("alone", 3)
    assert Esxi().compressed_share() == 0.1
    assert Kvm().compressed_share() == HyperV().compressed_share() == 0


# --- KVM -------------------------------------------------------------------------------------------------------------

TUNING = KsmTuning(60, 300, -50, 64, 1250, 10, 20, 2048)


@pytest.mark.parametrize(("gb", "threshold"), [(4, 2 * GB), (10, 2 * GB), (11, 11 * GB // 5), (64, 64 * GB // 5)])
def test_threshold_of_ksmtuned(gb: int, threshold: int) -> None:
    """20 % of memory, or 2 GB if that is more, which it is up to 10 GB."""
    assert TUNING.threshold(gb * GB) == threshold


@pytest.mark.parametrize(("gb", "milliseconds"), [(4, 40), (8, 20), (15, 10), (16, 10), (512, 10)])
def test_sleep_of_ksmtuned(gb: int, milliseconds: int) -> None:
    assert TUNING.sleep(gb * GB) == milliseconds


def test_pace_of_ksmtuned() -> None:
    total, much, little = 100 * GB, 30 * GB, 10 * GB
    npages, seen = 0, []
    for free in [little] * 6 + [much] * 26:
        npages = TUNING.npages(npages, total, 90 * GB, free) or 0
        seen.append(npages)
    assert seen[:6] == [300, 600, 900, 1200, 1250, 1250]
    assert seen[6:9] == [1200, 1150, 1100]
    assert seen[-1] == 64
    assert TUNING.npages(0, total, 90 * GB, much) == 64


@pytest.mark.parametrize(
    ("committed", "free", "runs"),
    [
        (80 * GB - 1, 20 * GB + 1, False),
        (80 * GB, 20 * GB + 1, True),
        (80 * GB - 1, 20 * GB, True),
        (0, 100 * GB, False),
    ],
)
def test_ksmtuned_stops_ksm_while_memory_is_plentiful(committed: int, free: int, runs: bool) -> None:
    assert (TUNING.npages(100, 100 * GB, committed, free) is not None) == runs


def test_watermarks() -> None:
    """Of a kernel that booted with 16 GiB: min_free_kbytes 16384, and 0.1 % of memory from one mark to the next."""
    assert watermarks(16 * PAGES_A_GB, 10) == (4096, 4096 + 4194, 4096 + 2 * 4194)
    assert watermarks(PAGES_A_GB, 10) == (1024, 1024 + 262, 1024 + 524)
    assert watermarks(64, 10).least == 128 // 4
    assert watermarks(4096 * PAGES_A_GB, 10).least == 256 * MB // 4096
    assert watermarks(PAGES_A_GB // 4, 10) == (512, 512 + 128, 512 + 256)  # a quarter of the first is more


# --- Hyper-V ---------------------------------------------------------------------------------------------------------


def demand(held: int, committed: int, *, weight: int = 5000, minimum: int = 100, can_shrink: bool = True) -> Demand:
    return Demand(held, committed, minimum, 1000, 0.2, weight, can_shrink)


def test_a_guest_gets_its_demand_and_a_fifth_more() -> None:
    assert assigned([demand(200, 500)], 2000) == [600]
    assert assigned([demand(200, 501)], 2000) == [602]  # 601.2
    assert assigned([demand(200, 900)], 2000) == [1000]  # its maximum
    assert assigned([demand(50, 20)], 2000) == [100]  # its minimum
    assert assigned([demand(900, 20)], 2000) == [900]  # which nobody else wants


def test_lowest_pressure_gives_first() -> None:
    """Pressures of 25, 50 and 100 %: the first gives until it is at 30 %, both then."""
    guests = [demand(800, 200), demand(800, 400), demand(500, 500)]
    assert shrunk(guests, 100, buffers=True) == [700, 800, 500]
    assert shrunk(guests, 400, buffers=True) == [400, 800, 500]
    assert shrunk(guests, 900, buffers=True) == [233, 467, 500]
    assert shrunk(guests, 900, buffers=False) == [240, 480, 500]
    assert shrunk(guests, 9999, buffers=True) == [200, 400, 500]
    assert shrunk([demand(800, 10)], 9999, buffers=True) == [100]
    assert shrunk([demand(800, 10, can_shrink=False)], 9999, buffers=True) == [800]


def test_what_others_do_not_want_comes_before_their_buffers() -> None:
    rich, poor = demand(900, 200), demand(300, 300)
    assert assigned([rich, poor], 1200) == [840, 360]
    content, short = demand(600, 500), demand(300, 350)
    assert assigned([content, short], 900) == [550, 350]  # its demand, but no buffer
    assert assigned([content, demand(300, 300)], 900) == [600, 300]


def test_weight_decides_where_memory_is_short() -> None:
    low, high = demand(200, 400, weight=100), demand(200, 400, weight=9000)
    assert assigned([low, high], 500) == [200, 300]
    assert assigned([low, high], 650) == [250, 400]  # demand comes before a buffer
    assert assigned([low, high], 850) == [400, 450]
    assert assigned([low, high], 1000) == [480, 480]
    assert assigned([low, low], 501) == [250, 251]


# --- all -------------------------------------------------------------------------------------------------------------


def test_spread() -> None:
    assert spread(10, [1, 2, 3]) == [1, 2, 3]
    assert spread(3, [1, 2, 3]) == [0, 1, 2]
    assert spread(0, [5, 5]) == [0, 0]
    assert spread(-3, [5, 5]) == [0, 0]
    assert spread(5, []) == []


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('kind="esxi"\nsoft_pct=200', r"soft_pct is 200; it must be less than clear_pct, which is 100"),
        ('kind="esxi"\nlow_pct=32', r"low_pct is 32; it must be less than hard_pct, which is 32"),
        ('kind="esxi"\nidle_tax=100', r"`int` <= 99|<= 99.* `\$.idle_tax`"),
        ('kind="esxi"\nshare_force_salting=3', r"share_force_salting"),
        ('kind="esxi"\nballoon_rate="8 MB"', r"balloon_rate: '8 MB' is no size"),
        ('kind="kvm"\nnpages_min=2000', r"npages_min is 2000; it must be at most npages_max, which is 1250"),
        ('kind="kvm"\nnpages_decay=50', r"npages_decay"),
        ('kind="hyperv"\nnpages_min=3', r"unknown field `npages_min`"),
        ('kind="xen"', r"Invalid value 'xen'"),
    ],
)
def test_settings_that_make_no_sense(toml: str, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.toml.decode(toml, type=AnyHypervisor)


def test_kinds() -> None:
    for kind, made in [("esxi", Esxi()), ("kvm", Kvm()), ("hyperv", HyperV())]:
        assert msgspec.toml.decode(f'kind="{kind}"', type=AnyHypervisor) == made
        assert (made.kind, made.title) == (kind, kind)
    assert msgspec.toml.decode('kind="esxi"\nname="as in 2011"', type=AnyHypervisor).title == "as in 2011"
