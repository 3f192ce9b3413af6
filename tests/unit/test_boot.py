"""The start of a guest: what is written, in which order, and how long it takes."""

import numpy as np
import pytest

from pagedup.guests import generate, preset
from pagedup.host.boot import Boot
from pagedup.host.guest_memory import Filled
from pagedup.host.page_use import Use
from pagedup.memory.layouts import ABSENT, Layout
from pagedup.sharing.frame_pool import ABSENT as NO_FRAME
from tests.host_guests import OneGuest, of_sizes


def boot_all(one: OneGuest, seconds: float, tick: float) -> list[Filled]:
    boot, parts = Boot(one.memory, seconds), []
    while not boot.done:
        parts.append(boot.next(tick))
        one.fill(parts[-1])
        assert len(parts) < 1000
    assert not len(boot.next(100.0).gpns)
    return parts


def contents(one: OneGuest) -> list[int]:
    out = np.empty(one.memory.pages, np.uint64)
    one.guest.read(range(one.memory.pages), out)
    return [int(name) for name in out]


@pytest.mark.parametrize("tick", [0.07, 1.0, 50.0])
def test_all_of_it_is_written_as_the_layout_says(tick: float) -> None:
    layout = of_sizes(heap=50, file_cache=30, kernel_data=20, free=40, stack=3, page_tables=7, image_text=9)
    one = OneGuest(layout)
    parts = boot_all(one, 4.0, tick)
    assert len(parts) == pytest.approx(max(1, 4 / tick), abs=2)
    sizes = [len(part.gpns) for part in parts]
    assert max(sizes) <= 159 / 4 * tick + 1, "at one rate"
    order = np.concatenate([part.gpns for part in parts])
    assert sorted(order.tolist()) == [*range(159)], "each once"
    kinds = [str(layout.region_table[region].kind) for region in layout.regions[order]]
    kernel, free = {"kernel data", "page tables"}, kinds.index("free")
    assert set(kinds[:27]) == kernel and set(kinds[free - 30 : free]) == {"file cache"}
    assert set(kinds[free:]) == {"free"}
    assert contents(one) == layout.names.tolist()
    assert (one.memory.in_use, one.memory.free, one.memory.unloaded) == (119, 40, 0)
    assert (one.memory.committed, one.memory.cached, one.memory.paged) == (89, 30, 0)


def test_windows_zeroes_what_its_cache_has_not_read_yet() -> None:
    one = OneGuest(of_sizes(heap=40, file_cache=400, free=100), cache=0.25, key=3)
    boot_all(one, 2.0, 0.5)
    memory = one.memory
    assert memory.cached == 100 and memory.free == 400
    assert (one.guest.page_table != NO_FRAME).all(), "its zero page thread has written all of it"
    held = contents(one)
    assert held.count(0) == 400
    later = np.flatnonzero(memory.uses[40:440] == Use.FREE)
    assert 16 <= np.count_nonzero(np.diff(later) == 1) < 300, "in stretches, not at the end"
    grown = memory.grow_cache(24)
    assert len(grown.gpns) == 24 and (np.diff(grown.gpns[:4]) == 1).all()
    one.fill(grown)
    assert (memory.cached, memory.free) == (124, 376)
    assert contents(one)[int(grown.gpns[0])] == int(memory.layout.names[grown.gpns[0]]) != 0
    rest = memory.grow_cache(10_000)
    assert len(rest.gpns) == 276 and memory.free == 100 and not len(memory.grow_cache(1).gpns)


def test_other_keys_are_other_orders() -> None:
    def grown(key: int) -> list[int]:
        one = OneGuest(of_sizes(file_cache=640, free=100), cache=0.5, key=key)
        boot_all(one, 1.0, 1.0)
        return one.memory.grow_cache(320).gpns.tolist()  # type: ignore[no-any-return]

    assert grown(1) == grown(1) != grown(2)
    assert len(set(grown(1))) == 320


@pytest.mark.parametrize(("stale", "there"), [(49, 100), (50, 100), (51, 51)])
def test_free_memory_that_is_not_zeroed(stale: int, there: int) -> None:
    """Half of what is free and zero makes a system that zeroes; absent is what no system wrote."""
    layout = of_sizes(heap=10, file_cache=20, free=100)
    layout.names[30 : 30 + stale] = 99
    if stale == 51:
        layout.names[30 + stale :] = ABSENT
    one = OneGuest(layout, cache=0.0)
    boot_all(one, 1.0, 1.0)
    present = one.guest.page_table != NO_FRAME
    assert present[:10].all() and np.count_nonzero(present[30:]) == there
    assert present[10:30].all() == (stale <= 50)


def test_what_is_in_the_balloon_is_left_alone() -> None:
    one = OneGuest(of_sizes(heap=100, free=100))
    assert one.memory.inflate(60) == 60
    boot_all(one, 1.0, 0.1)
    assert np.count_nonzero(one.guest.page_table != NO_FRAME) == 140
    assert (one.memory.in_use, one.memory.free, one.memory.balloon, one.memory.given) == (100, 40, 60, 60)


@pytest.mark.parametrize("tick", [0.1, 1.0])
def test_a_start_in_too_little_memory_pages(tick: float) -> None:
    """The balloon keeps what it has, and the guest writes what it has loaded first to its swap."""
    one = OneGuest(of_sizes(kernel_data=20, heap=300, file_cache=80, free=100))
    assert one.memory.inflate(300) == one.memory.given == 300
    parts = boot_all(one, 1.0, tick)
    memory = one.memory
    assert (memory.balloon, memory.in_use, memory.free) == (300, 200, 0)
    assert memory.paged == 200 and memory.committed == 320
    assert len(parts) > 1, "what is loaded at once has no place"
    assert (np.flatnonzero(one.guest.page_table != NO_FRAME) == np.flatnonzero(memory.uses <= Use.CACHED)).all()


def test_a_start_takes_time() -> None:
    one = OneGuest(of_sizes(heap=10))
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="it must be more than 0"):
            Boot(one.memory, seconds)


def test_a_layout_of_another_size() -> None:
    one = OneGuest(of_sizes(heap=10))
    with pytest.raises(ValueError, match="the layout has 11 pages, and the guest 10"):
        type(one.memory)(of_sizes(heap=11), one.guest, one.pager, one.ledger)


def test_a_desktop() -> None:
    """As generated: 65,536 pages at once are fewer than it has."""
    layout: Layout = generate(preset("windows-xp"), 1)[0]
    one = OneGuest(layout, cache=0.6)
    boot_all(one, 60.0, 10.0)
    held, memory = np.array(contents(one), np.uint64), one.memory
    there = memory.uses <= Use.CACHED
    assert (held[there] == layout.names[there]).all() and not held[~there].any()
    assert memory.in_use == np.count_nonzero(there) > 10_000


