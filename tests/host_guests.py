"""Small guests of a simulated host, for tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagedup.guests.spec import Part
from pagedup.host.boot import Boot
from pagedup.host.costs import Costs, Ledger
from pagedup.host.guest_memory import Filled, GuestMemory
from pagedup.memory.layouts import ABSENT, Layout, LayoutRegion, NameKind, RegionKind
from pagedup.memory.layouts.names import NUMBER_BITS, file_name, kind_bits
from pagedup.sharing.frame_pool import OUT, FramePool, PoolGuest

assert Part

KINDS = tuple(RegionKind)
TABLE = tuple(LayoutRegion(kind) for kind in KINDS)
OWN = kind_bits(NameKind.OWN)


def layout_of(kinds: Sequence[RegionKind], number: int = 1, *, free: int = 0) -> Layout:
    """Pages of these kinds; code, constants and the file cache as in files, else of the guest's own; free ones `free`."""
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


class PlainPager:
    """TEMPORARY until the pager is there."""

    def __init__(self, pool: FramePool) -> None:
        self.kept: dict[Any, int] = {}

    def page_out(self, guest: PoolGuest, gpns: NDArray[Any]) -> None:
        out = np.empty(len(gpns), np.uint64)
        guest.page_out(gpns, out)
        self.kept.update({(guest, int(gpn)): int(name) for gpn, name in zip(gpns, out, strict=True)})

    def page_in(self, guest: PoolGuest, gpns: NDArray[Any]) -> None:
        guest.page_in(gpns, np.array([self.kept.pop((guest, int(gpn))) for gpn in gpns], np.uint64))

    def release(self, guest: PoolGuest, gpns: NDArray[Any]) -> None:
        out = (guest.marks.take(gpns) & OUT) > 0
        guest.forget(gpns[out])
        guest.release(gpns[~out])

    def read(self, guest: PoolGuest, gpns: NDArray[Any], out: NDArray[Any]) -> None:
        away = (guest.marks.take(gpns) & OUT) > 0
        got = np.empty(int((~away).sum()), np.uint64)
        guest.read(gpns[~away], got)
        out[~away] = got
        out[away] = [self.kept[(guest, int(gpn))] for gpn in gpns[away]]


class OneGuest:
    """A guest on a pool and a pager, whose accesses are done as a host does them."""

    def __init__(self, layout: Layout, *, frames: int = 0, cache: float = 1.0, key: int = 0) -> None:
        self.pool = FramePool(frames or layout.n_pages, 8)
        self.guest = self.pool.add_guest(layout.n_pages)
        self.pager: Any = PlainPager(self.pool)
        self.ledger = Ledger(Costs().seconds("ssd"))
        self.memory = GuestMemory(layout, self.guest, self.pager, self.ledger, cache=cache, key=key)

    def start(self) -> None:
        boot = Boot(self.memory, 1.0)
        while not boot.done:
            self.fill(boot.next(1.0))

    def fill(self, filled: Filled) -> None:
        done = self.guest.touch(filled.gpns, np.ones(len(filled.gpns), np.bool_), filled.names).done
        assert done == len(filled.gpns)

    def page_in(self, gpns: NDArray[np.uint32]) -> None:
        out = np.unique(gpns[(self.guest.marks.take(gpns) & OUT) > 0])
        self.pager.page_in(self.guest, out)

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
            self.page_in(gpns[part])
            touched = self.guest.touch(gpns[part], writes[part], names[part][writes[part]])
            assert touched.done == done
            at += done

    def read(self, gpns: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """What the guest reads; it touches these pages."""
        self.touch(gpns, np.zeros(len(gpns), np.bool_), np.empty(len(gpns), np.uint64))
        names = np.empty(len(gpns), np.uint64)
        self.pager.read(self.guest, gpns, names)
        return names
