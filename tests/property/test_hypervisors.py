"""Any hypervisor on a small host, whatever its guests do: memory adds up, and nobody reads what it did not write."""

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagedup.host.guest import HostGuest
from pagedup.host.hypervisors import Esxi, HyperV, Hypervisor, Kvm
from pagedup.host.page_use import IN_MEMORY
from pagedup.host.scenario import DynamicMemory, GuestSet
from tests.host_guests import of_sizes
from tests.small_host import PAGE, SmallHost

FRAMES = 2048
SIZES = (700, 1024, 1500)  # of guests, of which five at most are too many, be they as small as can be
ESX = Esxi(share_force_salting=0, balloon_rate="64 KiB")
HYPERVISORS = (
    ESX,
    Esxi(share_scan_time=1, hysteresis=0, ctl_max_percent=20, idle_tax=0),
    Kvm(thres_const=0, sleep_msec=0.02, monitor_interval=20),
    HyperV(),
)


def guest_set(draw: Any) -> GuestSet:
    memory = DynamicMemory(
        startup=draw(st.sampled_from([100, 600])) * PAGE,
        minimum=draw(st.sampled_from([50, 100])) * PAGE,
        maximum=draw(st.sampled_from([0, 650])) * PAGE,
        weight=draw(st.sampled_from([0, 5000])),
    )
    return GuestSet(
        layout="made here",
        boot=draw(st.sampled_from([1, 15])),
        shares=draw(st.sampled_from([1, 1000])),
        reservation=draw(st.sampled_from([0, 0, 300])) * PAGE,
        limit=draw(st.sampled_from([0, 0, 500])) * PAGE,
        salt=draw(st.sampled_from(["", "salt"])),
        dynamic_memory=memory,
    )


class HostMachine(RuleBasedStateMachine):
    host: SmallHost
    hypervisor: Hypervisor

    @initialize(
        hypervisor=st.sampled_from(HYPERVISORS),
        large_pages=st.booleans(),
        cache=st.sampled_from([0, 60]),
        data=st.data(),
    )
    def made(self, hypervisor: Hypervisor, large_pages: bool, cache: int, data: st.DataObject) -> None:
        self.hypervisor = hypervisor
        self.written: list[dict[int, int]] = []
        self.host = SmallHost(
            hypervisor,
            FRAMES,
            swap=data.draw(st.sampled_from([3000, 6000])),
            cache=cache if hypervisor.compressed_share() else 0,
            large_pages=large_pages,
        )
        self.start(data)

    @precondition(lambda self: len(self.host.pool.guests) < 5)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        pages = data.draw(st.sampled_from(SIZES))
        heap = data.draw(st.integers(0, 300))
        number = len(self.host.pool.guests) + 1
        layout = of_sizes(number, kernel_data=30, heap=heap, file_cache=50, absent=pages - heap - 80)
        if self.host.start(layout, guest_set(data.draw), boots=data.draw(st.booleans())):
            self.written.append({})

    @precondition(lambda self: self.host.guests)
    @rule(data=st.data(), begin=st.integers(0, 1400), n=st.integers(1, 700), step=st.integers(1, 3), same=st.booleans())
    def write(self, data: st.DataObject, begin: int, n: int, step: int, same: bool) -> None:
        guest = data.draw(st.sampled_from(self.host.guests), "guest")
        gpns = np.arange(begin, guest.pages, step)[:n]
        names = gpns.astype(np.uint64) % np.uint64(97) if same else None
        if names is None:
            names = np.arange(len(gpns), dtype=np.uint64) + np.uint64(self._next())
        if self.could(guest, gpns):
            done = self.host.touch(guest, gpns, names=names)
            done_ones = zip(gpns[:done].tolist(), names[:done].tolist(), strict=True)
            self.written[self.host.guests.index(guest)].update(done_ones)

    @precondition(lambda self: self.host.guests)
    @rule(data=st.data(), begin=st.integers(0, 1400), n=st.integers(1, 700))
    def read(self, data: st.DataObject, begin: int, n: int) -> None:
        guest = data.draw(st.sampled_from(self.host.guests), "guest")
        gpns = np.arange(begin, min(guest.pages, begin + n))
        if self.could(guest, gpns):
            self.host.touch(guest, gpns, reads=True)

    @rule(seconds=st.sampled_from([1.0, 10.0, 10.0, 60.0]), times=st.integers(1, 5))
    def tick(self, seconds: float, times: int) -> None:
        for _ in range(times):
            self.host.tick(seconds)

    def could(self, guest: HostGuest, gpns: Any) -> bool:
        """Whether swap is large enough for it: else a guest could not go on, which is not what is tested here."""
        host = self.host
        most = sum(each.pages for each in host.guests)
        return host.pager.swap is not None and host.pager.swap.slots + FRAMES - 600 >= most

    _names = 1 << 50

    def _next(self) -> int:
        HostMachine._names += 1 << 20
        return HostMachine._names

    @invariant()
    def memory_adds_up(self) -> None:
        if hasattr(self, "host"):
            self.host.check()

    @invariant()
    def nobody_reads_what_it_did_not_write(self) -> None:
        if not hasattr(self, "host"):
            return
        for guest, written in zip(self.host.guests, self.written, strict=True):
            gpns = np.array([gpn for gpn in written if guest.memory.uses[gpn] <= IN_MEMORY], np.uint32)
            names = np.empty(len(gpns), np.uint64)
            self.host.pager.read(guest.pool, gpns, names)
            assert names.tolist() == [written[gpn] for gpn in gpns.tolist()]

    @invariant()
    def each_hypervisor_keeps_its_promises(self) -> None:
        if not hasattr(self, "host"):
            return
        host = self.host
        if isinstance(self.hypervisor, Esxi):
            for guest in host.guests:
                assert guest.memory.balloon <= self.hypervisor.ctl_max_percent / 100 * guest.pages
                reservation = min(300, guest.pages) if guest.settings.reservation else 0
                limit = 500 if guest.settings.limit else guest.pages
                assert not guest.pool.out or guest.pool.present >= min(reservation, limit)
        elif isinstance(self.hypervisor, Kvm):
            assert sum(host.balloons) == 0
        else:
            assert sum(guest.pages - guest.memory.balloon for guest in host.guests) <= host.capacity
            assert sum(host.out) == 0
            assert host.pool.counts().pages_sharing == 0


TestHost = HostMachine.TestCase
TestHost.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_the_same_happens_again() -> None:
    """Whatever is random comes from the seed."""

    def run(hypervisor: Hypervisor) -> list[Any]:
        host = SmallHost(hypervisor, FRAMES, cache=50 if hypervisor.compressed_share() else 0, large_pages=True)
        seen: list[Any] = []
        for number in range(2):
            host.start(of_sizes(number + 1, kernel_data=100, heap=900, absent=500))
        for turn in range(12):
            for guest in host.guests:
                host.touch(guest, np.arange(100 * turn, 100 * turn + 300))
            host.tick()
            seen.append((host.state, host.balloons, host.out, host.pool.counts(), host.pager.counts()))
            seen.append([guest.pool.page_table.tolist() for guest in host.guests])
        return seen

    for hypervisor in HYPERVISORS[:3]:
        assert run(hypervisor) == run(hypervisor)
