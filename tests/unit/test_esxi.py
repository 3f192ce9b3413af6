"""ESXi on a small host under rising pressure: which means come when, and who gives."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pagedup.host.costs import Operation
from pagedup.host.guest import HostGuest
from pagedup.host.hypervisors import Esxi
from pagedup.host.hypervisors.active_memory import ActiveMemory
from pagedup.host.scenario import GuestSet
from pagedup.memory.layouts import Layout
from pagedup.sharing.frame_pool import ABSENT
from tests.host_guests import of_sizes
from tests.small_host import PAGE, SmallHost

FRAMES = 8192  # 32 MiB, of which minFree is 6 %: 491 pages
PAGES = 4096
FAST = Esxi(balloon_rate="8 MiB")


def layout(number: int) -> Layout:
    return of_sizes(number, kernel_data=512, heap=1536, file_cache=512, free=1536)


def settings(**fields: Any) -> GuestSet:
    return GuestSet(layout="made here", boot=1, **fields)


def host_of(hypervisor: Esxi = FAST, guests: int = 3, /, **fields: Any) -> SmallHost:
    """Guests that hold nothing yet."""
    host = SmallHost(hypervisor, FRAMES, cache=fields.pop("cache", 400), **fields)
    for number in range(guests):
        assert host.start(layout(number + 1), settings(), boots=False)
    return host


def full_host(hypervisor: Esxi, free: int) -> SmallHost:
    """Three guests that use all they have, so that their balloons can take nothing for free."""
    host = SmallHost(hypervisor, FRAMES, cache=400)
    for number, end in enumerate(np.linspace(0, FRAMES - free, 4).astype(int)[1:]):
        begin = FRAMES - host.free
        assert host.start(of_sizes(number + 1, kernel_data=512, heap=int(end) - begin - 512), settings())
    assert host.free == free
    return host


def grow(host: SmallHost, guest: HostGuest, pages: int) -> None:
    """It writes so many pages that it has not written yet."""
    begin = guest.pool.present + guest.pool.out + guest.memory.paged
    host.touch(guest, np.arange(begin, begin + pages))


def fill(host: SmallHost, free: int) -> None:
    """Guests take memory in turn until so much is free."""
    for guest in host.guests:
        if host.free > free:
            grow(host, guest, min(PAGES - guest.pool.present, host.free - free))


def taken(host: SmallHost) -> tuple[int, int]:
    return sum(host.balloons), sum(host.out)


# --- states ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "state", "balloons", "swaps"),
    [
        (491, "high", False, False),
        (490, "clear", False, False),
        (315, "clear", False, False),
        (314, "soft", True, False),
        (158, "soft", True, False),
        (157, "hard", False, True),
        (79, "hard", False, True),
        (78, "low", False, True),
    ],
)
def test_means_of_each_state(free: int, state: str, balloons: bool, swaps: bool) -> None:
    host = full_host(FAST, free)
    host.tick()
    assert host.state == state
    assert [pages > 0 for pages in taken(host)] == [balloons, swaps]
    if balloons:  # up to the level of clear
        assert host.free == 491
    if swaps:  # until hard is left: 10 % more than its level
        assert 157.12 * 1.1 <= host.free < 200


def test_a_state_lasts_until_more_is_free() -> None:
    """By a tenth of 491 pages."""
    host = full_host(Esxi(share_rate_max=0.001), 490)
    guest = host.guests[0]
    host.tick()
    for free, state in [(491, "clear"), (540, "clear"), (541, "high"), (491, "high"), (490, "clear")]:
        if free > host.free:
            guest.pool.release(np.flatnonzero(guest.pool.page_table != ABSENT)[: free - host.free])
        else:
            host.touch(guest, np.flatnonzero(guest.pool.page_table == ABSENT)[: host.free - free])
        host.tick()
        assert (host.free, host.state) == (free, state)


def test_large_pages_are_broken_before_anything_that_hurts() -> None:
    """Below 400 % of minFree, 1964 pages, as many as could free what is missing; small ones are shared at once."""
    host = SmallHost(Esxi(share_force_salting=0), FRAMES, large_pages=True)
    same = np.arange(1, PAGES + 1).astype(np.uint64)
    for number in range(3):
        guest = host.start(layout(number + 1), settings(), boots=False)
        assert guest
        host.touch(guest, np.arange(2048), names=same[:2048])
    assert host.free == 2048
    host.pool.scan(3600)  # the hour in which ESX learns what the pages hold
    host.tick()
    assert (host.pool.counts().large_pages, host.ledger.counts[Operation.BREAK_LARGE]) == (12, 0)
    host.touch(host.guests[0], np.arange(2048, 2049))  # another large page
    assert host.free == 1536
    host.tick()
    assert host.pool.counts().large_pages == 13 - 1  # 428 pages are missing
    for _ in range(20):
        host.tick()
    assert host.free >= 1964
    assert 0 < host.pool.counts().large_pages < 12
    assert host.ledger.counts[Operation.BREAK_LARGE] == 13 - host.pool.counts().large_pages
    assert taken(host) == (0, 0)
    assert host.state == "high"


def test_the_scanner_is_called_in_the_state_clear() -> None:
    """It then comes by 1024 pages a second and guest, instead of all of a guest in an hour."""
    host = host_of()
    fill(host, 700)
    host.tick()
    slow = host.pool.scan_counts().pages_scanned
    fill(host, 400)
    host.tick()
    called = host.pool.scan_counts().pages_scanned - slow
    assert slow <= 40 < 3 * 4096 < called
    host.guests[0].pool.release(np.arange(400))
    host.tick()
    assert host.state == "high"
    assert host.pool.scan_counts().pages_scanned - slow - called <= 40


def test_the_call_ends_with_a_pass() -> None:
    """4096 pages are four seconds at 1024 a second; at the usual pace a guest has 1.1 pages a second."""
    host = host_of()
    fill(host, 400)
    scanned = [0]
    for _ in range(4):
        host.tick()
        assert host.state == "clear"
        scanned.append(host.pool.scan_counts().pages_scanned)
    first, second, *later = (after - before for before, after in pairwise(scanned))
    assert min(first, second) > 2 * 4096 > 80 >= max(later)


def test_scanning_is_charged_to_the_host() -> None:
    host = host_of(Esxi(share_force_salting=0, share_scan_time=0.1))
    for guest in host.guests:
        host.touch(guest, np.arange(100), names=np.arange(1, 101).astype(np.uint64))
    for _ in range(6):
        host.tick()
    done, charged = host.pool.scan_counts(), host.ledger.counts
    assert host.pool.counts().pages_sharing == 200 == charged[Operation.SHARE]
    assert charged[Operation.SCAN_VISIT] == done.pages_scanned > 300
    assert charged[Operation.SCAN_HASH] == done.pages_hashed > 300


# --- balloons --------------------------------------------------------------------------------------------------------


def test_a_balloon_grows_no_faster_than_its_rate() -> None:
    host = full_host(Esxi(balloon_rate="4 KiB"), 200)  # a page a second
    host.tick(10)
    assert host.state == "soft"
    assert host.balloons == [10, 10, 10]


def test_a_balloon_is_never_larger_than_its_cap() -> None:
    """65 % of a guest; here of one that has the others' shares, too, so that they give."""
    host = SmallHost(FAST, FRAMES)
    rich = host.start(layout(1), settings(shares=10**9), boots=False)
    poor = host.start(layout(2), settings(shares=1), boots=False)
    assert rich
    assert poor
    grow(host, poor, PAGES)
    cap = int(0.65 * PAGES)
    for pages in [3800, *[100] * 35]:
        grow(host, rich, min(pages, PAGES - rich.pool.present - rich.pool.out - rich.memory.paged))
        host.tick()
        assert poor.memory.balloon <= cap
    assert poor.memory.balloon > 0
    small = full_host(Esxi(ctl_max_percent=1, balloon_rate="8 MiB"), 200)
    for _ in range(3):
        small.tick()
    assert small.balloons == [int(0.01 * guest.pages) for guest in small.guests]
    assert small.state == "soft"


