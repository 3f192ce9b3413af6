"""Hyper-V on a small host: what is assigned, and that it is never more than there is."""

from typing import Any

import numpy as np

from pagedup.host.costs import Operation
from pagedup.host.guest import HostGuest
from pagedup.host.hypervisors import HyperV
from pagedup.host.scenario import DynamicMemory, GuestSet
from pagedup.sharing.frame_pool import ABSENT
from tests.host_guests import of_sizes
from tests.small_host import PAGE, SmallHost

FRAMES = 8192
PAGES = 4096


def settings(startup: int = 1024, minimum: int = 512, **fields: Any) -> GuestSet:
    memory = DynamicMemory(startup=startup * PAGE, minimum=minimum * PAGE, **fields)
    return GuestSet(layout="made here", boot=5, dynamic_memory=memory)


def start(host: SmallHost, given: GuestSet | None = None, pages: int = PAGES) -> HostGuest | None:
    """A guest that has committed nothing yet."""
    return host.start(of_sizes(len(host.guests) + 1, absent=pages), given or settings())


def must_start(host: SmallHost, given: GuestSet | None = None) -> HostGuest:
    guest = start(host, given)
    assert guest
    return guest


def assigned(host: SmallHost) -> list[int]:
    return [guest.pages - guest.memory.balloon for guest in host.guests]


def commit(host: SmallHost, guest: HostGuest, pages: int) -> None:
    """It has so many pages in use."""
    host.touch(guest, np.arange(guest.memory.committed, pages))


def test_a_guest_starts_with_its_startup_memory_and_grows_with_its_demand() -> None:
    host = SmallHost(HyperV(), FRAMES)
    guest = must_start(host)
    assert assigned(host) == [1024]
    commit(host, guest, 1000)
    host.tick()
    assert assigned(host) == [1200]
    commit(host, guest, 3000)  # more than it has: it pages out by itself
    assert guest.memory.paged > 0
    assert guest.ledger.counts[Operation.GUEST_SWAP_OUT] > 0
    host.tick()
    assert assigned(host) == [3600]
    commit(host, guest, 4000)
    host.tick()
    assert assigned(host) == [PAGES]
    assert host.out == [0]
    assert host.pool.counts().pages_sharing == 0


def test_maximum() -> None:
    host = SmallHost(HyperV(), FRAMES)
    guest = must_start(host, settings(maximum=2000 * PAGE))
    commit(host, guest, 3000)
    host.tick()
    assert assigned(host) == [2000]
    host.touch(guest, np.arange(3000), reads=True)
    assert 2000 - 2 <= guest.pool.present <= 2000  # it keeps a page or two free
    assert guest.memory.paged in (1000, 1001)


def test_what_is_not_needed_is_taken_only_for_others() -> None:
    host = SmallHost(HyperV(), 6000)
    rich, poor = must_start(host, settings(startup=3000)), must_start(host)
    commit(host, rich, 500)
    host.tick()
    assert assigned(host) == [3000, 1024]
    commit(host, poor, 2500)
    host.tick()
    assert assigned(host) == [3000, 3000]
    commit(host, poor, 3400)
    host.tick()
    assert assigned(host) == [1920, 4080]
    assert rich.memory.paged == 0  # it gave what was free


def test_demand_comes_before_buffers() -> None:
    """A guest that has its buffer gives it when another one's demand is not met, and no more than that."""
    host = SmallHost(HyperV(), FRAMES)
    content, short, third = (must_start(host) for _ in range(3))
    commit(host, content, 3000)
    host.tick()
    commit(host, third, 1500)
    host.tick()
    assert assigned(host) == [3600, 1024, 1800]
    commit(host, short, 3400)  # 1768 are unassigned, and the others have buffers of 600 and 300
    host.tick()
    assert assigned(host) == [3195, 3400, 1597]  # both under the same pressure of 94 %


def test_who_has_more_weight_is_served_first() -> None:
    host = SmallHost(HyperV(), FRAMES)
    low, high, other = (must_start(host, settings(weight=weight)) for weight in (1, 10_000, 5000))
    for guest in (low, high, other):
        commit(host, guest, 3500)
    host.tick()
    assert assigned(host) == [8192 - 2 * 3500, 3500, 3500]


def test_a_guest_that_does_not_fit_does_not_start() -> None:
    """Others give what they have not committed, and what they have they keep."""
    host = SmallHost(HyperV(), FRAMES)
    guests = [must_start(host) for _ in range(2)]
    for guest in guests:
        commit(host, guest, 3000)
    host.tick()
    assert assigned(host) == [3600, 3600]
    assert start(host, settings(startup=2193)) is None
    assert assigned(host) == [3600, 3600]
    assert start(host, settings(startup=2192))
    assert assigned(host) == [3000, 3000, 2192]
    assert start(host, settings(startup=513)) is None  # the third gives nothing while it boots
    host.tick()
    assert start(host, settings(startup=512, minimum=100))
    assert sum(assigned(host)) <= FRAMES
    assert start(host, settings(startup=PAGES * 2)) is None


def test_a_guest_that_boots_keeps_its_startup_memory() -> None:
    """For 5 seconds."""
    host = SmallHost(HyperV(), 6000)
    must_start(host, settings(startup=4000, minimum=100))
    assert start(host, settings(startup=2001)) is None
    host.tick(4)
    assert start(host, settings(startup=2001)) is None
    host.tick(1)
    assert start(host, settings(startup=2001))
    assert assigned(host) == [3999, 2001]


def test_large_pages_reach_into_balloons_until_memory_is_short() -> None:
    """Then what they hold beyond what is assigned goes back, so that each guest gets what it is assigned."""
    host = SmallHost(HyperV(), FRAMES, large_pages=True)
    guests = [must_start(host, settings(startup=2730)) for _ in range(3)]
    for guest in guests:
        host.touch(guest, np.arange(0, PAGES, 512)[:5])
    assert sum(host.present) == 15 * 512
    assert host.free == 512
    for guest in guests:
        host.touch(guest, np.setdiff1d(np.arange(PAGES), np.arange(0, PAGES, 512))[:2700])
    for guest in guests:
        assert guest.memory.committed == 2705
        assert guest.pool.present >= 2705
    assert sum(host.present) <= FRAMES
    for guest in guests:
        there = guest.memory.uses <= 3
        assert (guest.pool.page_table[there] != ABSENT).all()


def test_nobody_gets_what_another_one_refuses_to_give() -> None:
    """A system keeps some pages, whatever the balloon asks for."""
    host = SmallHost(HyperV(), 1000)
    keeps = host.start(of_sizes(1, kernel_data=500, file_cache=100), settings(startup=600, minimum=100))
    wants = must_start(host, settings(startup=400, minimum=100))
    assert keeps
    commit(host, wants, 500)
    host.tick()
    assert assigned(host) == [564, 436]
