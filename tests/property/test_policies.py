"""Sharing policies beside plain dicts: whatever they share, each read is what was written last, and the pool is right.

What each of them counts on the way is held to a model of its own: test_ksm_policy.py, test_esx_policy.py.
"""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagedup.sharing import Dirty, Esx, FramePool, Ksm, PoolGuest
from pagedup.sharing.frame_pool import ABSENT, LARGE_PAGE, OUT
from pagedup.sharing.policies import Policy

PAGES, LARGE_PAGES, CAPACITY = 80, LARGE_PAGE + 30, 3 * LARGE_PAGE  # large guests fill it now and then

POLICIES = [
    Dirty(pages_to_scan=7),
    Ksm(pages_to_scan=7, smart_scan=False, max_page_sharing=2**31 - 1),
    Ksm(pages_to_scan=7, smart_scan=False, max_page_sharing=2**31 - 1, use_zero_pages=True),
    Ksm(pages_to_scan=7, max_page_sharing=3),
    Ksm(pages_to_scan=7, max_page_sharing=2, use_zero_pages=True),
    Esx(cpu_ghz=1000, share_scan_time=0.001, share_force_salting=1),
    Esx(cpu_ghz=1000, share_scan_time=0.001, share_force_salting=0, seed=7),
    Esx(cpu_ghz=1000, share_scan_time=0.001),
]
NUMBERS = st.lists(st.integers(0, PAGES - 1), max_size=PAGES, unique=True)
RUNS = st.tuples(st.integers(0, PAGES), st.integers(0, PAGES)).map(lambda ends: list(range(min(ends), max(ends))))


