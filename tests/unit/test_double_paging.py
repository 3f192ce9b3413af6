"""Why ESX picks at random whom it pages out: a guest that pages out what it did not use for long picks the same pages.

R. P. Goldberg and R. Hassinger, "The double paging anomaly", 1974; C. A. Waldspurger, "Memory resource management in
VMware ESX Server", OSDI 2002, section 5.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from pagedup.host.costs import Operation
from pagedup.host.fresh_names import FreshNames
from pagedup.host.scenario import Phase
from pagedup.host.work import Work
from pagedup.sharing.frame_pool import PoolGuest
from tests.host_guests import OneGuest, of_sizes

Pick = Callable[[PoolGuest, int], NDArray[np.uint32]]


class Paged(NamedTuple):
    guest_out: int
    twice: int
    host_in: int


def paged(victims: Pick, frames: int, key: int) -> Paged:
    """A guest of 4,000 pages, with a third of them in its balloon, on a host that has so many frames for the others."""
    one = OneGuest(of_sizes(kernel_data=200, heap=3800), frames=frames, victims=victims, compressible=0.0)
    one.memory.inflate(1333)
    one.start()
    work = Work(one.memory, [Phase(working_set=1.0, zipf=0.6, drift=1.0, touches=50)], key)
    fresh = FreshNames(0)
    counts = []
    for tick in range(120):
        if tick in (60, 119):  # the first half is only to get going
            ledger = one.ledger.counts
            counts.append((ledger[Operation.GUEST_SWAP_OUT], one.memory.double_paged, one.pager.counts().swapped_in))
        gpns, writes = work.accesses(tick * 10.0, 10.0)
        one.touch(gpns, writes, fresh.take(len(gpns)))
    assert one.memory.balloon == 1333
    one.pool.check()
    one.pool.close()
    return Paged(*(now - before for before, now in zip(*counts, strict=True)))


def least_recently_used(guest: PoolGuest, n: int) -> NDArray[np.uint32]:
    return guest.oldest(n, "host")


def at_random(guest: PoolGuest, n: int) -> NDArray[np.uint32]:
    return guest.pick(n)


@pytest.mark.parametrize("key", [1, 2, 3])
@pytest.mark.parametrize(("short", "times"), [(0.05, 4), (0.2, 1.5)])
def test_two_lrus_pick_the_same_pages(short: float, times: float, key: int) -> None:
    """Of what the guest pages out two thirds were out already; at random an eighth, where little is missing."""
    frames = round((1 - short) * (4000 - 1333))
    old, random = paged(least_recently_used, frames, key), paged(at_random, frames, key)
    assert old.guest_out == random.guest_out > 5000, "the guest does the same in both cases"
    assert old.twice > 0.5 * old.guest_out
    assert old.twice > times * random.twice > 0
    assert old.twice + old.host_in > random.twice + random.host_in, "the host reads its swap more, in all"
