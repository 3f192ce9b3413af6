"""Live guests that stand still: the RAM that is found in their processes, against the dumps that QEMU writes."""

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import guests
from pagedup.memory.live.pause import paused
from pagedup.memory.live.qemu import RamBlock, find_guest, find_guests, ram_blocks
from pagedup.memory.live.qmp import guest_at
from pagedup.memory.live.smaps import Mapping, read_mappings
from tests.oracle.conftest import RealGuest

pytestmark = pytest.mark.qemu
PAGE = 4096
LEGACY = slice(0xA0000 // PAGE, 0x100000 // PAGE)  # video RAM and firmware lie over the RAM there
PRESENT, SWAPPED = np.uint64(1 << 63), np.uint64(1 << 62)


def mappings(guest: RealGuest) -> list[Mapping]:
    return read_mappings(Path(f"/proc/{guest.pid}/smaps").read_bytes())


def pages_of(guest: RealGuest, block: RamBlock) -> tuple[np.ndarray, np.ndarray]:
    """The block page by page, zero where none is present, and which are present. Faults nothing in."""
    n = (block.end - block.start) // PAGE
    with open(f"/proc/{guest.pid}/pagemap", "rb") as file:
        entries = np.frombuffer(os.pread(file.fileno(), 8 * n, block.start // PAGE * 8), np.uint64)
    assert len(entries) == n and not (entries & SWAPPED).any()
    present = (entries & PRESENT) != 0
    pages = np.zeros((n, PAGE), np.uint8)
    with open(f"/proc/{guest.pid}/mem", "rb") as file:
        for index in np.flatnonzero(present).tolist():
            pages[index] = np.frombuffer(os.pread(file.fileno(), PAGE, block.start + index * PAGE), np.uint8)
    return pages, present


def test_all_are_found(real_guests: list[RealGuest]) -> None:
    found = {(guest.name, guest.pid) for guest in find_guests()}
    assert {(guest.name, guest.pid) for guest in real_guests} <= found


def test_the_block_is_what_qemu_dumps(real_guests: list[RealGuest]) -> None:
    for guest in real_guests:
        (block,) = ram_blocks(find_guest(guest.name), mappings(guest))
        pages, present = pages_of(guest, block)
        dump = np.fromfile(guest.dump, np.uint8).reshape(-1, PAGE)
        assert pages.shape == dump.shape
        differ = (pages != dump).any(axis=1)
        differ[LEGACY] = False
        assert not differ.any(), f"{guest.name}: pages {np.flatnonzero(differ)[:10]} differ"
        assert np.count_nonzero(dump.any(axis=1)) > 5000
        assert present.any() and np.array_equal(pages_of(guest, block)[1], present), "reading has faulted in nothing"


def test_by_process_and_by_qemu_agree(real_guests: list[RealGuest]) -> None:
    for guest in real_guests:
        told = guest_at(guest.qmp)
        assert (told.name, told.pid, told.status) == (guest.name, guest.pid, "paused")
        (exact,) = ram_blocks(told, mappings(guest))
        (found,) = ram_blocks(find_guest(guest.name), mappings(guest))
        assert (exact.start, exact.end) == (found.start, found.end)


def test_qemu_can_be_paused(real_guests: list[RealGuest]) -> None:
    guest = real_guests[0]
    with paused(guest.pid):
        threads = list(Path(f"/proc/{guest.pid}/task").iterdir())
        states = {(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads}
        assert (len(threads) > 2, states) == (True, {"t"})
    guests.qmp(guest.qmp, ("query-status", {}))
    assert guest_at(guest.qmp).status == "paused"
