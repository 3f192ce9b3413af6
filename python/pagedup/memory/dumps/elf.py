"""ELF cores: of QEMU, gdb, the kernel's own for processes and for crashes.

The numbers are those of the ELF specification (System V ABI, chapters 4 and 5) and of Linux's <elf.h>.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pagedup.memory.dumps.elf_runs import Segments, covered, runs_of
from pagedup.memory.dumps.image_file import ImageFile
from pagedup.memory.dumps.mapped_source import MappedSource
from pagedup.memory.source import Apart

if TYPE_CHECKING:
    from numpy.typing import NDArray

ELF_MAGIC = b"\x7fELF"
_CLASS_AT, _DATA_AT, _IDENT_SIZE = 4, 5, 16  # EI_CLASS, EI_DATA, EI_NIDENT
_BYTE_ORDER: dict[int, Literal["<", ">"]] = {1: "<", 2: ">"}  # ELFDATA2LSB, ELFDATA2MSB
_BITS = {1: 32, 2: 64}  # ELFCLASS32, ELFCLASS64
_ET_CORE = 4
_OTHER_TYPES = {
    0: "ET_NONE",
    1: "ET_REL, an object file",
    2: "ET_EXEC, a program",
    3: "ET_DYN, a program or a shared library",
}
_PT_LOAD = 1
_PN_XNUM = 0xFFFF  # the number did not fit in e_phnum: it is in sh_info of section header 0


@dataclass(frozen=True, slots=True)
class _Form:
    """How the headers of one class are laid out."""

    header: str  # behind e_ident: e_type, ..., e_shstrndx
    section: str  # a section header
    program: tuple[tuple[str, str], ...]  # a program header


_FORMS = {
    32: _Form(
        "HHIIIIIHHHHHH",
        "10I",
        tuple((name, "u4") for name in ("type", "offset", "vaddr", "paddr", "filesz", "memsz", "flags", "align")),
    ),
    64: _Form(
        "HHIQQQIHHHHHH",
        "IIQQQQIIQQ",
        (
            *((name, "u4") for name in ("type", "flags")),
            *((name, "u8") for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")),
        ),
    ),
}
_SH_INFO = 7  # its place among the fields of a section header


class ElfSource(MappedSource):
    """The LOAD segments of an ELF core, by physical address; by virtual address where no header gives a physical one.

    What a segment has in memory and not in the file is absent. Memory that two headers name is counted once, if its
    bytes are the same (a kernel's crash core names the kernel's text twice); it is an error if they differ.
    """

    kind = "elf"

    def __init__(self, name: str, file: ImageFile, frame_size: int) -> None:
        super().__init__(name, file, frame_size)
        table = _read_table(file)
        segments, memory_size = _loads(file, table)
        for run in runs_of(segments, file, table.name):
            self._add(run.address, run.offset, run.size)
        absent = covered(segments.address, memory_size) - covered(segments.address, segments.size)
        self._set_apart(Apart.ABSENT, absent)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """The program headers, and where in the file they are."""

    bits: int
    offset: int
    headers: NDArray[np.void]

    def name(self, number: int) -> str:
        """How an error names a program header."""
        return f"program header {number} (at offset {self.offset + number * self.headers.itemsize:#x})"


def _read_table(file: ImageFile) -> _Table:
    ident = file.read(0, _IDENT_SIZE, "the ELF identification")
    order, bits = _BYTE_ORDER.get(ident[_DATA_AT]), _BITS.get(ident[_CLASS_AT])
    if bits is None:
        raise _wrong(file, _CLASS_AT, "EI_CLASS", ident[_CLASS_AT], "it must be 1 (32-bit) or 2 (64-bit)")
    if order is None:
        raise _wrong(file, _DATA_AT, "EI_DATA", ident[_DATA_AT], "it must be 1 (little-endian) or 2 (big-endian)")
    form = _FORMS[bits]
    header = struct.Struct(order + form.header)
    fields = header.unpack(file.read(_IDENT_SIZE, header.size, "the ELF header"))
    kind, _, _, _, offset, sections, _, _, entry_size, count, section_size, _, _ = fields
    if kind != _ET_CORE:
        what = _OTHER_TYPES.get(kind, f"type {kind:#x}")
        raise OSError(f"{file.path}: is an ELF file, but no core: e_type at offset 0x10 is {what}; give a memory dump")
    if count == _PN_XNUM:
        section = struct.Struct(order + form.section)
        if sections == 0:
            raise OSError(f"{file.path}: e_phnum is 0xffff, so section header 0 has the number, but e_shoff is 0")
        if section_size != section.size:
            raise OSError(f"{file.path}: e_shentsize is {section_size}; it must be {section.size} in {bits}-bit ELF")
        count = section.unpack(file.read(sections, section.size, "section header 0 (e_shoff)"))[_SH_INFO]
    layout = np.dtype(list(form.program)).newbyteorder(order)
    if count and entry_size != layout.itemsize:
        raise OSError(f"{file.path}: e_phentsize is {entry_size}; it must be {layout.itemsize} in {bits}-bit ELF")
    data = file.read(offset, count * layout.itemsize, f"the table of {count:,} program headers (e_phoff, e_phnum)")
    return _Table(bits, offset, np.frombuffer(data, layout))


def _loads(file: ImageFile, table: _Table) -> tuple[Segments, NDArray[np.uint64]]:
    """The LOAD segments, and how many bytes each has in memory."""
    (number,) = np.nonzero(table.headers["type"] == _PT_LOAD)
    loads = table.headers[number]
    if not len(loads):
        raise OSError(f"{file.path}: is an ELF core without a LOAD segment, so it holds no memory")
    field = "paddr" if loads["paddr"].any() else "vaddr"
    address, offset, size, memory_size = (
        loads[name].astype(np.uint64) for name in (field, "offset", "filesz", "memsz")
    )
    if (larger := size > memory_size).any():
        which = int(larger.argmax())
        raise OSError(
            f"{file.path}: {table.name(int(number[which]))}: p_filesz {size[which]:#x} is larger than p_memsz"
            f" {memory_size[which]:#x}"
        )
    top = np.uint64((1 << table.bits) - 1)
    if (wraps := (memory_size > 0) & (memory_size - np.uint64(1) > top - address)).any():
        which = int(wraps.argmax())
        raise OSError(
            f"{file.path}: {table.name(int(number[which]))}: p_{field} {address[which]:#x} + p_memsz"
            f" {memory_size[which]:#x} goes beyond the {table.bits}-bit address space"
        )
    # Of an empty one QEMU gives the offset -1, so only those with bytes are looked at.
    end = np.uint64(file.size)
    if (beyond := (size > 0) & ((offset > end) | (size > end - np.minimum(offset, end)))).any():
        which = int(beyond.argmax())
        ends = zip(offset[beyond].tolist(), size[beyond].tolist(), strict=True)
        missing = max(at + length for at, length in ends) - file.size
        raise OSError(
            f"{file.path}: {table.name(int(number[which]))}: p_offset {offset[which]:#x} + p_filesz {size[which]:#x} is"
            f" beyond the file's {file.size:,} bytes ({missing:,} bytes are missing in all; truncated?)"
        )
    return Segments(number, address, offset, size), memory_size


def _wrong(file: ImageFile, at: int, field: str, value: int, right: str) -> OSError:
    return OSError(f"{file.path}: {field} at offset {at:#x} is {value}; {right}")