def test_others_give_what_a_balloon_cannot() -> None:
    """The first one holds most that is idle, but its balloon is as large as it can be."""
    host = SmallHost(Esxi(ctl_max_percent=2, balloon_rate="8 MiB", idle_tax=0), FRAMES)
    for number, (pages, shares) in enumerate([(4000, 1), (3950, 1000)]):
        assert host.start(of_sizes(number + 1, heap=pages), settings(shares=shares))
    host.tick()
    assert host.state == "soft"
    assert host.balloons == [80, 79]
    assert sum(host.out) == 0


def test_no_balloon_grows_in_the_state_hard() -> None:
    """Not even that of a guest beyond its limit; nor beyond its cap in a better one."""
    host = SmallHost(FAST, FRAMES)
    for number, limit in enumerate([2000 * PAGE, 0]):
        assert host.start(of_sizes(number + 1, heap=4046), settings(limit=limit))
    host.tick()
    assert host.state == "hard"
    assert host.balloons == [0, 0]
    assert host.present[0] == 2000
    host = SmallHost(Esxi(ctl_max_percent=10, balloon_rate="8 MiB"), FRAMES)
    assert host.start(of_sizes(1, heap=4000), settings(limit=2000 * PAGE))
    host.tick()
    assert (host.state, host.balloons, host.out) == ("high", [400], [1600])