class PolicyAndModel(RuleBasedStateMachine):
    @initialize(policy=st.sampled_from(POLICIES), frame_size=st.sampled_from([8, 64, 4096]), large=st.booleans())
    def begin(self, policy: Policy, frame_size: int, large: bool) -> None:
        self.policy, self.size, self.large = policy, frame_size, large and frame_size < 4096
        self.pool = FramePool(CAPACITY if self.large else 2 * PAGES, frame_size, policy=policy)
        self.guests: list[PoolGuest] = []
        self.model: list[dict[int, bytes]] = []
        self.out: list[dict[int, bytes]] = []
        self.another_guest(0)

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.close()

    def content(self, number: int) -> bytes:
        whole = bytearray(self.size)
        whole[-1 if number % 2 else 0] = number
        return bytes(whole)

    def pick(self, which: int) -> tuple[PoolGuest, dict[int, bytes]]:
        return self.guests[which % len(self.guests)], self.model[which % len(self.guests)]

    def places(self, numbers: list[int]) -> list[int]:
        """Pages at both ends of a large page, and behind it, in guests that have one."""
        return [n if n < PAGES // 3 else LARGE_PAGES - 1 - (PAGES - 1 - n) for n in numbers] if self.large else numbers

    def places_in(self, which: int, numbers: list[int]) -> list[int]:
        """Those of them that are not out."""
        out = self.out[which % len(self.guests)]
        return [gpn for gpn in self.places(numbers) if gpn not in out]

    @precondition(lambda self: len(self.guests) < 4)
    @rule(domain=st.sampled_from([None, "a", "b"]))
    def another_guest(self, domain: Any) -> None:
        pages = LARGE_PAGES if self.large else PAGES
        self.guests.append(self.pool.add_guest(pages, domain=domain, large_pages=self.large and len(self.guests) < 2))
        self.model.append({})
        self.out.append({})

    @rule(which=st.integers(0, 3), numbers=NUMBERS | RUNS, first=st.integers(0, 5), same=st.booleans())
    def write(self, which: int, numbers: list[int], first: int, same: bool) -> None:
        guest, model = self.pick(which)
        gpns = self.places_in(which, numbers)
        contents = [self.content(first if same else (first + gpn * gpn) % 6) for gpn in gpns]
        before = self.pool.counts(), self.pool.scan_counts()
        try:
            guest.write(gpns, np.frombuffer(b"".join(contents), np.uint8).reshape(len(gpns), self.size))
        except MemoryError:
            assert (self.pool.counts(), self.pool.scan_counts()) == before
            return
        model.update(zip(gpns, contents, strict=True))
        for gpn in np.flatnonzero(guest.page_table != ABSENT).tolist():
            model.setdefault(gpn, bytes(self.size))  # the rest of a large page that was touched

    @rule(which=st.integers(0, 3), numbers=NUMBERS | RUNS)
    def release(self, which: int, numbers: list[int]) -> None:
        guest, model = self.pick(which)
        gpns = self.places_in(which, numbers)
        guest.release(gpns)
        for gpn in gpns:
            model.pop(gpn, None)

    @rule(which=st.integers(0, 3), numbers=NUMBERS | RUNS)
    def page_out(self, which: int, numbers: list[int]) -> None:
        guest, model = self.pick(which)
        gpns = [gpn for gpn in self.places(numbers) if gpn in model]
        out = np.full((len(gpns), self.size), 0xEE, np.uint8)
        guest.page_out(gpns, out)
        for gpn, frame in zip(gpns, out, strict=True):
            assert frame.tobytes() == model[gpn]
            self.out[which % len(self.guests)][gpn] = model.pop(gpn)

    @rule(which=st.integers(0, 3), every=st.integers(1, 3))
    def page_in(self, which: int, every: int) -> None:
        guest, model = self.pick(which)
        out = self.out[which % len(self.guests)]
        gpns = sorted(out)[::every]
        contents = np.frombuffer(b"".join(out[gpn] for gpn in gpns), np.uint8).reshape(len(gpns), self.size)
        before = self.pool.counts(), self.pool.scan_counts()
        try:
            guest.page_in(gpns, contents)
        except MemoryError:
            assert (self.pool.counts(), self.pool.scan_counts()) == before
            return
        for gpn in gpns:
            model[gpn] = out.pop(gpn)

    @rule(seconds=st.floats(0, 1) | st.just(math.inf))
    def scan(self, seconds: float) -> None:
        before = self.pool.counts().in_use
        self.pool.scan(seconds)
        assert self.pool.counts().in_use <= before

    @precondition(lambda self: self.large)
    @rule(which=st.integers(0, 3))
    def break_large(self, which: int) -> None:
        guest, _ = self.pick(which)
        guest.break_large(np.flatnonzero(guest.large))

    @precondition(lambda self: self.large)
    @rule(which=st.integers(0, 3), most=st.sampled_from([0, 3, LARGE_PAGE]))
    def rebuild_large(self, which: int, most: int) -> None:
        guest, model = self.pick(which)
        guest.rebuild_large(np.flatnonzero(~guest.large), max_shared_pages=most)
        for gpn in np.flatnonzero(guest.page_table != ABSENT).tolist():
            model.setdefault(gpn, bytes(self.size))

    @rule()
    def converge(self) -> None:
        """Left alone, every policy that may stores each content once a domain."""
        if isinstance(self.policy, Esx):
            for guest in self.guests:
                guest.break_large(np.flatnonzero(guest.large))
        for _ in range(4):
            self.pool.scan(math.inf)
        shared = Counter[Any]()
        for number, (guest, model) in enumerate(zip(self.guests, self.model, strict=True)):
            domain = self.policy.domain(guest.domain, number)
            shared.update((domain, content) for content in model.values())
        counts = self.pool.counts()
        if not isinstance(self.policy, Ksm) or not self.policy.smart_scan:
            assert counts.in_use == len(shared)
            zero = [n for (_, content), n in shared.items() if not any(content)]
            if isinstance(self.policy, Esx):  # one alone may be a hint
                assert sum(n for n in zero if n > 1) <= counts.zero_pages <= sum(zero)
            else:
                assert counts.zero_pages in (0, sum(zero))
            self.pool.scan(math.inf)
            assert self.pool.counts() == counts
        assert counts.in_use >= len(shared)

    @invariant()
    def is_right(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        for guest, model in zip(self.guests, self.model, strict=True):
            out = np.zeros((guest.pages, self.size), np.uint8)
            there = np.flatnonzero(guest.marks & OUT == 0)
            read = np.full((len(there), self.size), 0xEE, np.uint8)
            guest.read(there, read)
            out[there] = read
            present = guest.page_table != ABSENT
            assert np.flatnonzero(present).tolist() == sorted(model)
            assert all(out[gpn].tobytes() == content for gpn, content in model.items())
            assert not out[~present].any()


TestPolicyAndModel: Any = PolicyAndModel.TestCase
TestPolicyAndModel.settings = settings(max_examples=150, stateful_step_count=25)


@pytest.mark.parametrize("frame_size", [8, 4096])
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_long_walk(policy: Policy, frame_size: int) -> None:
    """Many more pages, and contents of which most come a few times, at places that collide in the index."""
    dice = np.random.default_rng(frame_size)
    n = 3000 if frame_size == 8 else 600
    with FramePool(3 * n, frame_size, policy=policy) as pool:
        guests = [pool.add_guest(n, domain=domain) for domain in (None, None, "b")]
        model = np.zeros((len(guests), n), np.uint64)
        for step in range(80):
            g = int(dice.integers(len(guests)))
            gpns = dice.permutation(n)[: dice.integers(n // 4)]
            names = dice.integers(0, n // 4, len(gpns)).astype(np.uint64)
            data = np.zeros((len(gpns), frame_size // 8), np.uint64)
            data[:, -1] = names
            if step % 6 == 5:
                guests[g].release(gpns)
                model[g, gpns] = 0
            else:
                guests[g].write(gpns, data.view(np.uint8))
                model[g, gpns] = names
            pool.scan(math.inf if step % 3 else float(dice.random()))
            pool.check()
            for guest, own in zip(guests, model, strict=True):
                out = np.full((n, frame_size // 8), 9, np.uint64)
                guest.read(np.arange(n), out.view(np.uint8))
                assert (out[:, -1] == own).all() and not out[:, :-1].any()
        assert pool.counts().pages_merged > n
