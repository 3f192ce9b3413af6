"""A slow model of TLBs, walks and caches, written from dedupcore.h and the comment of tlb.c: dictionaries and lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.simulated_guests import MASK

PER_TABLE = 9  # bits
NO_CACHE = -1


def mix(x: int) -> int:
    """SplitMix64's finalizer."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


class Cache:
    """Sets are lists, the least recently used first."""

    def __init__(self, entries: int, ways: int) -> None:
        self.n_sets, self.ways = (entries // ways if entries else 0), ways
        self.sets: list[list[Any]] = [[] for _ in range(self.n_sets)]

    def use(self, key: Any, number: int) -> bool:
        """Whether it is there; it is now, as the most recently used."""
        if not self.n_sets:
            return False
        keys = self.sets[number % self.n_sets]
        found = key in keys
        if found:
            keys.remove(key)
        elif len(keys) == self.ways:
            keys.pop(0)
        keys.append(key)
        return found

    def clear(self) -> None:
        self.sets = [[] for _ in range(self.n_sets)]


class Model:
    """As dedupcore.Tlb, with the same arguments; counts is a Counter of (what, index)."""

    def __init__(
        self,
        caches: Sequence[tuple[int, int]],
        l1: Sequence[int],
        l2: Sequence[int],
        l2_as: Sequence[int],
        walk: Sequence[int],
        nested: int,
        host_walk: Sequence[int],
        data: Sequence[tuple[int, int]],
    ) -> None:
        self.caches = [Cache(*size) for size in caches]
        self.data = [Cache(*size) for size in data]
        self.l1, self.l2, self.l2_as = l1, l2, l2_as
        self.walks, self.nested = {"own": walk, "host": host_walk}, nested
        self.counts: Counter[tuple[str, int]] = Counter()

    def map(self, sizes: Sequence[int], host_sizes: Sequence[int] | None, table_size: int) -> None:
        self.sizes, self.host_sizes, self.table_size = sizes, host_sizes, table_size
        pages = len(sizes) << 9
        first = -(-pages // (1 << 18)) << 18
        self.tables = []
        for level in range(4):
            self.tables.append(first)
            first += -(-pages // (1 << PER_TABLE * (level + 1)))
        for cache in [*self.caches, *self.data]:
            cache.clear()

    def holds(self, which: int, kind: str, number: int) -> bool:
        return which != NO_CACHE and self.caches[which].use((kind, number), number)

    def load(self, kind: str, line: int, kind_number: int) -> None:
        """kind_number: of the lines, as the engine numbers them to choose a set."""
        what = "data" if kind == "data" else "references"
        if not self.data[0].n_sets:
            if what == "references":
                self.counts["references_found", 3] += 1
            return
        number = mix((kind_number << 60 | line) >> 6) << 6 | line % 64
        level = 0
        while level < 3 and not self.data[level].use((kind, line), number):
            level += 1
        self.counts[f"{what}_found", level] += 1

    def read_entry(self, side: str, level: int, page: int) -> None:
        self.counts["references", int(side == "host")] += 1
        kind_number = (1 if side == "own" else 5) + level
        self.load(f"{side}{level}", page >> PER_TABLE * level >> 3, kind_number)

    def lowest_known(self, side: str, level: int, page: int) -> int:
        for each in range(level, 3):
            if self.holds(self.walks[side][each], f"{side} table {each}", page >> PER_TABLE * (each + 1)):
                self.counts["walk_hits" if side == "own" else "host_walk_hits", each] += 1
                return each
        return 3

    def translate_physical(self, page: int, size: int) -> None:
        if self.holds(self.nested, f"physical {size}", page >> PER_TABLE * size):
            self.counts["nested_hits", 0] += 1
            return
        for level in range(self.lowest_known("host", size, page), size - 1, -1):
            self.read_entry("host", level, page)

    def walk(self, page: int, size: int, host_size: int | None) -> None:
        known = self.lowest_known("own", size, page)
        for level in range(known, size - 1, -1):
            where_is_known = level == known and level < 3
            if host_size is not None and not where_is_known:
                self.translate_physical(self.tables[level] + (page >> PER_TABLE * (level + 1)), self.table_size)
            self.read_entry("own", level, page)
        if host_size is not None:
            self.translate_physical(page, host_size)

    def access(self, addresses: Sequence[int]) -> None:
        for address in addresses:
            page = address >> 12
            size = self.sizes[page >> 9]
            host_size = None if self.host_sizes is None else self.host_sizes[page >> 9]
            entry = size if host_size is None else min(size, host_size)
            held = self.l2_as[entry]
            if self.holds(self.l1[entry], f"page {entry}", page >> PER_TABLE * entry):
                self.counts["l1_hits", entry] += 1
            elif self.holds(self.l2[entry], f"page {held}", page >> PER_TABLE * held):
                self.counts["l2_hits", entry] += 1
            else:
                self.counts["walks", entry] += 1
                self.walk(page, size, host_size)
            if self.data[0].n_sets:
                self.load("data", address >> 6, 0)
