"""What a CPU has to translate addresses with: caches of translations, and which of them holds what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import dedupcore

PAGE_SIZES = (1 << 12, 1 << 21, 1 << 30)
"""Bytes of a page, as x86-64 has them: 4 KiB, 2 MiB, 1 GiB."""

_SIZES = " or ".join(map(str, PAGE_SIZES))
_MOST_CACHES = 16
_DATA_CACHES = 3
_NONE = -1


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache of which the least recently used entry of a set makes room.

    Attributes:
        entries: that it has.
        ways: entries of a set; 0: all, fully associative. They must divide entries, and the sets be a power of two.

    Raises ValueError, as Geometry does, saying which number is wrong.
    """

    entries: int
    ways: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.entries <= 1 << 26:
            raise ValueError(f"entries is {self.entries}; it must be 1 to 2**26")
        if not 0 <= self.ways <= self.entries:
            raise ValueError(f"ways is {self.ways}, of {self.entries} entries; it must be 1 to that, or 0: all")
        sets, rest = divmod(self.entries, self.ways or self.entries)
        if rest or sets & (sets - 1):
            raise ValueError(
                f"entries is {self.entries} and ways {self.ways}, which makes {self.entries / self.ways:g} sets;"
                " these must be a power of two"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The caches of a CPU that take part in translation, and what finding something there costs.

    Attributes:
        name: of the microarchitecture.
        caches: of translations, by names of their own.
        l1, l2: of each page size (bytes) the name of the cache that is its first-level, second-level TLB. Sizes that
            have the same share it, those that are left out have none. Under a host, a TLB holds the smaller of the
            guest's and the host's page.
        smashed: page sizes that the second level holds as entries of a smaller size, and which.
        walk: names of the caches of page table entries that point to a table, and cover 2 MiB, 1 GiB and 512 GiB
            (Intel: PDE, PDPTE and PML4 cache); "" for none.
        nested: the name of the cache of where guest-physical pages are in the host; "" for none.
        host_walk: as walk, of the host's tables.
        data: L1 to L3, of lines of 64 bytes: page table entries go through them, too.
        l2_cycles: what a hit of the second level costs more than one of the first.
        data_cycles: load-to-use latency of L1, L2, L3, in cycles of the core.
        memory_ns: latency of a load from memory, in nanoseconds.
        ghz: of the core.
        source: where these are from.

    Raises ValueError that names the field.
    """

    name: str
    caches: Mapping[str, Cache]
    l1: Mapping[int, str]
    l2: Mapping[int, str] = field(default_factory=dict)
    smashed: Mapping[int, int] = field(default_factory=dict)
    walk: tuple[str, str, str] = ("", "", "")
    nested: str = ""
    host_walk: tuple[str, str, str] = ("", "", "")
    data: tuple[Cache, Cache, Cache]
    l2_cycles: float
    data_cycles: tuple[float, float, float]
    memory_ns: float
    ghz: float
    source: str = ""

    def __post_init__(self) -> None:
        if len(self.caches) > _MOST_CACHES:
            raise ValueError(f"caches has {len(self.caches)}; there can be {_MOST_CACHES}")
        for name, cache in self._used():
            if cache and cache not in self.caches:
                raise ValueError(f"{name} is {cache!r}; it must be one of caches, which has {', '.join(self.caches)}")
        for name in ("l1", "l2", "smashed"):
            for size in getattr(self, name):
                if size not in PAGE_SIZES:
                    raise ValueError(f"{name} has pages of {size} bytes; these must be of {_SIZES}")
        for size, smaller in self.smashed.items():
            if smaller not in PAGE_SIZES or smaller > size:
                raise ValueError(f"smashed[{size}] is {smaller}; it must be a page size no larger than that")
        for name in ("l2_cycles", "memory_ns", "ghz"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for i, cycles in enumerate(self.data_cycles):
            if not cycles >= 0:
                raise ValueError(f"data_cycles[{i}] is {cycles}; it must be 0 or more")

    def _used(self) -> Iterator[tuple[str, str]]:
        for name in ("l1", "l2"):
            for size, cache in getattr(self, name).items():
                yield f"{name}[{size}]", cache
        yield "nested", self.nested
        for name in ("walk", "host_walk"):
            for i, cache in enumerate(getattr(self, name)):
                yield f"{name}[{i}]", cache

    @property
    def latencies(self) -> tuple[float, float, float, float]:
        """Cycles to load a line from L1, L2, L3 and memory."""
        return (*self.data_cycles, self.memory_ns * self.ghz)

    def tlb(self, *, data: bool) -> dedupcore.Tlb:
        """An empty one of the engine's, with the data caches or without."""
        number = {name: i for i, name in enumerate(self.caches)} | {"": _NONE}
        none = (0, 0)
        return dedupcore.Tlb(
            [_pair(cache) for cache in self.caches.values()],
            [number[self.l1.get(size, "")] for size in PAGE_SIZES],
            [number[self.l2.get(size, "")] for size in PAGE_SIZES],
            [PAGE_SIZES.index(self.smashed.get(size, size)) for size in PAGE_SIZES],
            [number[name] for name in self.walk],
            number[self.nested],
            [number[name] for name in self.host_walk],
            [_pair(cache) if data else none for cache in self.data],
        )


def _pair(cache: Cache) -> tuple[int, int]:
    return cache.entries, cache.ways or cache.entries
