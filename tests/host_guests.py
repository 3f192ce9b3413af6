"""Small guests of a simulated host, for tests."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pagedup.host.boot import Boot
from pagedup.host.costs import Costs, Ledger
from pagedup.host.guest_memory import Filled, GuestMemory
from pagedup.host.pager import Pager
from pagedup.memory.layouts import ABSENT, Layout, LayoutRegion, NameKind, RegionKind
from pagedup.memory.layouts.names import NUMBER_BITS, file_name, kind_bits
from pagedup.sharing.frame_pool import OUT, FramePool, PoolGuest
from pagedup.swap import CompressedNames, SwapNames

KINDS = tuple(RegionKind)
TABLE = tuple(LayoutRegion(kind) for kind in KINDS)
OWN = kind_bits(NameKind.OWN)


def layout_of(kinds: Sequence[RegionKind], number: int = 1, *, free: int = 0) -> Layout:
    """Pages of these kinds: as in files, of the guest's own, or `free`."""
    names = np.arange(len(kinds), dtype=np.uint64) | np.uint64(OWN | number << NUMBER_BITS)
    for gpn, kind in enumerate(kinds):
        if kind in (RegionKind.IMAGE_TEXT, RegionKind.IMAGE_RDATA, RegionKind.FILE_CACHE):
            names[gpn] = file_name(number, gpn)
        elif kind in (RegionKind.FREE, RegionKind.ABSENT):
            names[gpn] = free if kind == RegionKind.FREE else ABSENT
    regions = np.array([KINDS.index(kind) for kind in kinds], np.uint8)
    return Layout(f"vm-{number}", names, regions, TABLE, np.array([[0, len(kinds)]], np.uint64), "test")


def of_sizes(number: int = 1, **sizes: int) -> Layout:
    """So many pages of each kind, one after the other: heap=100, file_cache=50, free=30."""
    return layout_of([RegionKind[kind.upper()] for kind, size in sizes.items() for _ in range(size)], number)


class OneGuest:
    """A guest on a pool and a pager, whose accesses are done as a host does them."""

    def __init__(
        self,
        layout: Layout,
        *,
        frames: int = 0,
        victims: Callable[[PoolGuest, int], NDArray[np.uint32]] | None = None,
        cache: float = 1.0,
        key: int = 0,
        compressible: float = 0.5,
    ) -> None:
        """Frames for all of it and for a compressed cache of a tenth as many, or so many frames; swap for all of it.

        victims: who is paged out where frames do not suffice.
        """
        n = layout.n_pages
        self.pool = FramePool(frames or n + -(-n // 10), 8)
        self.guest = self.pool.add_guest(n)
        compressed = CompressedNames(-(-n // 10), compressible) if compressible else None
        self.pager = Pager(self.pool, SwapNames(n), compressed)
        self.ledger = Ledger(Costs().seconds("ssd"))
        self.memory = GuestMemory(layout, self.guest, self.pager, self.ledger, cache=cache, key=key)
        self.victims = victims

    def start(self) -> None:
        boot = Boot(self.memory, 1.0)
        while not boot.done:
            self.fill(boot.next(1.0))

    def fill(self, filled: Filled) -> None:
        self.do(filled.gpns, np.ones(len(filled.gpns), np.bool_), filled.data)

    def do(self, gpns: NDArray[np.uint32], writes: NDArray[np.bool_], data: NDArray[np.uint64]) -> None:
        """Accesses to pages that the guest has: what the host has paged out comes back."""
        at = written = 0
        while True:
            done = self.guest.touch(gpns[at:], writes[at:], data[written:]).done
            written += int(np.count_nonzero(writes[at : at + done]))
            at += done
            if at == len(gpns):
                return
            if self.pool.counts().in_use == self.pool.limit:
                assert self.victims is not None
                out = self.pager.page_out(self.guest, self.victims(self.guest, 16))
                assert out.compressed + out.swapped
            if self.guest.marks[gpns[at]] & OUT:
                self.pager.page_in(self.guest, gpns[at : at + 1])

    def touch(
        self, gpns: NDArray[np.uint32], writes: NDArray[np.bool_], names: NDArray[np.uint64], *, traced: bool = False
    ) -> None:
        """Names: one a touch; those of writes are written."""
        at = 0
        while at < len(gpns):
            done, filled = self.memory.fault(gpns[at:], writes[at:] if traced else None)
            assert done > 0
            self.fill(filled)
            part = slice(at, at + done)
            self.do(gpns[part], writes[part], names[part][writes[part]])
            at += done

    def read(self, gpns: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """What the guest reads, which touches these pages; as many at a time as it has room for."""
        names, at = np.empty(len(gpns), np.uint64), 0
        while at < len(gpns):
            done, filled = self.memory.fault(gpns[at:])
            self.fill(filled)
            part = slice(at, at + done)
            self.do(gpns[part], np.zeros(done, np.bool_), names[:0])
            self.pager.read(self.guest, gpns[part], names[part])
            at += done
        return names
