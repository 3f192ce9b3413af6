"""ELF programs and shared objects, mapped as Linux and its dynamic loader do.

Sections are for linkers: what is in memory, and with which protection, only the segments say. They are read here, not
by lief: of a file that is cut off it tells other sizes than the headers do. Names are those of the System V ABI and of
<elf.h>.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from pagedup.guests.images.content import Content, OpenContent
from pagedup.guests.images.elf_dynamic import MACHINES, read_dynamic
from pagedup.guests.images.error import ImageError
from pagedup.guests.images.image import Image, Piece, Section
from pagedup.guests.images.mapping import Mapping, check_size, section_of
from pagedup.memory.layouts import PAGE

MAGIC = b"\x7fELF"
_BITS = {1: 32, 2: 64}
_BYTE_ORDER: dict[int, Literal["<", ">"]] = {1: "<", 2: ">"}
_ET_EXEC, _ET_DYN = 2, 3
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_RELRO = 1, 2, 0x6474E552
_PF_X, _PF_W = 1, 2
_HEADER_SIZE = {32: 52, 64: 64}
_FIELDS = {  # of a program header, by class
    32: [(name, "u4") for name in ("type", "offset", "vaddr", "paddr", "filesz", "memsz", "flags", "align")],
    64: [
        *((name, "u4") for name in ("type", "flags")),
        *((name, "u8") for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")),
    ],
}
# Where fields of the ELF header are, by class.
_E_PHOFF = {32: (28, 4), 64: (32, 8)}
_E_PHENTSIZE, _E_PHNUM = {32: 42, 64: 54}, {32: 44, 64: 56}
_PN_XNUM = 0xFFFF


def is_mapped(content: Content, head: bytes) -> bool:
    """Whether a file that begins as ELF is a program or a shared object, which are mapped; others are only read.

    `head`: its first 64 bytes. Raises ImageError if the header is cut off or of no known class.
    """
    if len(head) < 20:
        raise ImageError(f"{content.name}: the ELF header is cut off at offset {len(head):#x}")
    for at, field, known in ((4, "EI_CLASS", _BITS), (5, "EI_DATA", _BYTE_ORDER)):
        if head[at] not in known:
            raise ImageError(f"{content.name}: {field} at offset {at:#x} is {head[at]}; it must be 1 or 2")
    if (kind := _number(head, 16, 2)) not in (_ET_EXEC, _ET_DYN):
        return False
    if len(head) < _HEADER_SIZE[_BITS[head[4]]]:
        raise ImageError(f"{content.name}: the ELF header (e_type {kind}) is cut off at offset {len(head):#x}")
    return True


def elf_image(content: Content) -> Image:
    """The image of an ELF file. Raises ImageError for one that cannot be loaded."""
    with content.opened() as file:
        return _Reader(content, file).image()


def _number(head: bytes, at: int, size: int) -> int:
    return int.from_bytes(head[at : at + size], "little" if head[5] == 1 else "big")


class _Segment(NamedTuple):
    """A program header, and its number."""

    number: int
    kind: int
    flags: int
    offset: int
    at: int
    size: int
    memory: int


class _Reader:
    """Reads one file, field by field."""

    def __init__(self, content: Content, file: OpenContent) -> None:
        self.content = content
        self.file = file
        self.name = content.name
        head = file.read(0, 64)
        self.bits, self.order = _BITS[head[4]], _BYTE_ORDER[head[5]]
        self.relocatable = _number(head, 16, 2) == _ET_DYN
        self.machine = _number(head, 18, 2)
        self.form = np.dtype(_FIELDS[self.bits]).newbyteorder(self.order)
        self.table = _number(head, *_E_PHOFF[self.bits])
        self.segments = self._segments(head)

    def image(self) -> Image:
        loads = [segment for segment in self.segments if segment.kind == _PT_LOAD and segment.memory]
        if not loads:
            raise ImageError(f"{self.name}: none of the {len(self.segments)} program headers is LOAD")
        for segment in loads:
            self._check(segment)
        base = loads[0].at // PAGE * PAGE
        sections, pieces = self._sections(loads, base)
        size = (sections[-1].first_page + sections[-1].n_pages) * PAGE
        dynamic = next(((s.at, s.memory) for s in self.segments if s.kind == _PT_DYNAMIC), None)
        mapping = Mapping(self.file, pieces, size)
        linked = read_dynamic(mapping, base, dynamic, MACHINES[self.machine], self.bits, self.order)
        n_pages = size // PAGE
        return Image(
            name=self.name,
            kind="elf",
            machine=MACHINES[self.machine].name,
            preferred_base=base,
            n_pages=n_pages,
            sections=sections,
            relocatable=self.relocatable,
            granularity=PAGE,
            fixups=linked.fixups.pages(n_pages) & self.relocatable,
            imports=linked.imports,
            imported=linked.needed,
            address_bits=self.bits,
            content=self.content,
            pieces=pieces,
            fields=linked.fixups,
        )

    def _segments(self, head: bytes) -> list[_Segment]:
        if self.machine not in MACHINES:
            raise ImageError(
                f"{self.name}: e_machine at offset 0x12 is {self.machine}; how it is relocated is not known here"
            )
        at, entry = _E_PHENTSIZE[self.bits], self.form.itemsize
        if (size := _number(head, at, 2)) != entry:
            right = f"it must be {entry} in {self.bits}-bit ELF"
            raise ImageError(f"{self.name}: e_phentsize at offset {at:#x} is {size}; {right}")
        at = _E_PHNUM[self.bits]
        count = _number(head, at, 2)
        if not 0 < count < _PN_XNUM:
            raise ImageError(f"{self.name}: e_phnum at offset {at:#x} is {count}; it must be 1 to 65534")
        if self.table + count * entry > self.content.size:
            raise ImageError(
                f"{self.name}: e_phnum at offset {at:#x} is {count}; so many program headers from offset"
                f" {self.table:#x} on are beyond the file's {self.content.size:,} bytes (truncated?)"
            )
        table = np.frombuffer(self.file.read(self.table, count * entry), self.form)
        used = table[["type", "flags", "offset", "vaddr", "filesz", "memsz"]]
        return [_Segment(number, *values) for number, values in enumerate(used.tolist())]

    def _check(self, segment: _Segment) -> None:
        if segment.size > segment.memory:
            raise self._wrong(segment, "filesz", f"it is more than p_memsz {segment.memory:#x}")
        if segment.offset + segment.size > self.content.size:
            behind = f"with p_filesz {segment.size:#x} it ends beyond the file's {self.content.size:,} bytes"
            raise self._wrong(segment, "offset", f"{behind} (truncated?)")
        if (segment.offset - segment.at) % PAGE:
            raise self._wrong(segment, "offset", f"it must be p_vaddr {segment.at:#x} modulo the page size")
        if segment.at + segment.memory > (1 << self.bits) - PAGE:
            raise self._wrong(segment, "vaddr", f"with p_memsz {segment.memory:#x} it is beyond the address space")

    def _sections(self, loads: list[_Segment], base: int) -> tuple[tuple[Section, ...], tuple[Piece, ...]]:
        """What is mapped, and from where in the file."""
        sections: list[Section] = []
        pieces = []
        relro = next(((s.at - base, s.memory) for s in self.segments if s.kind == _PT_GNU_RELRO), (0, 0))
        end = 0
        for segment in loads:
            at, offset, size, memory = segment.at, segment.offset, segment.size, segment.memory
            first = at - at % PAGE - base
            if first < end:
                raise self._wrong(segment, "vaddr", "its pages are not behind those of the LOAD segment before it")
            end = at - base + memory + -(at + memory) % PAGE
            what = f"p_memsz of program header {segment.number}"
            check_size(self.name, what, self._place(segment, "memsz"), end, self.content.size)
            sections += _protected(segment.flags, first, end, relro[0], sum(relro))
            if size:
                start = offset - at % PAGE
                # Whole pages are mapped, so what the file has around the segment is seen, too; but memory that the
                # segment has behind the file's bytes is cleared.
                whole = offset + size if memory > size else offset + size + -(offset + size) % PAGE
                pieces.append(Piece(first, start, min(whole, self.content.size) - start))
        return tuple(sections), tuple(pieces)

    def _place(self, segment: _Segment, field: str) -> int:
        """Offset of a program header's field in the file."""
        fields = self.form.fields
        assert fields is not None
        return self.table + segment.number * self.form.itemsize + fields[field][1]

    def _wrong(self, segment: _Segment, field: str, right: str) -> ImageError:
        value = {"offset": segment.offset, "vaddr": segment.at, "filesz": segment.size}[field]
        at = self._place(segment, field)
        which = f"p_{field} of program header {segment.number}"
        return ImageError(f"{self.name}: {which} at offset {at:#x} is {value:#x}; {right}")


def _protected(flags: int, first: int, end: int, protect: int, protect_end: int) -> list[Section]:
    """A segment; its pages that are writable only until they are relocated are a section of their own."""
    executable, writable = bool(flags & _PF_X), bool(flags & _PF_W)
    if executable or not writable:
        return [section_of(".text" if executable else ".rodata", executable, False, first, end - first)]
    start = min(max(first, protect // PAGE * PAGE), end)
    stop = min(max(start, protect_end // PAGE * PAGE), end)
    parts = ((".data", first, start), (".data.rel.ro", start, stop), (".data", stop, end))
    return [section_of(name, False, True, at, to - at) for name, at, to in parts if to > at]
