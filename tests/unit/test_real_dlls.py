"""Real DLLs of PyPI's Windows wheels, against pefile's relocation, another reading of the same format."""

import subprocess

import numpy as np
import pefile
import pytest

from benchmarks import relocation
from benchmarks.wheels import wheels
from pagedup.guests.images import Image, identities, load_tree, relocation_table
from tests.pe_files import PAGE, image_base_at

_MOST = 100_000  # bytes of a file: pefile makes an object of each relocation


@pytest.fixture(scope="module")
def dlls() -> list[Image]:
    """Those of lxml and pywin32, 32 and 64 bit; downloaded once, to build/wheels."""
    try:
        paths = wheels("lxml", "pywin32")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    images = [image for path in paths for image in load_tree(path)]
    assert not any(image.flaw for image in images)
    return [image for image in images if image.kind == "pe"]


def content_of(image: Image) -> bytes:
    with image.content.opened() as file:
        return file.read(0, image.content.size)


def test_as_pefile_relocates_them(dlls: list[Image]) -> None:
    """Byte by byte, but for the header's ImageBase, which the loader moves and pefile does not."""
    compared = {"x86": 0, "x86-64": 0}
    for image in dlls[::4]:
        if image.content.size > _MOST:
            continue
        data = content_of(image)
        bits = image.address_bits
        with pefile.PE(data=data, fast_load=True) as oracle:
            header = oracle.DOS_HEADER.e_lfanew + image_base_at(bits) - 64
            assert image.imported == tuple(imports_of(oracle))
            # The second base is as far as the format goes, which carries through every byte of an address.
            for base in (0x6B130000, (1 << bits) - (1 << 24)):
                oracle.relocate_image(base)
                expected = bytearray(oracle.get_memory_mapped_image(max_virtual_address=1 << 40))
                told = slice(header, header + bits // 8)
                assert int.from_bytes(expected[told], "little") == image.preferred_base
                expected[told] = base.to_bytes(bits // 8, "little")
                assert image.pages(base).tobytes() == expected.ljust(image.n_pages * PAGE, b"\0"), image.name
        compared[image.machine] += 1
    assert min(compared.values()) >= 8


def imports_of(oracle: pefile.PE) -> list[str]:
    oracle.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_IMPORT"]])
    return [entry.dll.decode() for entry in getattr(oracle, "DIRECTORY_ENTRY_IMPORT", [])]


def test_fixups_and_imports_as_pefile_lists_them(dlls: list[Image]) -> None:
    for image in dlls[::5]:
        with pefile.PE(data=content_of(image), fast_load=True) as oracle:
            tables = imports_of(oracle)
            oracle.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_BASERELOC"]])
            listed = sorted(
                entry.rva
                for block in getattr(oracle, "DIRECTORY_ENTRY_BASERELOC", [])
                for entry in block.entries
                if entry.type
            )
            addresses = [
                entry.address - image.preferred_base
                for dll in (oracle.DIRECTORY_ENTRY_IMPORT if tables else [])
                for entry in dll.imports
            ]
        assert sorted(image.fields.at.tolist()[:-1]) == listed, "the last one is the header's"
        assert set(np.flatnonzero(image.imports).tolist()) == {address // PAGE for address in addresses}


def test_names_and_bytes_agree_for_two_guests(dlls: list[Image]) -> None:
    """All pages of all files at bases of two guests: the same classes by name and by bytes."""
    found = identities(dlls)
    assert found.n_ids < len(found.id), "files share pages"
    names, contents = [], []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        for number, image in enumerate(dlls):
            base = 0x50000000 + 0x10000 * int(rng.integers(1 << 8)) if image.relocatable else image.preferred_base
            items = found.of(number)
            names += list(zip(found.id[items].tolist(), found.parameter(items, base).tolist(), strict=True))
            contents += [page.tobytes() for page in image.pages(base)]
    by_name = {name: number for number, name in reversed(list(enumerate(names)))}
    by_bytes = {page: number for number, page in reversed(list(enumerate(contents)))}
    assert [by_name[name] for name in names] == [by_bytes[page] for page in contents]


def test_what_was_measured_before(dlls: list[Image]) -> None:
    """Nearly all pages of 32-bit text carry fixups, nearly none of 64-bit text."""
    share = {(row.machine, row.section): row.fixup_pages / row.pages for row in relocation_table(dlls)}
    assert share["x86", ".text"] > 0.9
    assert share["x86-64", ".text"] < 0.02
    assert share["x86", "all"] > 0.4 > share["x86-64", "all"]


def test_the_benchmark_prints_tables(dlls: list[Image]) -> None:
    few = [image for image in dlls if image.n_pages < 40]
    table = relocation.relocation(few).splitlines()
    assert len(table) == 2 + 2 * 4 and all(line.count("|") == 7 for line in table)
    assert "| x86 | .text |" in table[2] and "| 96.9 % |" in table[2]
    shared = relocation.shared(few, 1).splitlines()
    assert len(shared) == 4
    assert all("| 100.0 % |" in line for line in shared[2:])
    apart = [float(line.split("|")[-2].strip(" %")) for line in shared[2:]]
    assert 0 < apart[0] < apart[1] < 100
