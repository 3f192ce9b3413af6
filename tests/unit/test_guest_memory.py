"""What a guest's system pages out and in, in which order, and what it costs; that nothing is lost: tests/property."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pagedup.host.costs import Costs, Ledger, Operation
from pagedup.host.guest_memory import GuestMemory
from pagedup.host.page_use import Use
from pagedup.host.pager import Pager
from pagedup.memory.layouts import RegionKind
from pagedup.sharing import FramePool
from pagedup.swap import CompressedCache, SwapFile
from tests.host_guests import OneGuest, of_sizes

READ = np.zeros(1000, np.bool_)


def pages(*numbers: int) -> NDArray[np.uint32]:
    return np.array(numbers, np.uint32)


def started(**sizes: int) -> OneGuest:
    one = OneGuest(of_sizes(**sizes), compressible=0.0)
    one.start()
    one.ledger.counts.clear()
    one.guest.take_accessed(range(one.memory.pages), "guest")
    return one


def uses(one: OneGuest, kind: RegionKind) -> list[int]:
    of_kind = np.array([region.kind == kind for region in one.memory.layout.region_table])
    return sorted(set(one.memory.uses[of_kind[one.memory.layout.regions]].tolist()))


def test_free_pages_go_first_then_the_file_cache_then_the_rest() -> None:
    one = started(kernel_text=10, heap=200, file_cache=100, free=50)
    memory, counts = one.memory, one.ledger.counts
    assert memory.inflate(50) == 50
    assert (memory.free, memory.given, memory.paged) == (0, 50, 0)
    one.guest.touch(range(210, 240))
    assert memory.inflate(60) == 60
    assert (memory.cached, memory.dropped, memory.swapped, memory.given) == (40, 60, 0, 50)
    assert (memory.uses[210:240] == Use.CACHED).all(), "what was used stays"
    assert counts == {Operation.BALLOON_PAGE: 110}
    one.guest.touch(range(10, 100))
    assert memory.inflate(100) == 100
    assert (memory.cached, memory.dropped, memory.swapped) == (0, 100, 60)
    assert (memory.uses[10:100] == Use.ANONYMOUS).all()
    assert counts == {Operation.BALLOON_PAGE: 210, Operation.GUEST_SWAP_OUT: 60}
    assert memory.inflate(1000) == 76, "64 pages that could go are left, and the kernel"
    assert memory.in_use == 74 and uses(one, RegionKind.KERNEL_TEXT) == [Use.FIXED]
    assert memory.committed == 210 and memory.pages == memory.in_use + memory.balloon


def test_what_comes_back_and_what_it_costs() -> None:
    one = started(heap=200, image_text=100, file_cache=100)
    memory, counts = one.memory, one.ledger.counts
    assert memory.inflate(320) == 320
    swapped = np.flatnonzero(memory.uses == Use.SWAPPED).astype(np.uint32)
    text = np.flatnonzero(memory.uses[:300] == Use.DROPPED).astype(np.uint32)
    assert len(swapped) + len(text) == 220 and uses(one, RegionKind.FILE_CACHE) == [Use.DROPPED]
    assert counts == {Operation.BALLOON_PAGE: 320, Operation.GUEST_SWAP_OUT: len(swapped)}, "code is in its file"
    assert memory.deflate(30) == 30 and memory.free == 30
    counts.clear()
    touched = np.concatenate((swapped[:7], text[:5], pages(300, 301), swapped[:7]))
    done, filled = memory.fault(touched)
    assert done == len(touched) and filled.gpns.tolist() == sorted(set(touched.tolist()))
    assert (filled.data == memory.layout.names[filled.gpns]).all()
    assert counts == {Operation.GUEST_SWAP_IN: 7, Operation.GUEST_FILE_READ: 7}
    assert (memory.balloon, memory.free) == (290, 16)
    one.fill(filled)
    assert not len(memory.fault(touched).filled.gpns)


def test_a_free_page_goes_into_the_balloon_for_one_that_comes_back() -> None:
    one = started(heap=100, free=30)
    memory = one.memory
    assert memory.inflate(40) == 40 and memory.deflate(40) == 40
    assert memory.free == 40 and memory.swapped == 10
    assert memory.inflate(10) == 10, "places that were given back are taken first: they cost nothing"
    assert (memory.free, memory.balloon, memory.given) == (30, 10, 0)
    out = np.flatnonzero(memory.uses == Use.SWAPPED).astype(np.uint32)
    one.read(out)
    assert (memory.free, memory.balloon, memory.given, memory.swapped) == (20, 10, 10, 0)


def test_paging_twice_costs_both() -> None:
    one = started(heap=300)
    every = np.arange(300, dtype=np.uint32)
    one.pager.page_out(one.guest, every[:200])
    assert one.memory.inflate(150) == 150
    assert one.memory.double_paged == 150
    assert one.ledger.counts == {
        Operation.BALLOON_PAGE: 150,
        Operation.GUEST_SWAP_OUT: 150,
        Operation.SWAP_IN: 150,
    }
    assert one.guest.out == 50 and one.pager.swap is not None and one.pager.swap.used == 50
    assert one.read(every).tolist() == one.memory.layout.names.tolist()


def test_dropping_what_is_out_reads_nothing() -> None:
    one = started(heap=100, file_cache=200)
    one.pager.page_out(one.guest, np.arange(100, 300, dtype=np.uint32))
    assert one.memory.inflate(200) == 200
    assert one.ledger.counts == {Operation.BALLOON_PAGE: 200} and one.memory.double_paged == 0
    assert one.guest.out == 0


def test_a_batch_larger_than_memory_comes_in_parts() -> None:
    one = started(kernel_data=10, heap=400)
    memory = one.memory
    assert memory.inflate(1000) == 336 and memory.in_use == 74
    every = np.arange(410, dtype=np.uint32)
    done, filled = memory.fault(every)
    assert 10 <= done < 75 and memory.balloon == 336
    one.fill(filled)
    assert one.read(every[::-1].copy()).tolist() == memory.layout.names[::-1].tolist()
    assert memory.balloon == 336


def test_where_no_other_page_can_go_nothing_comes_back() -> None:
    """The balloon has its size from the hypervisor; of that the guest takes nothing by itself."""
    one = started(kernel_data=10, heap=100, free=5)
    memory = one.memory
    assert memory.inflate(41) == 41
    one.pager.release(one.guest, np.arange(115, dtype=np.uint32))  # nothing is there that could go
    out = np.flatnonzero(memory.uses == Use.SWAPPED).astype(np.uint32)
    assert memory.fault(out[:2]).done == 0
    assert memory.balloon == 41 and memory.pages == memory.in_use + memory.free + memory.balloon


def test_accesses_from_outside() -> None:
    """Free pages come to be used, also in the balloon; what is written of a file is no longer the file's."""
    one = started(heap=80, file_cache=40, image_text=20, free=60)
    memory = one.memory
    assert memory.inflate(30) == 30
    free, taken = int(np.flatnonzero(memory.uses == Use.FREE)[0]), int(np.flatnonzero(memory.uses == Use.BALLOON)[0])
    touched = pages(free, taken, 85, 86, 125, 126, 0)
    writes = np.array([False, False, True, False, True, False, True])
    done, filled = memory.fault(touched, writes)
    assert done == 7 and filled.gpns.tolist() == [taken] and filled.data.tolist() == [0]
    assert memory.uses[touched].tolist() == [
        *[Use.ANONYMOUS] * 3, Use.CACHED, Use.ANONYMOUS, Use.MAPPED, Use.ANONYMOUS,
    ]
    assert (memory.balloon, memory.free, memory.committed, memory.cached) == (30, 28, 103, 39)
    assert not len(memory.fault(touched, writes).filled.gpns)
    one.fill(filled)
    fresh = np.arange(1000, 1007, dtype=np.uint64)
    one.touch(touched, writes, fresh, traced=True)
    assert memory.inflate(1000) > 0
    assert one.read(pages(85, 125, 0, 86)).tolist() == [1002, 1004, 1006, int(memory.layout.names[86])]


