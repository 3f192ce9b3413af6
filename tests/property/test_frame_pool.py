"""The frame pool beside a plain dict: every read is what was written last, and the pool is right after each step."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagedup import find_duplicates
from pagedup.sharing import FramePool, PoolGuest
from pagedup.sharing.frame_pool import ABSENT

CAPACITY, PAGES = 150, 80  # more than two words of bits; full now and then

# Few contents, so that most have duplicates: zero, and others that differ in one byte at the start or the end.
CONTENTS = st.integers(0, 5)
GPNS = st.lists(st.integers(0, PAGES - 1), max_size=PAGES, unique=True)
RUNS = st.tuples(st.integers(0, PAGES), st.integers(0, PAGES)).map(lambda ends: list(range(min(ends), max(ends))))


class PoolAndModel(RuleBasedStateMachine):
    capacity, pages = CAPACITY, PAGES

    @initialize(frame_size=st.sampled_from([8, 64, 4096]))
    def begin(self, frame_size: int) -> None:
        self.pool = FramePool(self.capacity, frame_size)
        self.size = frame_size
        self.guests: list[PoolGuest] = []
        self.model: list[dict[int, bytes]] = []
        self.before = Counter[str]()
        self.add_guest(0)

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.close()

    def content(self, number: int) -> bytes:
        whole = bytearray(self.size)
        whole[-1 if number % 2 else 0] = number
        return bytes(whole)

    def pick(self, which: int) -> tuple[PoolGuest, dict[int, bytes]]:
        return self.guests[which % len(self.guests)], self.model[which % len(self.guests)]

    def add_guest(self, domain: int) -> None:
        self.guests.append(self.pool.add_guest(self.pages, domain=f"domain {domain}"))
        self.model.append({})

    def places(self, numbers: list[int]) -> list[int]:
        """The pages that stand for these numbers below PAGES."""
        return numbers

    def touched_large(self, guest: PoolGuest, gpns: list[int]) -> dict[int, bytes]:
        """What writing these pages makes present beside them."""
        return {}

    @precondition(lambda self: len(self.guests) < 5)
    @rule(domain=st.integers(0, 2))
    def another_guest(self, domain: int) -> None:
        self.add_guest(domain)

    @rule(which=st.integers(0, 4), gpns=GPNS | RUNS, data=st.data(), same=st.booleans())
    def write(self, which: int, gpns: list[int], data: st.DataObject, same: bool) -> None:
        guest, model = self.pick(which)
        gpns = self.places(gpns)
        first = data.draw(CONTENTS)
        numbers = [first if same else (first + gpn * gpn) % 6 for gpn in gpns]
        self.write_contents(guest, model, gpns, [self.content(number) for number in numbers])

    def write_contents(self, guest: PoolGuest, model: dict[int, bytes], gpns: list[int], contents: list[bytes]) -> None:
        array = np.frombuffer(b"".join(contents), np.uint8).reshape(len(gpns), self.size)
        expected = self.needed(guest, gpns)
        beside = self.touched_large(guest, gpns)
        before = self.pool.counts()
        tables = [guest.page_table.tolist() for guest in self.guests]
        try:
            guest.write(gpns, array)
        except MemoryError:
            assert expected > before.capacity - before.in_use
            assert self.pool.counts() == before
            assert [guest.page_table.tolist() for guest in self.guests] == tables
            return
        assert expected <= before.capacity - before.in_use
        after = self.pool.counts()
        touched = len([gpn for gpn in gpns if gpn not in model])
        assert after.in_use == before.in_use + expected + len(beside)
        assert after.first_touches == before.first_touches + touched + len(beside)
        assert after.cow_breaks == before.cow_breaks + expected - touched
        model.update(beside)
        model.update(zip(gpns, contents, strict=True))

    def needed(self, guest: PoolGuest, gpns: list[int]) -> int:
        """Frames that a write takes: none for the last page of a frame."""
        pages = Counter(frame for guest in self.guests for frame in guest.page_table.tolist())
        need = 0
        for frame in guest.page_table[gpns].tolist():
            if frame == ABSENT or pages[frame] > 1:
                need += 1
                pages[frame] -= 1
        return need

    @rule(which=st.integers(0, 4), gpns=st.lists(st.integers(0, PAGES - 1)))
    def read(self, which: int, gpns: list[int]) -> None:
        guest, model = self.pick(which)
        gpns = self.places(gpns)
        out = np.full((len(gpns), self.size), 0xEE, np.uint8)
        guest.read(gpns, out)
        assert [frame.tobytes() for frame in out] == [model.get(gpn, bytes(self.size)) for gpn in gpns]

    @rule(which=st.integers(0, 4), gpns=GPNS | RUNS)
    def release(self, which: int, gpns: list[int]) -> None:
        guest, model = self.pick(which)
        gpns = self.places(gpns)
        before = self.pool.counts()
        guest.release(gpns)
        gone = [model.pop(gpn) for gpn in gpns if gpn in model]
        assert self.pool.counts().pages_released == before.pages_released + len(gone)

    @rule()
    def share(self) -> None:
        self.pool.share()
        contents: dict[Any, set[bytes]] = {}
        for guest, model in zip(self.guests, self.model, strict=True):
            contents.setdefault(guest.domain, set()).update(model.values())
        counts = self.pool.counts()
        zero = bytes(self.size)
        assert counts.in_use == sum(map(len, contents.values()))
        assert counts.zero_frames == sum(zero in own for own in contents.values())
        assert counts.zero_pages == sum(content == zero for model in self.model for content in model.values())
        # The same as a snapshot of all pages says.
        pages = [np.frombuffer(b"".join(model.values()), np.uint8) for model in self.model]
        found = find_duplicates(pages, frame_size=self.size, domains=[guest.domain for guest in self.guests])
        assert counts.in_use - counts.zero_frames == found.n_distinct
        assert counts.zero_pages == found.n_zero
        assert counts.pages_sharing == found.n_frames - found.n_zero - found.n_distinct

    @rule(which=st.integers(0, 4), gpns=GPNS, data=st.data())
    def merge(self, which: int, gpns: list[int], data: st.DataObject) -> None:
        guest, model = self.pick(which)
        tables = [other.page_table.tolist() for other in self.guests if other.domain == guest.domain]
        frames = sorted({frame for table in tables for frame in table if frame != ABSENT})
        gpns = [gpn for gpn in self.places(gpns) if gpn in model]
        into = [data.draw(st.sampled_from(frames)) for _ in gpns]
        memory = self.pool.memory
        equal = [memory[frame].tobytes() == model[gpn] for frame, gpn in zip(into, gpns, strict=True)]
        merged = guest.merge(gpns, into)
        assert (merged <= np.array(equal, np.bool_)).all()
        assert merged.tolist() == (guest.page_table[gpns] == into).tolist()

    @invariant()
    def is_right(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        counts = self.pool.counts()
        tables = np.concatenate([guest.page_table for guest in self.guests])
        present = tables[tables != ABSENT]
        numbers, pages = np.unique(present, return_counts=True)
        assert counts.capacity == self.capacity
        assert counts.pages_present == len(present) == sum(map(len, self.model))
        assert counts.in_use == len(numbers)
        assert counts.in_use == counts.zero_frames + counts.pages_shared + counts.pages_unshared
        assert counts.pages_present == counts.in_use + counts.pages_sharing + counts.zero_pages - counts.zero_frames
        memory = self.pool.memory
        zero = ~memory[numbers].any(axis=1)
        assert counts.pages_shared + counts.zero_frames >= np.count_nonzero(pages > 1)
        assert counts.zero_frames <= np.count_nonzero(zero)
        for guest, model in zip(self.guests, self.model, strict=True):
            frames = guest.page_table.tolist()
            assert {gpn for gpn in range(self.pages) if frames[gpn] != ABSENT} == model.keys()
            assert all(memory[frames[gpn]].tobytes() == content for gpn, content in model.items())


TestPoolAndModel: Any = PoolAndModel.TestCase
TestPoolAndModel.settings = settings(max_examples=100, stateful_step_count=25)


@pytest.mark.parametrize("frame_size", [8, 64, 4096])
def test_a_long_walk(frame_size: int) -> None:
    """Many more pages than the machine above dares, full now and then."""
    dice = np.random.default_rng(frame_size)
    n, capacity = 3000, 4500
    with FramePool(capacity, frame_size) as pool:
        guests = [pool.add_guest(n, domain=domain) for domain in "aab"]
        model = np.zeros((len(guests), n), np.uint64)
        present = np.zeros((len(guests), n), np.bool_)
        refused = 0
        for step in range(120):
            g = int(dice.integers(len(guests)))
            gpns = dice.permutation(n)[: dice.integers(n)]
            names = dice.integers(0, 40, len(gpns)).astype(np.uint64)
            data = np.zeros((len(gpns), frame_size // 8), np.uint64)
            data[:, -1] = names
            if step % 4 == 3:
                guests[g].release(gpns)
                model[g, gpns], present[g, gpns] = 0, False
            else:
                try:
                    guests[g].write(gpns, data.view(np.uint8))
                except MemoryError:
                    refused += 1
                    pool.share()
                else:
                    model[g, gpns], present[g, gpns] = names, True
            pool.check()
            for guest, own, there in zip(guests, model, present, strict=True):
                out = np.full((n, frame_size // 8), 9, np.uint64)
                guest.read(np.arange(n), out.view(np.uint8))
                assert (out[:, -1] == own).all() and not out[:, :-1].any()
                assert ((guest.page_table != ABSENT) == there).all()
        assert 0 < refused < 60
