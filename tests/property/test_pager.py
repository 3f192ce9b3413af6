"""The pager beside a plain dict: wherever a page is, it holds what was written last, and memory adds up to the frame."""

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagedup.host import Pager, PageLost
from pagedup.sharing import Esx, FramePool, Ksm, PoolGuest
from pagedup.sharing.frame_pool import ABSENT, LARGE_PAGE, OUT
from pagedup.sharing.policies import Policy
from pagedup.swap import (
    CompressedCache,
    CompressedNames,
    CompressedPages,
    SwapFile,
    SwapNames,
    SwapSpace,
    oldest_victims,
    random_victims,
)

PAGES, LARGE_PAGES = 60, LARGE_PAGE + 20
NUMBERS = st.lists(st.integers(0, PAGES - 1), max_size=PAGES, unique=True)
RUNS = st.tuples(st.integers(0, PAGES), st.integers(0, PAGES)).map(lambda ends: list(range(min(ends), max(ends))))
POLICIES = [None, Ksm(pages_to_scan=7, smart_scan=False), Esx(cpu_ghz=1000, share_scan_time=0.001, seed=3)]


class PagerAndModel(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(POLICIES),
        frame_size=st.sampled_from([8, 64, 4096]),
        large=st.booleans(),
        stores=st.sampled_from(["both", "both", "swap", "cache", "neither"]),
        cached=st.integers(1, 8),
        slots=st.integers(1, 40),
        capacity=st.integers(PAGES // 2, 2 * PAGES),
    )
    def begin(
        self, policy: Policy | None, frame_size: int, large: bool, stores: str, cached: int, slots: int, capacity: int
    ) -> None:
        self.size, self.large = frame_size, large and frame_size < 4096
        self.pool = FramePool(capacity + (LARGE_PAGE if self.large else 0), frame_size, policy=policy)
        self.swap: SwapSpace | None = None
        self.cache: CompressedPages | None = None
        if stores in ("both", "swap"):
            self.swap = SwapNames(slots) if frame_size == 8 else SwapFile(slots, frame_size)
        if stores in ("both", "cache"):
            self.cache = CompressedNames(cached, 0.5) if frame_size == 8 else CompressedCache(cached, frame_size)
        self.pager = Pager(self.pool, self.swap, self.cache)
        self.pager._step = 16  # several batches a call
        self.guests: list[PoolGuest] = []
        self.model: list[dict[int, bytes]] = []
        self.dice = np.random.default_rng(capacity)
        self.another_guest()

    def teardown(self) -> None:
        for each in ("pool", "swap", "cache"):
            if getattr(self, each, None) is not None:
                getattr(self, each).close()

    def content(self, number: int) -> bytes:
        """Few contents, so that pages are shared; odd ones do not compress."""
        if self.size == 8:
            return number.to_bytes(8, "little")
        whole = bytes([number]) * self.size
        return np.random.default_rng(number).bytes(self.size) if number % 2 else whole

    def pick(self, which: int) -> tuple[PoolGuest, dict[int, bytes]]:
        return self.guests[which % len(self.guests)], self.model[which % len(self.guests)]

    def places(self, numbers: list[int]) -> list[int]:
        """Pages at both ends of a large page, and behind it, in guests that have one."""
        return [n if n < PAGES // 3 else LARGE_PAGES - PAGES + n for n in numbers] if self.large else numbers

    @precondition(lambda self: len(self.guests) < 3)
    @rule()
    def another_guest(self) -> None:
        pages = LARGE_PAGES if self.large else PAGES
        self.guests.append(self.pool.add_guest(pages, large_pages=self.large and not self.guests))
        self.model.append({})

    @rule(which=st.integers(0, 2), numbers=NUMBERS | RUNS, first=st.integers(0, 9), past=st.booleans())
    def write(self, which: int, numbers: list[int], first: int, past: bool) -> None:
        guest, model = self.pick(which)
        gpns = self.places(numbers)
        contents = [self.content((first + gpn * gpn) % 10) for gpn in gpns]
        data = np.frombuffer(b"".join(contents), np.uint8).reshape(len(gpns), self.size)
        out = (guest.marks[gpns] & OUT != 0).any()
        before = self.pool.counts(), self.pager.counts(), self.pool.limit
        try:
            if past and not out:
                guest.write(gpns, data)
            else:
                self.pager.write(guest, gpns, data)
        except MemoryError:
            after = self.pool.counts(), self.pager.counts(), self.pool.limit
            assert after[0].in_use == before[0].in_use and after[1:] == before[1:]
            return
        model.update(zip(gpns, contents, strict=True))
        for gpn in np.flatnonzero(guest.page_table != ABSENT).tolist():
            model.setdefault(gpn, bytes(self.size))  # the rest of a large page that was touched

    @rule(which=st.integers(0, 2), numbers=NUMBERS | RUNS, data=st.data())
    def page_out(self, which: int, numbers: list[int], data: st.DataObject) -> None:
        guest, model = self.pick(which)
        table = guest.page_table
        gpns = [gpn for gpn in self.places(numbers) if table[gpn] != ABSENT]
        self.go(guest, np.array(gpns, np.uint32))

    @rule(which=st.integers(0, 2), n=st.integers(0, PAGES), random=st.booleans())
    def page_victims_out(self, which: int, n: int, random: bool) -> None:
        guest, _ = self.pick(which)
        victims = (random_victims if random else oldest_victims)(guest, n)
        assert guest.alone(victims).all() and len(set(victims.tolist())) == len(victims)
        self.go(guest, victims)

    def go(self, guest: PoolGuest, gpns: Any) -> None:
        alone = int(guest.alone(gpns).sum())
        before, in_use = self.pager.counts(), self.pool.counts().in_use
        done = self.pager.page_out(guest, gpns)
        after = self.pager.counts()
        assert done.compressed + done.swapped + done.kept == len(gpns)
        assert int((guest.marks[gpns] & OUT != 0).sum()) == done.compressed + done.swapped
        assert after.compressed - before.compressed == done.compressed <= alone
        assert after.swapped_out - before.swapped_out == done.swapped
        assert after.evicted - before.evicted == done.evicted
        assert after.kept - before.kept == done.kept
        assert in_use - self.pool.counts().in_use <= done.compressed + done.swapped
        if done.kept:  # both are full, or not there
            assert self.swap is None or self.swap.used == self.swap.slots
            assert (done.error is not None) == (self.swap is not None)
        if self.swap is not None and self.swap.used < self.swap.slots:
            assert done.kept == 0 and done.error is None

    @rule(which=st.integers(0, 2), share=st.sampled_from([1.0, 0.5, 0.1]))
    def page_in(self, which: int, share: float) -> None:
        guest, _ = self.pick(which)
        gpns = np.flatnonzero(guest.marks & OUT)
        gpns = gpns[self.dice.random(len(gpns)) < share]
        before, counts = self.pager.counts(), self.pool.counts()
        try:
            done = self.pager.page_in(guest, gpns)
        except MemoryError:
            frames = self.pager.frames
            assert self.pool.counts().in_use + frames + min(len(gpns), 16) > self.pool.capacity
            return
        after = self.pager.counts()
        assert done.uncompressed + done.swapped == len(gpns)
        assert after.uncompressed - before.uncompressed == done.uncompressed
        assert after.swapped_in - before.swapped_in == done.swapped
        assert self.pool.counts().in_use == counts.in_use + len(gpns)
        assert not (guest.marks[gpns] & OUT).any()

    @rule(which=st.integers(0, 2), numbers=NUMBERS | RUNS)
    def release(self, which: int, numbers: list[int]) -> None:
        guest, model = self.pick(which)
        gpns = self.places(numbers)
        self.pager.release(guest, gpns)
        for gpn in gpns:
            model.pop(gpn, None)

    @rule(which=st.integers(0, 2), numbers=st.lists(st.integers(0, PAGES - 1), max_size=2 * PAGES))
    def read(self, which: int, numbers: list[int]) -> None:
        guest, model = self.pick(which)
        gpns = self.places(numbers)
        out = np.full((len(gpns), self.size), 0xEE, np.uint8)
        before = self.pool.counts(), self.pager.counts()
        self.pager.read(guest, gpns, out)
        assert (self.pool.counts(), self.pager.counts()) == before
        assert [frame.tobytes() for frame in out] == [model.get(gpn, bytes(self.size)) for gpn in gpns]

    @rule(which=st.integers(0, 2), numbers=NUMBERS)
    def touch(self, which: int, numbers: list[int]) -> None:
        guest, _ = self.pick(which)
        guest.touch(self.places(numbers))

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def scan(self, seconds: float) -> None:
        if self.pool._policy is None:
            self.pool.share()
        else:
            self.pool.scan(seconds)

    @precondition(lambda self: self.large)
    @rule(which=st.integers(0, 2))
    def rebuild_large(self, which: int) -> None:
        guest, model = self.pick(which)
        guest.rebuild_large(np.flatnonzero(~guest.large), max_shared_pages=LARGE_PAGE)
        for gpn in np.flatnonzero(guest.page_table != ABSENT).tolist():
            model.setdefault(gpn, bytes(self.size))

    @precondition(lambda self: self.swap is not None and self.size > 8)
    @rule(which=st.integers(0, 2))
    def corrupt(self, which: int) -> None:
        """A bit of a slot flips. The page is lost when it is asked for, never read, and can be written anew."""
        guest, model = self.pick(which)
        places = self.pager._pages_of(guest).places
        swapped = np.flatnonzero((places > 0) & (places < 1 << 31))
        if not len(swapped):
            return
        assert isinstance(self.swap, SwapFile)
        gpn = int(swapped[self.dice.integers(len(swapped))])
        flip(self.swap, int(places[gpn]) - 1, int(self.dice.integers(self.size)))
        before = self.pager.counts(guest)
        out = np.zeros((1, self.size), np.uint8)
        for _ in range(2):
            with pytest.raises(PageLost):
                self.pager.read(guest, [gpn], out)
            with pytest.raises(PageLost):
                self.pager.page_in(guest, [gpn])
        assert not out.any() and self.pager.lost[-1][:2] == (self.guests.index(guest), gpn)
        after = self.pager.counts(guest)
        assert (after.lost, after.pages_lost) == (before.lost + 1, before.pages_lost + 1)
        with pytest.raises(ValueError, match="out"):
            guest.read([gpn], out)
        try:
            self.pager.write(guest, [gpn], np.frombuffer(self.content(3), np.uint8).reshape(1, -1))
            model[gpn] = self.content(3)
        except MemoryError:
            self.pager.release(guest, [gpn])
            del model[gpn]

    @invariant()
    def is_right(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        counts, frames = self.pager.counts(), self.pager.frames
        assert self.pool.counts().in_use + frames <= self.pool.capacity
        assert self.pool.limit == self.pool.capacity - frames
        assert (self.cache.used if self.cache is not None else 0) == counts.pages_compressed
        assert (self.swap.used if self.swap is not None else 0) == counts.pages_swapped + counts.lost
        assert counts.pages_lost == 0
        assert counts.pages_compressed + counts.pages_swapped == sum(guest.out for guest in self.guests)
        went = counts.compressed + counts.swapped_out
        back = counts.uncompressed + counts.swapped_in + counts.dropped + counts.lost
        assert went - back == counts.pages_compressed + counts.pages_swapped
        for guest, model in zip(self.guests, self.model, strict=True):
            out = np.full((guest.pages, self.size), 0xEE, np.uint8)
            self.pager.read(guest, np.arange(guest.pages), out)
            there = (guest.page_table != ABSENT) | (guest.marks & OUT != 0)
            assert np.flatnonzero(there).tolist() == sorted(model)
            assert all(out[gpn].tobytes() == content for gpn, content in model.items())
            assert not out[~there].any()


def flip(swap: SwapFile, slot: int, byte: int) -> None:
    """Change a bit of a slot, past the swap file."""
    with open(f"/proc/self/fd/{swap.fileno()}", "r+b") as file:
        file.seek(slot * swap.frame_size + byte)
        old = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([old[0] ^ 0x10]))


TestPagerAndModel: Any = PagerAndModel.TestCase
TestPagerAndModel.settings = settings(max_examples=100, stateful_step_count=25)