def test_uses_can_be_read_only() -> None:
    one = started(stack=3, free=2, kernel_text=1)
    with pytest.raises(ValueError, match="read-only"):
        one.memory.uses[0] = 1


@pytest.mark.parametrize("compressed", [False, True])
def test_pages_of_bytes(compressed: bool) -> None:
    """The same in frames of 4096 bytes: what is read back is what was written, from either swap."""

    def content(names: NDArray[np.uint64]) -> NDArray[Any]:
        return np.repeat(names.reshape(-1, 1), 512, axis=1).view(np.uint8)

    layout = of_sizes(heap=150, file_cache=50, free=20)
    with FramePool(230, 4096) as pool, SwapFile(220) as swap:
        guest = pool.add_guest(220)
        pager = Pager(pool, swap, CompressedCache(10) if compressed else None)
        memory = GuestMemory(layout, guest, pager, Ledger(Costs().seconds("ssd")), content=content)
        every = np.arange(200, dtype=np.uint32)
        done, filled = memory.fault(every)
        assert done == 200 and filled.data.shape == (200, 4096)
        guest.write(filled.gpns, filled.data)
        pager.page_out(guest, every[:60])
        assert memory.inflate(130) == 130 and memory.double_paged > 0
        held = np.empty((200, 4096), np.uint8)
        for begin in range(0, 200, 10):
            part = every[begin : begin + 10]
            done, filled = memory.fault(part)
            assert done == 10 and filled.data.dtype == np.uint8
            guest.write(filled.gpns, filled.data)
            pager.read(guest, part, held[begin : begin + 10])
        assert (held == content(layout.names[:200])).all()
        assert memory.balloon == 130
        pool.check()
