"""Memory of one stopped guest in every form that QEMU writes: all agree, or are refused by name."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import pagedup
from benchmarks import guests
from pagedup.memory import Extent, Source, open_sources
from tests.dumps import frames, open_path

pytestmark = pytest.mark.qemu
PAGE = 4096
MEMORY = 256 << 20
LEGACY = range(0xA0000, 0x100000)  # video RAM and firmware: what is seen there depends on who asks


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of dumps of a guest that was booted just now and then stopped."""
    state = tmp_path_factory.mktemp("guests")
    guests.build(state)
    try:
        guests.up(["guest=redis"], "256M", state)
        (raw,) = guests.dump(state / "dumps", "raw", state)
        (guest,) = guests.alive(state)
        for name, paging, form in (
            ("paging-off.elf", False, "elf"),
            ("paging-on.elf", True, "elf"),
            ("zlib.elf", False, "kdump-zlib"),
        ):
            order = {"paging": paging, "format": form, "protocol": f"file:{raw.with_name(name)}"}
            guests.qmp(guest["qmp"], ("dump-guest-memory", order))
        stream = raw.with_name("stream.raw")
        guests.qmp(guest["qmp"], ("migrate", {"uri": f"exec:cat > '{stream}.part' && mv '{stream}.part' '{stream}'"}))
        end = time.monotonic() + 60
        while not stream.exists():
            assert time.monotonic() < end
            time.sleep(0.1)
        yield raw.parent
    finally:
        guests.down(state)


def main_memory(source: Source) -> list[Extent]:
    """The frames of the guest's RAM, less those that each kind of dump sees in its own way."""
    return [
        Extent(address, content)
        for address, content in frames(source).items()
        if address < MEMORY and address not in LEGACY
    ]


def columns(extents: list[Extent]) -> list[pagedup.GuestSummary]:
    return pagedup.summarize_guests(pagedup.find_duplicates(extents, frame_size=PAGE))


def test_raw_and_elf_agree(dumps: Path) -> None:
    with open_path(dumps / "guest.raw") as raw, open_path(dumps / "paging-off.elf") as elf:
        assert (raw.kind, elf.kind) == ("raw", "elf")
        assert elf.apart == {}
        one, other = main_memory(raw), main_memory(elf)
        assert len(one) == (MEMORY - len(LEGACY)) // PAGE
        assert one == other
        assert columns(one) == columns(other)
        assert columns(one)[0].nonzero > 10_000


def test_offsets_are_not_aligned(dumps: Path) -> None:
    """What makes these dumps a test of unaligned reading at all."""
    for name in ("paging-off.elf", "paging-on.elf"):
        with (dumps / name).open("rb") as file:
            assert all(segment["p_offset"] % PAGE for segment in ELFFile(file).iter_segments("PT_LOAD"))


def test_dump_with_paging(dumps: Path) -> None:
    """One header for each virtual mapping, tens of thousands: each page once, where the guest maps it at all."""
    path = dumps / "paging-on.elf"
    with path.open("rb") as file:
        assert ELFFile(file).num_segments() > 5000
    with open_path(dumps / "guest.raw") as raw, open_path(path) as elf:
        whole = {extent.address: extent for extent in main_memory(raw)}
        mapped = main_memory(elf)
        assert len(mapped) > 0.99 * len(whole)
        assert mapped == [whole[extent.address] for extent in mapped]
        assert columns(mapped) == columns([whole[extent.address] for extent in mapped])


@pytest.mark.parametrize(
    ("name", "what"), [("zlib.elf", "a kdump in the flattened form"), ("stream.raw", "a QEMU migration stream")]
)
def test_other_forms_are_refused(dumps: Path, name: str, what: str) -> None:
    with pytest.raises(OSError, match=re.escape(f"{dumps / name}: is {what}, which pagedup does not read; ")):
        open_sources([str(dumps / name)])
