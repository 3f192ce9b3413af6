"""Dump files made byte by byte, true or lying, and what a source has read, as a dictionary of frames."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pagedup.memory import Extent, Source, ZeroExtent, open_sources

HEADER = {32: "HHIIIIIHHHHHH", 64: "HHIQQQIHHHHHH"}
LIME_MAGIC = 0x4C694D45


@dataclass(frozen=True)
class Load:
    """A program header; a LOAD segment unless `kind` says otherwise."""

    offset: int
    filesz: int
    paddr: int = 0
    vaddr: int = 0
    memsz: int | None = None
    kind: int = 1

    def packed(self, bits: int, order: str) -> bytes:
        memsz = self.filesz if self.memsz is None else self.memsz
        if bits == 64:
            fields = (self.kind, 7, self.offset, self.vaddr, self.paddr, self.filesz, memsz, 0)
            return struct.pack(order + "IIQQQQQQ", *fields)
        return struct.pack(
            order + "8I", self.kind, self.offset, self.vaddr, self.paddr, self.filesz, memsz, 7, 0
        )


def elf_core(
    loads: Sequence[Load],
    bits: int = 64,
    order: str = "<",
    *,
    kind: int = 4,
    extended: bool = False,
    **lies: int,
) -> bytes:
    """The headers of an ELF core: the file header, then the program headers; whatever they name is to follow.

    `extended`: the number of program headers is in section header 0, which follows them. `lies` replace fields of the
    file header: phoff, shoff, phentsize, phnum, shentsize.
    """
    header_size, entry, section = {32: (52, 32, 40), 64: (64, 56, 64)}[bits]
    table = b"".join(load.packed(bits, order) for load in loads)
    fields = {
        "phoff": header_size,
        "shoff": header_size + len(table) if extended else 0,
        "phentsize": entry,
        "phnum": 0xFFFF if extended else len(loads),
        "shentsize": section if extended else 0,
    } | lies
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    header = struct.pack(
        order + HEADER[bits],
        *(kind, 62, 1, 0, fields["phoff"], fields["shoff"], 0, header_size),
        *(fields["phentsize"], fields["phnum"], fields["shentsize"], int(extended), 0),
    )
    info = struct.pack(order + {32: "10I", 64: "IIQQQQIIQQ"}[bits], *([0] * 7), len(loads), 0, 0) if extended else b""
    return ident + header + table + info


def table_end(n_loads: int, bits: int = 64) -> int:
    """Where the headers of an ELF core end that has so many segments."""
    return {32: 52 + 32 * n_loads, 64: 64 + 56 * n_loads}[bits]


def lime_header(first: int, last: int, magic: int = LIME_MAGIC, version: int = 1) -> bytes:
    return struct.pack("<IIQQ8x", magic, version, first, last)


def lime(ranges: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(lime_header(address, address + len(data) - 1) + data for address, data in ranges)


def open_file(folder: Path, content: bytes, frame_size: int = 4096) -> Source:
    """Write a file that holds `content` and open it."""
    path = folder / "guest.dump"
    path.write_bytes(content)
    return open_path(path, frame_size)


def open_path(path: Path, frame_size: int = 4096) -> Source:
    (source,) = open_sources([str(path)], frame_size=frame_size)
    return source


def frames(source: Source, frame_size: int = 4096) -> dict[int, bytes]:
    """All frames of a source by their address; each once, ascending, whole."""
    found: dict[int, bytes] = {}
    end = -1
    for extent in source.extents:
        content = bytes(memoryview(extent.buffer)) if isinstance(extent, Extent) else bytes(extent.size)
        assert extent.address >= end
        assert extent.address % frame_size == len(content) % frame_size == 0
        assert content
        end = extent.address + len(content)
        for at in range(0, len(content), frame_size):
            found[extent.address + at] = content[at : at + frame_size]
    assert source.size == len(found) * frame_size
    return found


def holes(source: Source) -> int:
    """How many bytes are known to be zero without reading."""
    return sum(extent.size for extent in source.extents if isinstance(extent, ZeroExtent))


def pages(*fills: int, size: int = 4096) -> bytes:
    """Pages that are each filled with one byte."""
    return b"".join(bytes([fill]) * size for fill in fills)

