"""The policy `Ksm` beside the model of KSM, whose pages leave at once as in a pool: all counters, after every wake.

What the model itself is held to is the kernel's KSM: tests/oracle/test_ksm_writes.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pagedup.sharing import Ksm
from tests.ksm_model import KsmModel, Page, Shared
from tests.ksm_pool import CHAINS, KsmPool

PAGES = 25
DOMAINS = "aab"
GPNS = st.lists(st.integers(0, PAGES - 1), max_size=PAGES, unique=True)


class Both:
    """The pool and the model, side by side."""

    def __init__(self, sizes: Sequence[int], policy: Ksm) -> None:
        self.pool = KsmPool(sizes, policy, domains=DOMAINS)
        self.model = KsmModel(
            sizes,
            pages_to_scan=policy.pages_to_scan,
            max_page_sharing=policy.max_page_sharing,
            use_zero_pages=policy.use_zero_pages,
            smart_scan=policy.smart_scan,
            at_once=True,
            zeros=[(domain, 0) for domain in DOMAINS],
        )
        self.model.choose = self.chosen
        self.out: list[dict[int, int]] = [{} for _ in sizes]  # what the pages hold that are out
        self.places = {
            page: (guest, gpn) for guest, pages in enumerate(self.model.guests) for gpn, page in enumerate(pages)
        }

    def frame(self, page: Page) -> int:
        guest, gpn = self.places[page]
        return int(self.pool.guests[guest].page_table[gpn])

    def chosen(self, page: Page, equally_good: Sequence[Shared]) -> Shared:
        """The one that the pool, which has done this already, has chosen: any of these is right."""
        frame = self.frame(page)
        (found,) = {
            other.shared for other in self.places if other.shared in equally_good and self.frame(other) == frame
        }
        assert found
        return found

    def there(self, guest: int, gpns: Sequence[int]) -> list[int]:
        return [gpn for gpn in gpns if gpn not in self.out[guest]]

    def write(self, guest: int, gpns: Sequence[int], names: Sequence[int]) -> None:
        self.pool.guests[guest].write(gpns, np.array(names, np.uint64))
        for gpn, name in zip(gpns, names, strict=True):
            self.model.write(guest, gpn, (DOMAINS[guest], name))

    def release(self, guest: int, gpns: Sequence[int]) -> None:
        self.pool.guests[guest].release(gpns)
        for gpn in gpns:
            self.model.release(guest, gpn)

    def write_again(self, guest: int, gpns: Sequence[int], *, anew: bool) -> None:
        """What they hold; anew: after they were released."""
        pages = self.model.guests[guest]
        held = {gpn: pages[gpn].content for gpn in gpns}
        there = {gpn: content[1] for gpn, content in held.items() if isinstance(content, tuple)}
        if anew:
            self.release(guest, list(there))
        self.write(guest, list(there), list(there.values()))

    def page_out(self, guest: int, gpns: Sequence[int]) -> None:
        pages = self.model.guests[guest]
        held = {gpn: content[1] for gpn in gpns if isinstance(content := pages[gpn].content, tuple)}
        names = np.empty(len(held), np.uint64)
        self.pool.guests[guest].page_out(list(held), names)
        assert names.tolist() == list(held.values())
        for gpn in held:
            self.model.release(guest, gpn)
        self.out[guest].update(held)

    def page_in(self, guest: int, gpns: Sequence[int]) -> None:
        out = self.out[guest]
        names = {gpn: out.pop(gpn) for gpn in gpns if gpn in out}
        self.pool.guests[guest].page_in(list(names), np.array(list(names.values()), np.uint64))
        for gpn, name in names.items():
            self.model.write(guest, gpn, (DOMAINS[guest], name))

    def wake(self) -> bool:
        ended = self.pool.wake()
        assert self.model.wake() == ended
        self.compare()
        return ended

    def full_scan(self) -> None:
        self.pool.full_scan()
        self.model.full_scan()
        self.compare()

    def compare(self) -> None:
        wanted = self.model.counters() | self.model.work()
        assert self.pool.counters() == {name: count for name, count in wanted.items() if name not in CHAINS}
        frames: dict[int, Shared] = {}
        for page in self.places:
            if page.shared:
                assert frames.setdefault(self.frame(page), page.shared) is page.shared
        assert len(frames) == len(set(frames.values()))


class PolicyAndModel(RuleBasedStateMachine):
    @initialize(
        pages_to_scan=st.sampled_from([1, 4, 30]),
        max_page_sharing=st.sampled_from([2, 3, 4, 256]),
        use_zero_pages=st.booleans(),
        smart_scan=st.booleans(),
    )
    def begin(self, **knobs: Any) -> None:
        self.both = Both([PAGES] * len(DOMAINS), Ksm(**knobs))

    def teardown(self) -> None:
        if hasattr(self, "both"):
            self.both.pool.pool.close()

    @rule(guest=st.integers(0, 2), gpns=GPNS, first=st.integers(0, 3), same=st.booleans())
    def write(self, guest: int, gpns: list[int], first: int, same: bool) -> None:
        gpns = self.both.there(guest, gpns)
        self.both.write(guest, gpns, [first if same else (first + gpn * gpn) % 4 for gpn in gpns])

    @rule(guest=st.integers(0, 2), gpns=GPNS)
    def release(self, guest: int, gpns: list[int]) -> None:
        self.both.release(guest, self.both.there(guest, gpns))

    @rule(guest=st.integers(0, 2), gpns=GPNS)
    def page_out(self, guest: int, gpns: list[int]) -> None:
        self.both.page_out(guest, gpns)

    @rule(guest=st.integers(0, 2), gpns=GPNS)
    def page_in(self, guest: int, gpns: list[int]) -> None:
        self.both.page_in(guest, gpns)

    @rule(guest=st.integers(0, 2), gpns=GPNS, anew=st.booleans())
    def write_again(self, guest: int, gpns: list[int], anew: bool) -> None:
        self.both.write_again(guest, gpns, anew=anew)

    @rule(times=st.integers(1, 8))
    def wake(self, times: int) -> None:
        for _ in range(times):
            self.both.wake()

    @rule(times=st.integers(1, 5))
    def full_scan(self, times: int) -> None:
        for _ in range(times):
            self.both.full_scan()

    @invariant()
    def is_right(self) -> None:
        if hasattr(self, "both"):
            self.both.pool.pool.check()
            self.both.compare()


TestPolicyAndModel: Any = PolicyAndModel.TestCase
TestPolicyAndModel.settings = settings(max_examples=100, stateful_step_count=30)


@pytest.mark.parametrize("max_page_sharing", [2, 3, 7, 256])
@pytest.mark.parametrize("use_zero_pages", [False, True])
@pytest.mark.parametrize("smart_scan", [False, True])
def test_a_long_walk(max_page_sharing: int, use_zero_pages: bool, smart_scan: bool) -> None:
    policy = Ksm(
        pages_to_scan=150, max_page_sharing=max_page_sharing, use_zero_pages=use_zero_pages, smart_scan=smart_scan
    )
    dice = np.random.default_rng(max_page_sharing)
    n, contents = 200, 60
    both = Both([n] * 3, policy)
    with both.pool:
        for step in range(150):
            for guest in range(3):
                part = dice.choice([0, 0, 0.02, 0.2])
                gpns = np.flatnonzero(dice.random(n) < part).tolist()
                what = dice.choice(["release", "write", "write", "in place", "anew"])
                if what == "release":
                    both.release(guest, gpns)
                elif what == "write":
                    both.write(guest, gpns, dice.integers(0, contents, (2, len(gpns))).min(axis=0).tolist())
                else:
                    both.write_again(guest, gpns, anew=what == "anew")
            if step // 10 % 2:
                both.full_scan()
            else:
                both.wake()
        wanted = both.model.counters()
        assert wanted["pages_shared"] > 0 and (wanted["pages_skipped"] > 0) == smart_scan


class Crowd(RuleBasedStateMachine):
    """Many frames of zero pages: they lose pages in all ways, and are filled again."""

    sizes = (150, 100, 50)

    @initialize(max_page_sharing=st.integers(2, 9), smart_scan=st.booleans())
    def begin(self, **knobs: Any) -> None:
        self.both = Both(self.sizes, Ksm(pages_to_scan=100, **knobs))
        for guest, size in enumerate(self.sizes):
            self.both.write(guest, range(size), [0] * size)
        for _ in range(2):
            self.both.full_scan()
        leavers = range(0, self.sizes[0], 3)
        self.both.write(0, leavers, [1000 + gpn for gpn in leavers])
        frames = self.both.model.stable[DOMAINS[0], 0]
        assert sum(shared.mapped < knobs["max_page_sharing"] for shared in frames) >= 15, "it is no crowd"

    def teardown(self) -> None:
        if hasattr(self, "both"):
            self.both.pool.pool.close()

    @rule(
        seed=st.integers(0, 2**32 - 1),
        guest=st.integers(0, 2),
        part=st.sampled_from([0.02, 0.3, 0.9]),
        what=st.sampled_from(["write", "the same", "anew", "release", "page out", "page in"]),
        name=st.sampled_from([0, 0, 2, None]),
    )
    def change(self, seed: int, guest: int, part: float, what: str, name: int | None) -> None:
        dice, both = np.random.default_rng(seed), self.both
        some = dice.permutation(self.sizes[guest])[: 1 + int(part * self.sizes[guest])].tolist()
        gpns = both.there(guest, some)
        if what == "write":
            both.write(guest, gpns, [1000 + gpn if name is None else name for gpn in gpns])
        elif what == "release":
            both.release(guest, gpns)
        elif what == "page out":
            both.page_out(guest, gpns)
        elif what == "page in":
            both.page_in(guest, some)
        else:
            both.write_again(guest, gpns, anew=what == "anew")

    @rule(times=st.integers(1, 4))
    def wake(self, times: int) -> None:
        for _ in range(times):
            self.both.wake()

    @rule()
    def full_scan(self) -> None:
        self.both.full_scan()

    @invariant()
    def is_right(self) -> None:
        if hasattr(self, "both"):
            self.both.pool.pool.check()
            self.both.compare()


TestCrowd: Any = Crowd.TestCase
TestCrowd.settings = settings(max_examples=50, stateful_step_count=20)


def test_old_pages() -> None:
    """Smart scan has no visit more to tell from others after the 22nd; the kernel counts to 255."""
    both = Both([50] * 3, Ksm(pages_to_scan=40))
    dice = np.random.default_rng(1)
    with both.pool:
        for guest in range(3):
            both.write(guest, range(50), dice.integers(1, 100, 50).tolist())
        for _ in range(300):
            both.full_scan()
            both.wake()
            both.write_again(2, dice.integers(0, 50, 1).tolist(), anew=True)
        ages = [page.item.age for pages in both.model.guests for page in pages if page.item]
        assert max(ages) == 255