def test_a_guest_gives_free_pages_first() -> None:
    """Zero pages, which the scanner would share before that, were it not as good as switched off."""
    host = SmallHost(Esxi(share_rate_max=0.001), FRAMES)
    for number in range(3):
        assert host.start(of_sizes(number + 1, kernel_data=512, heap=1024, free=1100), settings())
    host.tick()
    assert host.state == "soft"
    assert sum(host.balloons) == 491 - (FRAMES - 3 * 2636)
    assert all(guest.memory.paged == 0 for guest in host.guests)
    assert all(guest.ledger.counts[Operation.GUEST_SWAP_OUT] == 0 for guest in host.guests)


def test_sharing_comes_before_balloons() -> None:
    host = SmallHost(Esxi(), FRAMES)
    for number in range(3):
        assert host.start(of_sizes(number + 1, kernel_data=512, heap=1024, free=1100), settings())
    host.tick()
    assert host.state == "soft"
    assert sum(host.balloons) == 0
    assert host.free > FRAMES - 3 * 2636 + 3 * 1090


def test_balloons_deflate_when_memory_is_plentiful() -> None:
    host = full_host(Esxi(balloon_rate="16 KiB", share_rate_max=0.001), 160)  # 4 pages a second
    for _ in range(9):
        host.tick()
    inflated = sum(host.balloons)
    assert host.state == "clear"
    assert inflated > 100
    host.guests[2].pool.release(np.flatnonzero(host.guests[2].pool.page_table != ABSENT)[:1000])
    seen = [inflated]
    for _ in range(4):
        host.tick()
        assert host.state == "high"
        seen.append(sum(host.balloons))
    assert all(0 <= before - after <= 3 * 40 for before, after in pairwise(seen))
    assert seen[1] == inflated - 3 * 40
    assert seen[-1] == 0


def test_balloons_deflate_by_what_is_beyond_the_level_of_high() -> None:
    host = full_host(Esxi(balloon_rate="8 MiB", share_rate_max=0.001), 200)
    host.tick()
    assert sum(host.balloons) == 291
    host.guests[0].pool.release([0, 1, 2])
    host.guests[0].pool.release(np.flatnonzero(host.guests[0].pool.page_table != ABSENT)[: 600 - host.free])
    host.tick()
    assert (host.state, host.free) == ("high", 600)
    assert sum(host.balloons) == 291 - (600 - 540)


