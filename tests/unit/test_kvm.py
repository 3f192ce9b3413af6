"""KVM on a small host: KSM when ksmtuned says so, and kswapd."""

import numpy as np
import pytest

from pagedup.host.costs import Operation
from pagedup.host.guest import HostGuest
from pagedup.host.hypervisors import Kvm
from pagedup.host.hypervisors.watermarks import watermarks
from pagedup.host.scenario import GuestSet
from pagedup.sharing.frame_pool import ABSENT
from tests.host_guests import of_sizes
from tests.small_host import SmallHost

FRAMES = 8192  # 32 MiB: min 181, low 226, high 271 pages
MARKS = watermarks(FRAMES, 10)


def settings() -> GuestSet:
    return GuestSet(layout="made here", boot=1)


def host_of(hypervisor: Kvm, free: int, guests: int = 3) -> SmallHost:
    """Guests that use all they have, alike in size."""
    host = SmallHost(hypervisor, FRAMES)
    for number, end in enumerate(np.linspace(0, FRAMES - free, guests + 1).astype(int)[1:]):
        assert host.start(of_sizes(number + 1, kernel_data=512, heap=int(end) - (FRAMES - host.free) - 512), settings())
    assert host.free == free
    return host


@pytest.mark.parametrize(("free", "swaps"), [(MARKS.low, False), (MARKS.low - 1, True), (0, True)])
def test_kswapd_goes_from_low_to_high(free: int, swaps: bool) -> None:
    host = host_of(Kvm(), free)
    host.tick()
    assert host.free == (MARKS.high if swaps else free)
    assert sum(host.out) == (MARKS.high - free if swaps else 0)
    assert max(host.out) - min(host.out) <= 2  # in proportion, and they are alike
    assert host.pager.counts().swapped_out == sum(host.out)
    assert host.state == ""
    assert host.balloons == [0, 0, 0]


def test_pages_that_were_not_touched_for_long_go() -> None:
    host = host_of(Kvm(), 100, 1)
    guest = host.guests[0]
    host.touch(guest, np.arange(guest.pages), reads=True)
    host.tick()  # all were touched: the clock goes round once, and takes the first ones then
    hot = np.flatnonzero(guest.pool.page_table != ABSENT)[:4000]
    for _ in range(10):
        host.touch(guest, hot, reads=True)
        host.touch(guest, np.flatnonzero(guest.pool.page_table == ABSENT)[:100], reads=True)
        host.tick()
    gone = guest.pool.page_table[hot] == ABSENT
    assert gone.mean() < 0.05


def test_who_waits_reclaims_from_all() -> None:
    host = host_of(Kvm(), 0)
    host.make_room(300, host.guests[1])
    assert host.free == 300
    assert sum(host.out) == host.free
    host.make_room(900, host.guests[1])
    host.make_room(1500, host.guests[1])
    assert all(guest > 0 for guest in host.out)
    before = host.free
    host.make_room(before, host.guests[1])
    assert host.free == before
    host.make_room(before + 1, host.guests[1])  # a cluster at least
    assert host.free == before + 32


def test_large_pages_are_broken_where_a_page_goes() -> None:
    host = SmallHost(Kvm(), FRAMES, large_pages=True)
    for number in range(3):
        guest = host.start(of_sizes(number + 1, kernel_data=512, heap=2048), settings())
        assert guest
    for number in range(2):
        host.touch(host.guests[number], np.arange(2560))
    host.make_room(FRAMES - 7680 + 1, host.guests[0])
    assert host.free > FRAMES - 7680
    assert host.pool.counts().large_pages < 15


def ksm_host(hypervisor: Kvm) -> tuple[SmallHost, HostGuest]:
    """A guest that holds nothing yet."""
    host = SmallHost(hypervisor, FRAMES)
    guest = host.start(of_sizes(1, absent=8000), settings())
    assert guest
    return host, guest


def test_ksm_runs_when_ksmtuned_says_so() -> None:
    """20 % of 8192 pages are to stay free, 1638.4: with 6553 that are taken it is not all there is, with 6554 it is."""
    host, guest = ksm_host(Kvm(thres_const=0, sleep_msec=0.01))  # by the script's rule 10 ms on so little memory
    host.touch(guest, np.arange(6553), names=np.arange(2, 6555).astype(np.uint64) // np.uint64(2))
    for _ in range(12):
        host.tick()
    assert host.pool.scan_counts().pages_scanned == 0
    host.touch(guest, [6553])
    for _ in range(5):
        host.tick()
    assert host.pool.scan_counts().pages_scanned == 0  # the script looks once a minute
    host.tick()
    assert host.pool.scan_counts().pages_scanned > 0
    for _ in range(6):
        host.tick()
    assert host.pool.counts().pages_sharing == 3276
    assert host.ledger.counts[Operation.SHARE] == host.pool.counts().pages_merged
    assert host.ledger.counts[Operation.SCAN_VISIT] == host.pool.scan_counts().pages_scanned
    assert host.ledger.counts[Operation.SCAN_HASH] == host.pool.scan_counts().pages_checksummed
    guest.pool.release([0, 1])  # which sharing is not: shared pages are resident, too
    for _ in range(6):
        host.tick()
    before = host.pool.scan_counts().pages_scanned
    host.tick()
    assert host.pool.scan_counts().pages_scanned == before


def test_pace_of_ksm() -> None:
    """32 MiB are so little that the script sleeps 5,120 ms; 300 pages each time, and 600 after the next minute."""
    host, guest = ksm_host(Kvm(thres_coef=100, smart_scan=False))
    host.touch(guest, np.arange(7900))
    for ticks, scanned in [(5, 0), (1, 300), (5, 11 * 300), (1, 11 * 300 + 2 * 600)]:
        for _ in range(ticks):
            host.tick()
        assert host.pool.scan_counts().pages_scanned == scanned
