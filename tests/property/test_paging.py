"""A pool that is touched, paged out and in, beside one that is written page by page, and a model of marks and victims.

What `touch` does of a batch must be what `write` does of its pages one by one, to the last counter, under any policy.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagedup.sharing import Dirty, Esx, FramePool, Ksm, PoolGuest
from pagedup.sharing.frame_pool import ABSENT, ACCESSED_BY_GUEST, ACCESSED_BY_HOST, LARGE_PAGE, OUT
from pagedup.sharing.policies import Policy
from tests.simulated_guests import MASK, mix, random

SMALL_PAGES, LARGE_PAGES = 70, LARGE_PAGE + 41  # two clocks and orders that do not end where words do
MARKS = {"host": ACCESSED_BY_HOST, "guest": ACCESSED_BY_GUEST}
POLICIES = [
    None,
    Dirty(pages_to_scan=11),
    Ksm(pages_to_scan=11, smart_scan=False),
    Ksm(pages_to_scan=11, max_page_sharing=3, use_zero_pages=True),
    Esx(cpu_ghz=1000, share_scan_time=0.001, share_force_salting=0),
]
NUMBERS = st.lists(st.integers(0, SMALL_PAGES - 1), max_size=40)  # may repeat
ACCESSES = NUMBERS | st.lists(st.integers(0, 9), min_size=120, max_size=200)  # several turns of the engine's loop
BY: st.SearchStrategy[Literal["host", "guest"]] = st.sampled_from(["host", "guest"])


def order(seed: int, number: int, n: int, turn: int) -> list[int]:
    """The pages of a guest in the order of a round of `pick`."""
    bits = max(1, (n - 1).bit_length())
    mask, shift = 2**bits - 1, (bits + 1) // 2
    stream = mix((mix((mix(seed) + 1) & MASK) + number + 0x9E3779B97F4A7C15) & MASK)
    key = (stream + turn) & MASK
    found = []
    for i in range(n):
        while True:
            for step in range(3):
                i = (i + random(key, 2 * step)) * (random(key, 2 * step + 1) | 1) & mask
                i ^= i >> shift
            if i < n:
                break
        found.append(i)
    return found


class GuestModel:
    """What a guest's pages hold, where, and how its clocks and its order stand."""

    def __init__(self, seed: int, number: int, pages: int) -> None:
        self.held: dict[int, bytes] = {}
        self.out: dict[int, bytes] = {}
        self.marks = np.zeros(pages, np.uint8)
        self.hands = dict.fromkeys(MARKS, 0)
        self.order = self.in_turn(seed, number, pages)
        self.left: list[int] = []  # of the round

    def in_turn(self, seed: int, number: int, pages: int) -> Iterator[list[int]]:
        turn = 0
        while True:
            yield order(seed, number, pages, turn)
            turn += 1

    def oldest(self, n: int, by: str, alone: set[int], eligible: Any) -> list[int]:
        taken: list[int] = []
        pages = len(self.marks)
        for _ in range(2 * pages):
            if len(taken) == n:
                break
            gpn = self.hands[by]
            self.hands[by] = (gpn + 1) % pages
            if gpn not in self.held or not eligible[gpn]:
                continue
            if self.marks[gpn] & MARKS[by]:
                self.marks[gpn] ^= MARKS[by]
            elif (by == "guest" or gpn in alone) and gpn not in taken:
                taken.append(gpn)
        return taken

    def pick(self, n: int, alone: set[int], eligible: Any) -> list[int]:
        taken: list[int] = []
        whole = False
        while len(taken) < n and not whole:
            whole = not self.left
            self.left = self.left or next(self.order)
            while self.left and len(taken) < n:
                gpn = self.left.pop(0)
                if gpn in alone and eligible[gpn] and gpn not in taken:
                    taken.append(gpn)
        return taken


