"""Live guests that stand still: the scan of their memory against QEMU's dumps of it, and against the kernel's KSM."""

from pathlib import Path

import numpy as np
import pytest

import pagedup
from benchmarks import guests, ksm
from pagedup.memory import AnyExtent, Extent, LiveOptions, NamedExtent, Source, ZeroExtent, open_sources
from tests.oracle.conftest import RealGuest

pytestmark = [pytest.mark.qemu, pytest.mark.ksm]
PAGE = 4096
HOLE, BEHIND = 0xA0000, 0x100000  # video RAM and firmware lie over the RAM between these


def without_hole(source: Source, size: int) -> list[AnyExtent]:
    """The guest's RAM less what a dump by physical address shows something else of."""
    cut: list[AnyExtent] = []
    for extent in source.extents:
        length = len(memoryview(extent.buffer)) if isinstance(extent, Extent) else extent.size
        for start, end in ((0, HOLE), (BEHIND, size)):
            first, last = max(start, extent.address), min(end, extent.address + length)
            begin, stop = first - extent.address, last - extent.address
            if first >= last:
                continue
            if isinstance(extent, ZeroExtent):
                cut.append(ZeroExtent(first, last - first))
            elif isinstance(extent, Extent):
                cut.append(Extent(first, memoryview(extent.buffer)[begin:stop]))
            else:
                names = extent.names[begin // PAGE : stop // PAGE]
                cut.append(NamedExtent(first, PAGE, names, extent.contents))
    return cut


def nonzero_columns(texts: list[str], size: int) -> dict[str, int]:
    sources = open_sources(texts)
    try:
        found = pagedup.summarize(pagedup.find_duplicates([without_hole(source, size) for source in sources]))
    finally:
        for source in sources:
            source.close()
    wanted = ("nonzero", "distinct", "saved_nonzero", "saved_within_guests", "pages_shared", "pages_unshared")
    return {name: getattr(found, name) for name in wanted}


def test_raw_elf_and_live_agree(real_guests: list[RealGuest], tmp_path: Path) -> None:
    size = real_guests[0].dump.stat().st_size
    cores = []
    for guest in real_guests:
        cores.append(tmp_path / f"{guest.name}.elf")
        order = {"paging": False, "protocol": f"file:{cores[-1]}"}
        guests.qmp(guest.qmp, ("dump-guest-memory", order))
    raw = nonzero_columns([str(guest.dump) for guest in real_guests], size)
    assert raw["saved_nonzero"] > 5000
    assert nonzero_columns([str(core) for core in cores], size) == raw
    assert nonzero_columns([f"qemu:{guest.name}" for guest in real_guests], size) == raw
    assert nonzero_columns([f"qemu:{guest.qmp}" for guest in real_guests], size) == raw


def test_the_kernel_agrees(real_guests: list[RealGuest]) -> None:
    """All that QEMU has marked mergeable, merged by KSM: the guests' RAM, their video memory and ROMs."""
    with ksm.stepped(of=[guest.pid for guest in real_guests]) as kernel:
        sources = open_sources([f"pid:{guest.pid}" for guest in real_guests], live=LiveOptions(mergeable=True))
        try:
            found = pagedup.find_duplicates([source.extents for source in sources])
        finally:
            for source in sources:
                source.close()
        merged = kernel.converge()
    expected = pagedup.summarize(found)
    told = np.array([merged["pages_shared"], merged["pages_sharing"], merged["pages_unshared"]])
    wanted = np.array([expected.pages_shared, expected.pages_sharing, expected.pages_unshared])
    assert expected.pages_sharing > 5000
    assert np.abs(told - wanted).max() <= 4, f"KSM has {told}, the scan {wanted}"
    # A large page that is split gives its zero pages back without KSM's counting them.
    assert merged["ksm_zero_pages"] <= expected.zero
