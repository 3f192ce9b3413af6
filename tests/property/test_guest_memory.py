"""A guest's own memory management beside a plain model: memory adds up, and nothing that was written is ever lost."""

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from pagedup.host.costs import Operation
from pagedup.host.fresh_names import FreshNames
from pagedup.host.page_use import IN_MEMORY, Use
from pagedup.memory.layouts import ABSENT as NO_NAME
from pagedup.memory.layouts import RegionKind
from pagedup.sharing.frame_pool import ABSENT, OUT
from tests.host_guests import KINDS, OneGuest, layout_of

PAGES = 300
SIZES = st.sampled_from([0, 1, 3, 30, 100, 1000])
GPNS = st.lists(st.integers(0, PAGES - 1), min_size=1, max_size=60).map(lambda some: np.array(some, np.uint32))
MIXES = (
    (RegionKind.HEAP, RegionKind.FREE),
    (RegionKind.HEAP, RegionKind.FILE_CACHE, RegionKind.FREE, RegionKind.IMAGE_TEXT),
    (RegionKind.KERNEL_DATA, RegionKind.HEAP, RegionKind.FILE_CACHE, RegionKind.FILE_CACHE),
    KINDS,
)


class MemoryAndModel(RuleBasedStateMachine):
    @initialize(
        mix=st.sampled_from(MIXES),
        seed=st.integers(0, 9),
        cache=st.sampled_from([0.0, 0.5, 1.0]),
        at_first=SIZES,
        stale=st.booleans(),
    )
    def begin(self, mix: tuple[RegionKind, ...], seed: int, cache: float, at_first: int, stale: bool) -> None:
        dice = np.random.default_rng(seed)
        kinds = [mix[k] for k in dice.integers(0, len(mix), PAGES)]
        self.layout = layout_of(kinds, free=77 if stale else 0)
        self.one = OneGuest(self.layout, cache=cache, key=seed)
        self.memory = self.one.memory
        assert (self.memory.free, self.memory.in_use, self.memory.balloon) == (PAGES, 0, 0)
        self.balloon = 0
        self.inflate(at_first)
        assert self.balloon == min(at_first, PAGES), "before it is started all of it is free"
        self.deflate(max(0, self.balloon - PAGES // 3))
        self.one.start()
        assert self.memory.unloaded == 0
        self.fresh = FreshNames(0)
        uses = self.memory.uses
        self.written = {gpn: int(self.layout.names[gpn]) for gpn in np.flatnonzero((uses != Use.FREE) & (uses != Use.BALLOON)).tolist()}

    def teardown(self) -> None:
        if not hasattr(self, "one"):
            return
        pages = np.array(sorted(self.written), np.uint32)
        for gpn in pages:
            assert self.one.read(np.array([gpn], np.uint32)) == self.written[int(gpn)]
        self.one.pool.close()

    @rule(n=SIZES)
    def inflate(self, n: int) -> None:
        free, could_go = self.memory.free, self.could_go()
        got = self.memory.inflate(n)
        self.balloon += got
        assert min(n, free) <= got <= n
        assert got >= min(n, free + max(0, could_go - 64)), "all that is free, and all but a few that could go"

    def could_go(self) -> int:
        uses = self.memory.uses
        return int(np.count_nonzero((uses >= Use.ANONYMOUS) & (uses <= IN_MEMORY)))

    @rule(n=SIZES)
    def deflate(self, n: int) -> None:
        paged = self.memory.paged
        gave = self.memory.deflate(n)
        assert gave == min(n, self.balloon)
        self.balloon -= gave
        assert self.memory.paged == paged, "what is paged out comes back when it is touched"

    def in_use(self, gpns: NDArray[np.uint32]) -> NDArray[np.uint32]:
        return np.array([gpn for gpn in gpns.tolist() if gpn in self.written], np.uint32)

    @rule(gpns=GPNS, write=st.integers(0, 3))
    def touch(self, gpns: NDArray[np.uint32], write: int) -> None:
        gpns = self.in_use(gpns)
        cached = np.array([KINDS[region] for region in self.layout.regions[gpns]]) == RegionKind.FILE_CACHE
        text = np.array([str(KINDS[region]).startswith("image") for region in self.layout.regions[gpns]], np.bool_)
        writes = (np.arange(len(gpns)) % 3 < write) & ~cached & ~text
        self.apply(gpns, writes)

    def apply(self, gpns: NDArray[np.uint32], writes: NDArray[np.bool_], *, traced: bool = False) -> None:
        names = self.fresh.take(len(gpns))
        before = self.memory.balloon
        self.one.touch(gpns, writes, names, traced=traced)
        self.written.update(zip(gpns[writes].tolist(), names[writes].tolist(), strict=True))
        if self.could_go() > 1:
            assert self.memory.balloon == before
        self.balloon = self.memory.balloon
        assert self.balloon <= before
        last = int(gpns[-1]) if len(gpns) else None
        assert last is None or self.memory.uses[last] <= IN_MEMORY

    @rule(gpns=GPNS, write=st.integers(0, 3))
    def trace(self, gpns: NDArray[np.uint32], write: int) -> None:
        """Any page, whatever it is used for."""
        writes = np.arange(len(gpns)) % 3 < write
        uses = self.memory.uses.take(gpns)
        for gpn, use in zip(gpns.tolist(), uses.tolist(), strict=True):
            if use == Use.FREE:
                self.written[gpn] = self.content(gpn)
            elif use == Use.BALLOON:
                free = KINDS[self.layout.regions[gpn]] in (RegionKind.FREE, RegionKind.ABSENT)
                self.written[gpn] = 0 if free else int(self.layout.names[gpn])
        self.apply(gpns, writes, traced=True)

    def content(self, gpn: int) -> int:
        out = np.empty(1, np.uint64)
        self.one.pager.read(self.one.guest, np.array([gpn], np.uint32), out)
        return int(out[0])

    @rule(n=SIZES)
    def grow_cache(self, n: int) -> None:
        free, cached = int(np.count_nonzero(self.memory.uses == Use.FREE)), self.memory.cached
        filled = self.memory.grow_cache(n)
        assert len(filled.gpns) <= min(n, free)
        assert self.memory.cached == cached + len(filled.gpns)
        assert (filled.names == self.layout.names[filled.gpns]).all()
        self.one.page_in(filled.gpns)
        self.one.fill(filled)
        self.written.update(zip(filled.gpns.tolist(), filled.names.tolist(), strict=True))

    @rule(n=SIZES, random=st.booleans())
    def host_pages_out(self, n: int, random: bool) -> None:
        guest = self.one.guest
        self.one.pager.page_out(guest, guest.pick(n) if random else guest.oldest(n, "host"))

    @rule()
    def all_of_it_reads_back(self) -> None:
        pages = np.array(sorted(self.written), np.uint32)
        if len(pages):
            at = len(pages) // 2
            for part in (pages[:at], pages[at:]):
                out = np.empty(len(part), np.uint64)
                for k, gpn in enumerate(part):
                    out[k] = self.one.read(np.array([gpn], np.uint32))[0]
                assert out.tolist() == [self.written[int(gpn)] for gpn in part]

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "balloon"):
            return
        memory, uses = self.memory, self.memory.uses
        counts = np.bincount(uses, minlength=len(Use))
        assert memory.in_use + memory.free + memory.balloon == PAGES
        assert memory.balloon == self.balloon
        assert memory.in_use == counts[: IN_MEMORY + 1].sum()
        assert memory.cached == counts[Use.CACHED]
        assert memory.paged == counts[Use.SWAPPED] + counts[Use.DROPPED]
        assert 0 <= memory.given <= memory.balloon and memory.free >= 0
        kinds = np.array([KINDS[region] == RegionKind.FILE_CACHE for region in self.layout.regions])
        there = (uses <= IN_MEMORY) | (uses >= Use.SWAPPED)
        assert np.count_nonzero(there & ~kinds) <= memory.committed <= np.count_nonzero(there)
        absent = (self.one.guest.page_table == ABSENT) & (self.one.guest.marks & OUT == 0)
        assert absent[uses >= Use.BALLOON].all(), "what is in the balloon or paged out takes no frame"
        self.one.pool.check()
        ledger = self.one.ledger.counts
        swapped = ledger[Operation.GUEST_SWAP_OUT] - ledger[Operation.GUEST_SWAP_IN]
        assert swapped == counts[Use.SWAPPED]
        assert memory.double_paged <= ledger[Operation.GUEST_SWAP_OUT]


TestMemoryAndModel: Any = MemoryAndModel.TestCase
TestMemoryAndModel.settings = settings(max_examples=100, stateful_step_count=25)
assert NO_NAME