class TouchedAndWritten(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(POLICIES),
        frame_size=st.sampled_from([8, 64, 4096]),
        large=st.booleans(),
        seed=st.sampled_from([0, 7, 2**64 - 1]),
    )
    def begin(self, policy: Policy | None, frame_size: int, large: bool, seed: int) -> None:
        self.size, self.large, self.policy, self.seed = frame_size, large and frame_size < 4096, policy, seed
        self.capacity = 3 * LARGE_PAGE if self.large else 2 * SMALL_PAGES
        self.pools = [FramePool(self.capacity, frame_size, policy=policy, seed=seed) for _ in range(2)]
        self.pages = LARGE_PAGES if self.large else SMALL_PAGES
        self.model: list[GuestModel] = []
        self.add_guest()
        self.add_guest()

    def teardown(self) -> None:
        for pool in getattr(self, "pools", []):
            pool.close()

    @precondition(lambda self: len(self.model) < 3)
    @rule()
    def add_guest(self) -> None:
        for pool in self.pools:
            pool.add_guest(self.pages, large_pages=self.large and len(self.model) != 1)
        self.model.append(GuestModel(self.seed, len(self.model), self.pages))

    def take(self, which: int) -> tuple[list[PoolGuest], GuestModel]:
        number = which % len(self.model)
        return [pool.guests[number] for pool in self.pools], self.model[number]

    def places(self, numbers: list[int]) -> list[int]:
        """Pages at both ends of a large page, and behind it, in guests that have one."""
        if not self.large:
            return numbers
        return [n if n < SMALL_PAGES // 3 else LARGE_PAGES - 1 - (SMALL_PAGES - 1 - n) for n in numbers]

    def content(self, number: int) -> bytes:
        whole = bytearray(self.size)
        whole[-1 if number % 2 else 0] = number
        return bytes(whole)

    def as_frames(self, contents: list[bytes]) -> Any:
        return np.frombuffer(b"".join(contents), np.uint8).reshape(len(contents), self.size)

    def see_what_came(self, guest: PoolGuest, model: GuestModel) -> None:
        """The rest of a large page that was made is zero."""
        for gpn in np.flatnonzero(guest.page_table != ABSENT).tolist():
            model.held.setdefault(gpn, bytes(self.size))

    # --- accesses ---

    @rule(which=st.integers(0, 2), numbers=ACCESSES, data=st.data())
    def touch(self, which: int, numbers: list[int], data: st.DataObject) -> None:
        (touched, written), model = self.take(which)
        gpns = self.places(numbers)
        kinds = st.booleans() if data.draw(st.booleans()) else st.just(True)
        writes = data.draw(st.lists(kinds, min_size=len(gpns), max_size=len(gpns)))
        first, step = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 3))
        contents = [self.content((first + step * i) % 6) for i in range(sum(writes))]
        before = self.pools[1].counts()
        done, k = 0, 0
        for gpn, is_write in zip(gpns, writes, strict=True):
            if gpn in model.out:
                break
            if is_write:
                try:
                    written.write([gpn], self.as_frames(contents[k : k + 1]))
                except MemoryError:
                    break
                model.held[gpn] = contents[k]
                self.see_what_came(written, model)
                k += 1
            model.marks[gpn] |= ACCESSED_BY_HOST | ACCESSED_BY_GUEST
            done += 1
        after = self.pools[1].counts()
        which_write = np.array(writes, np.bool_) if any(writes) or data.draw(st.booleans()) else None
        came_to = touched.touch(gpns, which_write, self.as_frames(contents) if contents else None)
        assert came_to == (done, after.first_touches - before.first_touches, after.cow_breaks - before.cow_breaks)

    @rule(which=st.integers(0, 2), numbers=NUMBERS, by=BY)
    def take_accessed(self, which: int, numbers: list[int], by: Literal["host", "guest"]) -> None:
        guests, model = self.take(which)
        gpns = self.places(numbers)
        expected = []
        for gpn in gpns:
            expected.append(bool(model.marks[gpn] & MARKS[by]))
            model.marks[gpn] &= ~np.uint8(MARKS[by])
        assert guests[0].take_accessed(gpns, by).tolist() == expected

    # --- paging ---

    @rule(which=st.integers(0, 2), numbers=NUMBERS)
    def page_out(self, which: int, numbers: list[int]) -> None:
        guests, model = self.take(which)
        gpns = [gpn for gpn in dict.fromkeys(self.places(numbers)) if gpn in model.held]
        for guest in guests:
            out = np.full((len(gpns), self.size), 0xEE, np.uint8)
            guest.page_out(gpns, out)
            assert [frame.tobytes() for frame in out] == [model.held[gpn] for gpn in gpns]
        for gpn in gpns:
            model.out[gpn] = model.held.pop(gpn)

    @precondition(lambda self: any(model.out for model in self.model))
    @rule(which=st.integers(0, 2), data=st.data())
    def page_in(self, which: int, data: st.DataObject) -> None:
        guests, model = self.take(which)
        assume(model.out)
        gpns = data.draw(st.lists(st.sampled_from(sorted(model.out)), unique=True))
        free = self.pools[0].limit - self.pools[0].counts().in_use
        try:
            for guest in guests:
                guest.page_in(gpns, self.as_frames([model.out[gpn] for gpn in gpns]))
        except MemoryError:
            assert len(gpns) > free
            return
        assert len(gpns) <= max(free, 0)
        for gpn in gpns:
            model.held[gpn] = model.out.pop(gpn)

    @precondition(lambda self: any(model.out for model in self.model))
    @rule(which=st.integers(0, 2), data=st.data())
    def forget(self, which: int, data: st.DataObject) -> None:
        guests, model = self.take(which)
        assume(model.out)
        gpns = data.draw(st.lists(st.sampled_from(sorted(model.out)), unique=True, max_size=3))
        for guest in guests:
            guest.forget(gpns)
        for gpn in gpns:
            del model.out[gpn]

    @precondition(lambda self: any(model.out for model in self.model))
    @rule(which=st.integers(0, 2), call=st.sampled_from(["write", "read", "release", "merge", "page_out"]))
    def refuse(self, which: int, call: str) -> None:
        (guest, _), model = self.take(which)
        assume(model.out)
        gpn = min(model.out)
        before = self.pools[0].counts()
        others = [other for other in list(model.held)[:2] if other != gpn]
        frames = self.as_frames([self.content(1)] * (len(others) + 1)).copy()
        arguments = {"release": (), "merge": ([0] * (len(others) + 1),)}.get(call, (frames,))
        if call == "merge":
            assume(self.policy is None and not others)
        try:
            getattr(guest, call)([*others, gpn], *arguments)
        except ValueError as error:
            assert str(error) == f"gpns[{len(others)}] is {gpn}, which is paged out"
        else:
            raise AssertionError
        assert self.pools[0].counts() == before

    @rule(part=st.sampled_from([0, 0.3, 0.8, 1]))
    def limit(self, part: float) -> None:
        for pool in self.pools:
            pool.limit = int(part * self.capacity)
            assert pool.limit == int(part * self.capacity)

    # --- victims ---

    def alone(self, guest: PoolGuest) -> set[int]:
        tables = np.concatenate([other.page_table for other in self.pools[0].guests])
        frames, pages = np.unique(tables[tables != ABSENT], return_counts=True)
        return set(np.flatnonzero(np.isin(guest.page_table, frames[pages == 1])).tolist())

    def eligible(self, some: int) -> Any:
        if some == 0:
            return None
        return np.arange(self.pages) % some != 1 if some < 4 else np.arange(self.pages) < 20

    @rule(which=st.integers(0, 2), n=st.sampled_from([0, 1, 5, 40, 10_000]), by=BY, some=st.integers(0, 4))
    def oldest(self, which: int, n: int, by: Literal["host", "guest"], some: int) -> None:
        (guest, _), model = self.take(which)
        eligible = self.eligible(some)
        expected = model.oldest(n, by, self.alone(guest), np.ones(self.pages) if eligible is None else eligible)
        found = guest.oldest(n, by, eligible)
        assert found.dtype == np.uint32 and found.tolist() == expected

    @rule(which=st.integers(0, 2), n=st.sampled_from([0, 1, 5, 40, 10_000]), some=st.integers(0, 4))
    def pick(self, which: int, n: int, some: int) -> None:
        (guest, _), model = self.take(which)
        eligible = self.eligible(some)
        alone = self.alone(guest)
        expected = model.pick(n, alone, np.ones(self.pages) if eligible is None else eligible)
        found = guest.pick(n, eligible)
        assert found.dtype == np.uint32 and found.tolist() == expected
        if len(found) < n:
            assert set(found.tolist()) == {gpn for gpn in alone if eligible is None or eligible[gpn]}

    # --- what else happens to a pool, to both alike ---

    @rule(which=st.integers(0, 2), numbers=NUMBERS)
    def release(self, which: int, numbers: list[int]) -> None:
        guests, model = self.take(which)
        gpns = [gpn for gpn in dict.fromkeys(self.places(numbers)) if gpn not in model.out]
        for guest in guests:
            guest.release(gpns)
        for gpn in gpns:
            model.held.pop(gpn, None)

    @rule(seconds=st.floats(0, 1) | st.just(math.inf))
    def share(self, seconds: float) -> None:
        for pool in self.pools:
            pool.scan(seconds) if self.policy else pool.share()

    @precondition(lambda self: self.large)
    @rule(which=st.integers(0, 2), most=st.sampled_from([-1, 3, LARGE_PAGE]))
    def break_or_rebuild(self, which: int, most: int) -> None:
        guests, model = self.take(which)
        for guest in guests:
            if most < 0:
                guest.break_large(np.flatnonzero(guest.large))
            else:
                rebuilt = guest.rebuild_large(np.flatnonzero(~guest.large), max_shared_pages=most)
                assert not (rebuilt.any() and any(gpn < LARGE_PAGE for gpn in model.out))
        self.see_what_came(guests[0], model)

    @invariant()
    def is_right(self) -> None:
        if not hasattr(self, "pools"):
            return
        one, other = self.pools
        assert one.counts() == other.counts()
        assert not self.policy or one.scan_counts() == other.scan_counts()
        for number, model in enumerate(self.model):
            guest, beside = one.guests[number], other.guests[number]
            assert np.array_equal(guest.page_table, beside.page_table)
            assert np.array_equal(guest.large, beside.large)
            marks = guest.marks
            assert marks.dtype == np.uint8 and not marks.flags.writeable
            assert np.array_equal(marks & ~np.uint8(OUT), model.marks)
            assert np.flatnonzero(marks & OUT).tolist() == sorted(model.out)
            assert guest.out == len(model.out)
            assert guest.present == np.count_nonzero(guest.page_table != ABSENT)
            assert np.flatnonzero(guest.page_table != ABSENT).tolist() == sorted(model.held)
            out = np.full((len(model.held), self.size), 0xEE, np.uint8)
            guest.read(list(model.held), out)
            assert out.tobytes() == b"".join(model.held.values())
        one.check()
        other.check()


TestTouchedAndWritten: Any = TouchedAndWritten.TestCase
TestTouchedAndWritten.settings = settings(max_examples=150, stateful_step_count=25)