# --- who gives -------------------------------------------------------------------------------------------------------


def test_who_has_fewer_shares_gives_more() -> None:
    host = SmallHost(Esxi(balloon_rate="8 MiB", idle_tax=0), FRAMES)
    guests = [host.start(layout(n + 1), settings(shares=shares), boots=False) for n, shares in enumerate([1, 1, 4])]
    for guest, pages in zip(guests, (2640, 2640, 2640), strict=True):
        assert guest
        grow(host, guest, pages)
    host.tick()
    assert host.state == "soft"
    assert sorted(host.balloons) == [0, 109, 110]  # 219 up to the level of clear
    assert host.balloons[2] == 0


def test_idle_memory_is_taxed() -> None:
    """Of two guests alike one reads all it has, over and over; the other has stopped."""
    host = SmallHost(FAST, FRAMES)
    busy, idle = (host.start(layout(number), settings(), boots=False) for number in (1, 2))
    assert busy
    assert idle
    for guest in (busy, idle):
        grow(host, guest, 3800)
    for _ in range(40):
        host.touch(busy, np.arange(3800), reads=True)
        host.tick()
    grow(host, busy, 292)
    host.tick()
    assert host.state == "soft"
    assert (busy.memory.balloon, idle.memory.balloon) == (0, 491 - 300)


def test_idle_is_what_was_not_touched_in_the_last_sample() -> None:
    """What was touched before it does not count, and a sample is 30 seconds."""
    host = SmallHost(FAST, FRAMES)
    guest = host.start(of_sizes(1, heap=2000), settings())
    assert guest
    active = host.policies[1]
    assert isinstance(active, ActiveMemory)
    assert active.of(guest) == 2000
    seen = []
    for tick in range(7):
        host.touch(guest, np.arange(0 if tick < 4 else 2000), reads=True)
        host.tick()
        seen.append(active.of(guest))
        if tick in (0, 3):  # a sample has begun, of pages that were just touched
            host.touch(guest, np.arange(1000), reads=True)
    assert seen[:3] == [2000, 2000, 2000]
    assert 700 < seen[3] < 1300  # half of its pages: those that were touched since
    assert seen[4] > seen[3]


def test_a_reservation_is_never_touched() -> None:
    host = SmallHost(FAST, FRAMES, cache=400)
    kept = host.start(layout(1), settings(reservation=4000 * PAGE, shares=1), boots=False)
    other = host.start(layout(2), settings(shares=10**6), boots=False)
    third = host.start(layout(3), settings(shares=10**6), boots=False)
    assert kept
    grow(host, kept, 4050)
    for guest in (other, third) * 8:
        assert guest
        grow(host, guest, 256)
        host.tick()
        assert kept.pool.present >= 4000
    assert kept.pool.present < 4050
    assert sum(host.out) > 50


def test_a_limit_holds_with_memory_to_spare() -> None:
    """The balloon takes what is beyond it, as fast as it may, and swap the rest."""
    host = SmallHost(Esxi(balloon_rate="128 KiB"), FRAMES)
    guest = host.start(of_sizes(1, kernel_data=100, heap=2900), settings(limit=2000 * PAGE))
    assert guest
    host.tick()
    assert host.state == "high"
    assert guest.pool.present == 2000
    assert (guest.memory.balloon, guest.pool.out) == (320, 680)
    host.tick()
    assert (guest.memory.balloon, guest.pool.present) == (320, 2000)


# --- last means ------------------------------------------------------------------------------------------------------


def test_what_compresses_is_compressed_and_the_rest_swapped() -> None:
    host = full_host(FAST, 100)
    host.tick()
    paged = host.pager.counts()
    assert 0.3 < paged.compressed / (paged.compressed + paged.swapped_out) < 0.7
    dry = host_of(cache=0)
    fill(dry, 100)
    dry.tick()
    assert sum(dry.out) > 0
    assert dry.pager.counts().compressed == 0


