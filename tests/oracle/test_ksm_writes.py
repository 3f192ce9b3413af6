"""Linux's KSM beside the model of it and beside pools with the policy `Ksm`: the counters after every full scan.

The same writes of the same bytes. All counters agree to the last digit, where the kernel itself repeats. It was run
twice on the same writes first, for 50 scans each (Linux 6.18, four walks a setting):

* Where no content is on more pages than max_page_sharing allows, it repeats, whatever the bytes are and however long it
  pauses between scans.
* Where some are, and pages leave what they share, the same bytes repeat, but the same equalities in other bytes do
  not: with max_page_sharing=3 other pages_shared in 3 of 4 walks. For each search of the stable tree tidies all that
  it passes, and what it passes depends on the bytes: it drops what nobody maps any more, dissolves chains of one, and
  moves a node with room to the head of its chain. With max_page_sharing=2 nothing is ever moved, and only
  stable_node_chains and stable_node_dups differ (1 of 4 walks). Above 2 we look at what no search can change on its
  way: one content alone, and pages that stay once they are shared.
* A chain that was not tidied for stable_node_chains_prune_millisecs, by the clock, is tidied whole, and then its
  fullest node is taken, else its first with room. With 2,000, as it ships, and a pause now and then other pages_shared
  in 3 of 4 walks; with 0, and with a month, it repeats. We look at both.

Nothing is written in the middle of a pass: such pages are volatile until the next, since the batch of new pages of a
CPU still refers to them, and only the begin of a pass empties it.

In a pool what is written or released leaves what it shared at once, not when it is visited. So in the middle of a pass
only the visits are compared with it; and where contents are on more pages than the limit and pages leave, it is held to
a model of its own (tests/property/test_ksm_policy.py), and here it is seen that it stays near.
"""

import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest

from benchmarks import ksm
from pagedup.sharing import Ksm
from tests.ksm_model import KsmModel
from tests.ksm_pool import CHAINS, KsmPool
from tests.mergeable import PAGE, Change, MergeableGuests

pytestmark = [
    pytest.mark.ksm,
    pytest.mark.skipif(
        [int(part) for part in platform.release().split(".")[:2]] < [6, 18], reason="the model is of Linux 6.18"
    ),
]

PROCESSES = [[60, 60], [60]]
SHIPPED = {"max_page_sharing": 256, "use_zero_pages": False, "smart_scan": True}
MONTH = 30 * 24 * 3600 * 1000
VISITS = {"pages_scanned", "pages_skipped", "full_scans"}


