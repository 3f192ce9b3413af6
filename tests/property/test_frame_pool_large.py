"""Large pages of the frame pool beside a model that knows what each call makes of them."""

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from pagedup.sharing import PoolGuest
from pagedup.sharing.frame_pool import ABSENT, LARGE_PAGE
from tests.property.test_frame_pool import PoolAndModel

RANGES = 2
WHOLE = st.sampled_from(["zero", "same", "striped", "one differs"])
EITHER_RANGE = st.integers(0, RANGES - 1)


class LargePagesAndModel(PoolAndModel):
    """The same steps on pages of two ranges and of what is left behind them, and steps for the ranges."""

    capacity = 4 * LARGE_PAGE + 150  # full now and then
    pages = RANGES * LARGE_PAGE + 30

    @initialize(frame_size=st.sampled_from([8, 64]))
    def begin(self, frame_size: int) -> None:
        self.large: list[set[int]] = []
        self.wants_large: list[bool] = []
        self.broken = self.rebuilt = 0
        super().begin(frame_size)

    def add_guest(self, domain: int) -> None:
        wanted = domain < 2
        self.guests.append(self.pool.add_guest(self.pages, domain=f"domain {domain}", large_pages=wanted))
        self.model.append({})
        self.large.append(set())
        self.wants_large.append(wanted)

    def places(self, numbers: list[int]) -> list[int]:
        return [number % (RANGES + 1) * LARGE_PAGE + number // (RANGES + 1) for number in numbers]

    # --- what is true of the pool, from its page tables alone ---

    def mapped(self) -> Counter[int]:
        """How many pages each frame has."""
        found = Counter(np.concatenate([guest.page_table for guest in self.guests]).tolist())
        del found[ABSENT]
        return found

    def free_blocks(self) -> list[int]:
        used = {frame // LARGE_PAGE for frame in self.mapped()}
        return [block for block in range(self.capacity // LARGE_PAGE) if block not in used]

    def held_blocks(self) -> set[int]:
        """Those in which large pages lie."""
        tables = zip(self.guests, self.large, strict=True)
        return {int(guest.page_table[r * LARGE_PAGE]) // LARGE_PAGE for guest, own in tables for r in own}

    def range_of(self, guest: PoolGuest, number: int) -> list[int]:
        frames: list[int] = guest.page_table[number * LARGE_PAGE :][:LARGE_PAGE].tolist()
        return frames

    # --- the model of what a write does ---

    def touched_large(self, guest: PoolGuest, gpns: list[int]) -> dict[int, bytes]:
        which = self.guests.index(guest)
        mapped = self.mapped()
        counts = self.pool.counts()
        spare = counts.capacity - counts.in_use - self.needed(guest, gpns)
        if spare < 0:
            return {}  # refused
        for r in {gpn // LARGE_PAGE for gpn in gpns} & self.large[which]:
            if any(mapped[frame] > 1 for frame in self.range_of(guest, r)):
                self.large[which].remove(r)
                self.broken += 1
        beside: dict[int, bytes] = {}
        n_blocks = len(self.free_blocks()) if self.wants_large[which] else 0
        for r in dict.fromkeys(gpn // LARGE_PAGE for gpn in gpns):
            others = set(range(r * LARGE_PAGE, (r + 1) * LARGE_PAGE)) - set(gpns)
            untouched = r < RANGES and set(self.range_of(guest, r)) == {ABSENT}
            if untouched and n_blocks and len(others) <= spare:
                n_blocks -= 1
                spare -= len(others)
                self.large[which].add(r)
                beside.update(dict.fromkeys(others, bytes(self.size)))
        return beside

    @rule(which=st.integers(0, 4), number=EITHER_RANGE, whole=WHOLE)
    def write_all(self, which: int, number: int, whole: str) -> None:
        guest, model = self.pick(which)
        stripes = {"zero": [0], "same": [3], "striped": [0, 1, 2, 2], "one differs": [0, 1, 2, 2]}[whole]
        contents = [self.content(stripes[i % len(stripes)]) for i in range(LARGE_PAGE)]
        if whole == "one differs":
            contents[300] = self.content(4)
        gpns = list(range(number * LARGE_PAGE, (number + 1) * LARGE_PAGE))
        self.write_contents(guest, model, gpns, contents)

    @rule(which=st.integers(0, 4), gpns=st.lists(st.integers(0, 79), max_size=20, unique=True))
    def release(self, which: int, gpns: list[int]) -> None:
        guest, model = self.pick(which)
        own = self.large[self.guests.index(guest)]
        broken = own & {gpn // LARGE_PAGE for gpn in self.places(gpns)}
        self.broken += len(broken)
        own -= broken
        guest.release(self.places(gpns))
        for gpn in self.places(gpns):
            model.pop(gpn, None)

    @rule(which=st.integers(0, 4), number=EITHER_RANGE)
    def release_all(self, which: int, number: int) -> None:
        guest, model = self.pick(which)
        own = self.large[self.guests.index(guest)]
        self.broken += number in own
        own.discard(number)
        guest.release(range(number * LARGE_PAGE, (number + 1) * LARGE_PAGE))
        for gpn in range(number * LARGE_PAGE, (number + 1) * LARGE_PAGE):
            model.pop(gpn, None)

    # --- large pages ---

    @rule(which=st.integers(0, 4), data=st.data())
    def break_large(self, which: int, data: st.DataObject) -> None:
        guest, _ = self.pick(which)
        own = self.large[self.guests.index(guest)]
        assume(own)
        numbers = data.draw(st.lists(st.sampled_from(sorted(own)), unique=True))
        table = guest.page_table.tolist()
        guest.break_large(numbers)
        assert guest.page_table.tolist() == table
        self.broken += len(numbers)
        own -= set(numbers)

    @rule(which=st.integers(0, 4), number=EITHER_RANGE, most=st.sampled_from([0, 5, 200, 512]))
    def rebuild_large(self, which: int, number: int, most: int) -> None:
        guest, model = self.pick(which)
        own = self.large[self.guests.index(guest)]
        assume(number not in own)
        frames, mapped, blocks = self.range_of(guest, number), self.mapped(), self.free_blocks()
        present = [frame for frame in frames if frame != ABSENT]
        shared = sum(mapped[frame] > 1 for frame in present)
        together = frames[0] % LARGE_PAGE == 0 and frames == list(range(frames[0], frames[0] + LARGE_PAGE))
        if together and frames[0] // LARGE_PAGE in self.held_blocks():
            expected: int | None = frames[0]  # a part of that one again
        elif not present or shared > most:
            expected = None
        elif together and not shared:
            expected = frames[0]
        else:
            expected = blocks[0] * LARGE_PAGE if blocks else None
        before = self.pool.counts()
        assert guest.rebuild_large([number], max_shared_pages=most).tolist() == [expected is not None]
        after = self.pool.counts()
        if expected is None:
            assert self.range_of(guest, number) == frames
            assert after == before
            return
        assert self.range_of(guest, number)[0] == expected
        assert after.first_touches == before.first_touches + LARGE_PAGE - len(present)
        for gpn in range(number * LARGE_PAGE, (number + 1) * LARGE_PAGE):
            model.setdefault(gpn, bytes(self.size))
        own.add(number)
        self.rebuilt += 1

    @precondition(lambda self: any(self.large))
    @rule()
    def share_large(self) -> None:
        small = [[guest.page_table[gpn] for gpn in self.small_pages(which)] for which, guest in enumerate(self.guests)]
        self.pool.share_large()
        blocks: dict[Any, set[int]] = {}
        for which, guest in enumerate(self.guests):
            for r in self.large[which]:
                gpns = range(r * LARGE_PAGE, (r + 1) * LARGE_PAGE)
                content = b"".join(self.model[which][gpn] for gpn in gpns)
                blocks.setdefault((guest.domain, content), set()).add(self.range_of(guest, r)[0])
            assert [guest.page_table[gpn] for gpn in self.small_pages(which)] == small[which]
        assert all(len(lie) == 1 for lie in blocks.values())

    def small_pages(self, which: int) -> list[int]:
        return [gpn for gpn in range(self.pages) if gpn // LARGE_PAGE not in self.large[which]]

    @rule()
    def share(self) -> None:
        """All that lies in no block of large pages is stored once; the rest is as before."""
        held = self.held_blocks()
        before = [guest.page_table.copy() for guest in self.guests]
        self.pool.share()
        zero_pages, contents = 0, set()
        for guest, model, table in zip(self.guests, self.model, before, strict=True):
            stays = np.isin(table // LARGE_PAGE, list(held)) | (table == ABSENT)
            assert (guest.page_table[stays] == table[stays]).all()
            moved = np.flatnonzero(~stays).tolist()
            contents |= {(guest.domain, model[gpn]) for gpn in moved}
            zero_pages += sum(model[gpn] == bytes(self.size) for gpn in moved)
        counts = self.pool.counts()
        assert counts.in_use == len(contents) + len(held) * LARGE_PAGE
        assert counts.zero_pages == zero_pages
        assert counts.zero_frames == len({domain for domain, content in contents if content == bytes(self.size)})

    @rule()
    def hints(self) -> None:
        frames = self.mapped().keys()
        memory = self.pool.memory
        owner = {frame: guest.domain for guest in self.guests for frame in guest.page_table.tolist()}
        copies = Counter((owner[frame], memory[frame].tobytes()) for frame in frames)
        hints = self.pool.large_hints()
        expected = []
        for which, guest in enumerate(self.guests):
            for r in sorted(self.large[which]):
                own = [memory[frame].tobytes() for frame in self.range_of(guest, r)]
                zero = own.count(bytes(self.size))
                shareable = sum(copies[guest.domain, content] > 1 and any(content) for content in own)
                expected.append((which, r, zero, shareable))
        assert list(zip(*(column.tolist() for column in hints), strict=True)) == expected

    @invariant()
    def large_pages_are_right(self) -> None:
        if not hasattr(self, "pool"):
            return
        counts = self.pool.counts()
        for guest, own in zip(self.guests, self.large, strict=True):
            assert set(np.flatnonzero(guest.large).tolist()) == own
        assert counts.large_pages == sum(map(len, self.large))
        assert (counts.large_breaks, counts.large_rebuilds) == (self.broken, self.rebuilt)


TestLargePagesAndModel: Any = LargePagesAndModel.TestCase
TestLargePagesAndModel.settings = settings(max_examples=60, stateful_step_count=25)
