"""How translations of accesses were found, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass

import dedupcore
from pagedup.tlb.geometry import PAGE_SIZES, Geometry

_Ints = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Translations:
    """Accesses, by where their translations were found.

    Attributes:
        l1_hits, l2_hits, misses: accesses; of each page size in the order of PAGE_SIZES, that of the TLB's entry: under
            a host the smaller of the guest's and the host's page. A miss is a walk.
        references: page table entries that walks read, of the tables of the addresses that were accessed.
        host_references: the same of the host's tables.
        walk_hits, host_walk_hits: walks that a cache of entries which cover 2 MiB, 1 GiB or 512 GiB made shorter.
        nested_hits: guest-physical pages for which the host's tables needed no walk.
        references_found, data_found: page table entries, and accessed lines, found in L1, L2, L3 and memory; without
            data caches all references count as found in memory, and no data is counted.
        geometry: of which the costs are.
    """

    l1_hits: _Ints
    l2_hits: _Ints
    misses: _Ints
    references: int
    host_references: int
    walk_hits: _Ints
    host_walk_hits: _Ints
    nested_hits: int
    references_found: _Ints
    data_found: _Ints
    geometry: Geometry

    @property
    def accesses(self) -> int:
        """All of them."""
        return sum(self.l1_hits) + sum(self.l2_hits) + sum(self.misses)

    @property
    def cycles(self) -> float:
        """Of translation, all accesses together; one that is in the first level costs nothing.

        A miss looks in the second level first, and then loads one page table entry after the other.
        """
        beyond = self.geometry.l2_cycles * (sum(self.l2_hits) + sum(self.misses))
        return beyond + _cost(self.references_found, self.geometry)

    @property
    def data_cycles(self) -> float:
        """Of loading what is accessed, one load after the other."""
        return _cost(self.data_found, self.geometry)


def _cost(found: _Ints, geometry: Geometry) -> float:
    return sum(n * cycles for n, cycles in zip(found, geometry.latencies, strict=True))


def translations(now: dedupcore.TlbCounts, before: dedupcore.TlbCounts, geometry: Geometry) -> Translations:
    """What was counted between."""

    def since(name: str) -> _Ints:
        return tuple(a - b for a, b in zip(getattr(now, name), getattr(before, name), strict=True))

    assert len(now.walks) == len(PAGE_SIZES)
    references, host_references = since("references")
    return Translations(
        l1_hits=since("l1_hits"),
        l2_hits=since("l2_hits"),
        misses=since("walks"),
        references=references,
        host_references=host_references,
        walk_hits=since("walk_hits"),
        host_walk_hits=since("host_walk_hits"),
        nested_hits=now.nested_hits - before.nested_hits,
        references_found=since("references_found"),
        data_found=since("data_found"),
        geometry=geometry,
    )