class Sides:
    """The kernel, the model, and pools."""

    def __init__(
        self, kernel: ksm.Stepper, guests: MergeableGuests, model: KsmModel, pools: Sequence[KsmPool], but: set[str]
    ) -> None:
        self.kernel, self.guests, self.model, self.pools = kernel, guests, model, pools
        self.simulated: list[KsmModel | KsmPool] = [model, *pools]
        self.but = but  # counters that are not compared
        self.most: dict[str, int] = {}  # what each counter came to, to see that something was compared

    def change(self, changes: Sequence[Change]) -> None:
        """The same writes and releases."""
        self.guests.change(changes)
        for side in self.simulated:
            for guest, gpn, content in changes:
                if content is None:
                    side.release(guest, gpn)
                else:
                    side.write(guest, gpn, content)

    def full_scan(self) -> None:
        """One more, compared."""
        self.kernel.scan()
        for side in self.simulated:
            side.full_scan()
        self.compare(ended=True)

    def wakes(self) -> None:
        """The same in small steps, each compared."""
        ended = False
        while not ended:
            ended = self.kernel.wake()
            assert [side.wake() for side in self.simulated] == [ended] * len(self.simulated)
            self.compare(ended)

    def compare(self, ended: bool) -> None:
        wanted = self.kernel.all_counters()
        items = sum(wanted[name] for name in ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"))
        assert items == self.guests.items(), "KSM counts pages of other processes"
        self.most = {name: max(count, self.most.get(name, 0)) for name, count in wanted.items()}
        names = wanted.keys() - self.but
        self.compare_one(self.model, wanted, names)
        for pool in self.pools:
            self.compare_one(pool, wanted, names - set(CHAINS) if ended else VISITS)

    def compare_one(self, side: KsmModel | KsmPool, wanted: dict[str, int], names: set[str]) -> None:
        found = side.counters()
        assert {name: found[name] for name in names} == {name: wanted[name] for name in names}, type(side)


@contextmanager
def beside(
    kernel: ksm.Stepper,
    *,
    fullest: bool = True,
    pages_to_scan: int = 1 << 22,
    pools: bool = True,
    but: Sequence[str] = (),
    **knobs: Any,
) -> Iterator[Sides]:
    """All sides, as KSM ships but for these knobs; of a chain the fullest node is taken, or the first with room."""
    knobs = {**SHIPPED, **knobs}
    prune = {"stable_node_chains_prune_millisecs": 0 if fullest else MONTH}
    kernel.restart({name: int(value) for name, value in knobs.items()} | prune | {"pages_to_scan": pages_to_scan})
    with ExitStack() as stack:
        guests = stack.enter_context(MergeableGuests(PROCESSES))
        model = KsmModel(guests.sizes, fullest=fullest, pages_to_scan=pages_to_scan, **knobs)
        policy = Ksm(pages_to_scan=pages_to_scan, **knobs)
        frame_sizes = (8, PAGE) if pools else ()
        yield Sides(
            kernel,
            guests,
            model,
            [stack.enter_context(KsmPool(guests.sizes, policy, frame_size=size)) for size in frame_sizes],
            set(but),
        )


def some_changes(dice: np.random.Generator, part: float, contents: int, released: float = 0.25) -> list[Change]:
    """Changes of so many of the pages; the first contents are on more pages than the last."""
    found: list[Change] = []
    for guest, size in enumerate(size for sizes in PROCESSES for size in sizes):
        for gpn in np.flatnonzero(dice.random(size) < part).tolist():
            content = int(dice.integers(contents, size=2).min())
            found.append((guest, gpn, None if dice.random() < released else content))
    return found


@pytest.mark.parametrize("max_page_sharing", [2, 256])
@pytest.mark.parametrize("use_zero_pages", [False, True])
@pytest.mark.parametrize("smart_scan", [False, True])
def test_random_writes(max_page_sharing: int, use_zero_pages: bool, smart_scan: bool) -> None:
    with ksm.stepped() as kernel:
        for seed in range(4):
            dice = np.random.default_rng(seed)
            contents = [8, 8, 40, 400][seed]
            with beside(
                kernel,
                max_page_sharing=max_page_sharing,
                use_zero_pages=use_zero_pages,
                smart_scan=smart_scan,
                pools=max_page_sharing > 2,
                but=CHAINS if max_page_sharing == 2 else (),
            ) as sides:
                sides.change(some_changes(dice, 1, contents))
                for _ in range(45):
                    sides.full_scan()
                    sides.change(some_changes(dice, dice.choice([0, 0, 0.02, 0.15, 0.3]), contents))
                for _ in range(15):
                    sides.full_scan()
            never = {name for name, count in sides.most.items() if count <= 0}
            assert never == {
                *(["ksm_zero_pages"] if not use_zero_pages else []),
                *(["pages_skipped"] if not smart_scan else []),
                *(CHAINS if max_page_sharing > 2 else []),
            }


@pytest.mark.parametrize("fullest", [True, False])
@pytest.mark.parametrize("smart_scan", [False, True])
def test_one_content(fullest: bool, smart_scan: bool) -> None:
    """Its nodes fill and empty, and the one that a page joins is the right one, or the counters would part soon."""
    with ksm.stepped() as kernel:
        for seed, most in enumerate([2, 3, 4, 7, 30]):
            dice = np.random.default_rng(seed)
            with beside(
                kernel, fullest=fullest, max_page_sharing=most, smart_scan=smart_scan, pools=False
            ) as sides:
                for step in range(40):
                    crowd_leaves = step % 10 == 9
                    sides.change(some_changes(dice, *((0.98, 1, 0.98) if crowd_leaves else (0.3, 1, 0.2))))
                    sides.full_scan()
            assert sides.most["stable_node_dups"] > 3
            assert sides.most["pages_shared"] > 3


@pytest.mark.parametrize("fullest", [True, False])
@pytest.mark.parametrize("use_zero_pages", [False, True])
def test_pages_that_stay(fullest: bool, use_zero_pages: bool) -> None:
    """Nodes of several contents fill, and no page leaves."""
    with ksm.stepped() as kernel:
        for seed, most in enumerate([2, 3, 4, 7, 16]):
            dice = np.random.default_rng(seed)
            with beside(kernel, fullest=fullest, max_page_sharing=most, use_zero_pages=use_zero_pages) as sides:
                for _ in range(30):
                    pages = sides.model.guests
                    changes = some_changes(dice, 0.1, 6)
                    sides.change([change for change in changes if not pages[change[0]][change[1]].shared])
                    sides.full_scan()
            assert sides.most["stable_node_chains"] > 1
            assert sides.most["stable_node_dups"] > sides.most["stable_node_chains"] + 2


@pytest.mark.parametrize("pages_to_scan", [1, 7, 60])
@pytest.mark.parametrize("use_zero_pages", [False, True])
def test_wakes(pages_to_scan: int, use_zero_pages: bool) -> None:
    """After each wake, with pages that are gone since, or changed, before and behind it."""
    with ksm.stepped() as kernel:
        dice = np.random.default_rng(pages_to_scan)
        with beside(kernel, pages_to_scan=pages_to_scan, use_zero_pages=use_zero_pages) as sides:
            sides.change(some_changes(dice, 1, 8))
            for _ in range(5 if pages_to_scan == 1 else 12):
                sides.wakes()
                sides.change(some_changes(dice, 0.2, 8))


@pytest.mark.parametrize("pages_to_scan", [1, 7])
def test_all_leave(pages_to_scan: int) -> None:
    """What nobody maps any more is gone with all that hang on it as soon as the first of them is visited."""
    with ksm.stepped() as kernel, beside(kernel, pages_to_scan=pages_to_scan, smart_scan=False) as sides:
        for content in range(1, 4):
            sides.change([(guest, gpn, content) for guest in range(3) for gpn in range(60)])
            for _ in range(2):
                sides.wakes()
                assert sides.model.counters()["pages_sharing"] in (0, 179)


def test_old_pages() -> None:
    """Smart scan counts visits up to 255."""
    with ksm.stepped() as kernel, beside(kernel, smart_scan=True) as sides:
        dice = np.random.default_rng(1)
        sides.change(some_changes(dice, 1, 400))
        for _ in range(300):
            sides.full_scan()
            sides.change(some_changes(dice, 0.002, 400))
        ages = [page.item.age for pages in sides.model.guests for page in pages if page.item]
        assert max(ages) == 255


@pytest.mark.parametrize("most", [2, 3, 16])
def test_the_pool_is_near(most: int) -> None:
    """It has room a little earlier: in the kernel a page that has left takes room until it is visited."""
    with ksm.stepped() as kernel:
        found = []
        with beside(kernel, max_page_sharing=most, smart_scan=False) as sides:
            dice = np.random.default_rng(most)
            sides.change(some_changes(dice, 1, 8))
            for _ in range(60):
                kernel.scan()
                for pool in sides.pools:
                    pool.full_scan()
                wanted = kernel.all_counters()
                for pool in sides.pools:
                    sides.compare_one(pool, wanted, {"pages_volatile", "pages_scanned"})
                    found.append((wanted["pages_sharing"], pool.counters()["pages_sharing"]))
                sides.change(some_changes(dice, 0.15, 8))
        theirs, ours = np.transpose(found)
        assert 0.99 < ours.mean() / theirs.mean() < 1.06
        assert np.abs(theirs - ours).max() <= 10