def test_victims_are_random() -> None:
    """Not the oldest, and none twice: about as many of each part of a guest."""
    host = host_of(FAST, 1)
    guest = host.guests[0]
    grow(host, guest, PAGES)
    host.policies[-1].make_room(FRAMES - PAGES + 1024, guest)
    out = np.flatnonzero(guest.pool.page_table == ABSENT)
    assert len(out) >= 1024
    by_part = np.bincount(out // 512, minlength=8) / len(out)
    assert by_part.min() > 0.09
    assert by_part.max() < 0.16


def test_who_waits_pays_first_if_it_holds_more_than_it_should() -> None:
    host = host_of()
    greedy, *others = host.guests
    for guest in others:
        grow(host, guest, 1500)
    grow(host, greedy, PAGES)
    assert host.free == FRAMES - PAGES - 3000
    fill_up = others[0]
    grow(host, fill_up, host.free)
    assert host.free == 0
    host.make_room(200, greedy)
    assert host.free >= 200
    assert host.state == "low"
    assert [guest.pool.out > 0 for guest in host.guests] == [True, False, False]
    host.make_room(400, others[1])  # which holds less than all: the others give
    assert host.guests[2].pool.out == 0
    assert host.free >= 400


def test_who_waits_gives_before_who_holds_more() -> None:
    """For 491 free pages the two larger ones would have 3652 each, so that the second one has 48 to give."""
    host = SmallHost(FAST, FRAMES)
    for number, pages in enumerate([4096, 3700, 396]):
        assert host.start(of_sizes(number + 1, heap=pages), settings())
    host.make_room(100, host.guests[1])
    assert host.out == [52, 48, 0]
    host.make_room(200, host.guests[2])
    assert host.out == [152, 48, 0]


def test_guests_whose_pages_are_all_shared_give_nothing() -> None:
    """The others do, as far as they can."""
    host = SmallHost(Esxi(share_force_salting=0, share_scan_time=0.1, balloon_rate="4 KiB"), FRAMES)
    same = np.arange(1, 3001).astype(np.uint64)
    for number, pages in enumerate([3000, 3000, 0]):
        guest = host.start(of_sizes(number + 1, absent=PAGES), settings(shares=1 if pages else 100))
        assert guest
        host.touch(guest, np.arange(pages), names=same[:pages])
    host.pool.scan(3600)
    assert host.pool.counts().pages_sharing == 3000
    own = host.guests[2]
    grow(host, own, PAGES)
    before = host.free
    host.policies[-1].make_room(before + 2000, host.guests[0])
    assert host.free >= before + 2000
    assert host.out[:2] == [0, 0]


def test_the_state_is_of_what_is_left_for_others() -> None:
    host = full_host(FAST, 600)
    host.policies[0].make_room(500, host.guests[0])
    assert host.state == "hard"


def test_nothing_can_go_anywhere() -> None:
    """Without swap and cache nobody is paged out, and the host goes on as long as it can."""
    host = SmallHost(Esxi(), FRAMES, swap=0)
    guest = host.start(layout(1), settings(reservation=PAGES * PAGE), boots=False)
    assert guest
    grow(host, guest, PAGES)
    host.policies[-1].make_room(FRAMES, guest)
    assert guest.pool.out == 0


# --- admission -------------------------------------------------------------------------------------------------------


def test_a_guest_needs_memory_for_its_reservation_and_swap_for_the_rest() -> None:
    host = SmallHost(Esxi(), FRAMES, swap=5000)
    assert host.start(layout(1), settings(), boots=False)  # 4096 of 5000 pages of swap
    assert host.start(layout(2), settings(), boots=False) is None
    assert host.start(layout(2), settings(reservation=3191 * PAGE), boots=False) is None
    assert host.start(layout(2), settings(reservation=3192 * PAGE), boots=False)
    assert host.start(layout(3), settings(reservation=4096 * PAGE), boots=False)
    assert host.start(layout(4), settings(reservation=4096 * PAGE), boots=False) is None  # 904 pages are unreserved
