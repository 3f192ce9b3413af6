"""ELF programs and shared objects, mapped as Linux and its dynamic loader do.

lief reads header and segments; all that they claim is checked here against the file. Sections are for linkers: what is
in memory, and with which protection, only the segments say. Names are those of the System V ABI and of <elf.h>.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pagedup.guests.images.content import Content, OpenContent
from pagedup.guests.images.elf_dynamic import MACHINES, read_dynamic
from pagedup.guests.images.error import ImageError
from pagedup.guests.images.fixups import PAGE
from pagedup.guests.images.format_reader import lief
from pagedup.guests.images.image import Image, Piece, Section
from pagedup.guests.images.mapping import Mapping, check_size, section_of

if TYPE_CHECKING:
    from typing import Any

MAGIC = b"\x7fELF"
_BITS = {1: 32, 2: 64}
_BYTE_ORDER: dict[int, Literal["<", ">"]] = {1: "<", 2: ">"}
_ET_EXEC, _ET_DYN = 2, 3
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_RELRO = 1, 2, 0x6474E552
_PF_X, _PF_W = 1, 2
_HEADER_SIZE = {32: 52, 64: 64}
_PROGRAM_HEADER = {32: 32, 64: 56}  # bytes
# Where fields are in the ELF header and in a program header, by class.
_E_PHOFF = {32: (28, 4), 64: (32, 8)}
_E_PHENTSIZE, _E_PHNUM = {32: 42, 64: 54}, {32: 44, 64: 56}
_P_AT = {
    32: {"p_offset": 4, "p_vaddr": 8, "p_filesz": 16, "p_memsz": 20},
    64: {"p_offset": 8, "p_vaddr": 16, "p_filesz": 32, "p_memsz": 40},
}
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
    """The image of an ELF file. Raises ImageError for one that cannot be loaded, ImportError without lief."""
    with content.opened() as file:
        return _Reader(content, file).image()


def _number(head: bytes, at: int, size: int) -> int:
    return int.from_bytes(head[at : at + size], "little" if head[5] == 1 else "big")


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
        self._check_table(head)
        self.segments = self._parse()

    def image(self) -> Image:
        loads = [(number, segment) for number, segment in self.segments if segment[0] == _PT_LOAD and segment[5]]
        if not loads:
            raise ImageError(f"{self.name}: none of the {len(self.segments)} program headers is LOAD")
        for number, segment in loads:
            self._check(number, *segment)
        base = loads[0][1][3] // PAGE * PAGE
        sections, pieces = self._sections(loads, base)
        size = (sections[-1].first_page + sections[-1].n_pages) * PAGE
        dynamic = next(((s[3], s[5]) for _, s in self.segments if s[0] == _PT_DYNAMIC), None)
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

    def _check_table(self, head: bytes) -> None:
        """Before lief reads it: the table of program headers is in the file, and the machine known."""
        if self.machine not in MACHINES:
            raise ImageError(
                f"{self.name}: e_machine at offset 0x12 is {self.machine}; how it is relocated is not known here"
            )
        size, count = _number(head, _E_PHENTSIZE[self.bits], 2), _number(head, _E_PHNUM[self.bits], 2)
        if size != _PROGRAM_HEADER[self.bits]:
            at = _E_PHENTSIZE[self.bits]
            right = f"it must be {_PROGRAM_HEADER[self.bits]} in {self.bits}-bit ELF"
            raise ImageError(f"{self.name}: e_phentsize at offset {at:#x} is {size}; {right}")
        at = _E_PHNUM[self.bits]
        if not 0 < count < _PN_XNUM:
            raise ImageError(f"{self.name}: e_phnum at offset {at:#x} is {count}; it must be 1 to 65534")
        self.table = _number(head, *_E_PHOFF[self.bits])
        if self.table + count * size > self.content.size:
            raise ImageError(
                f"{self.name}: e_phnum at offset {at:#x} is {count}; so many program headers from offset"
                f" {self.table:#x} on are beyond the file's {self.content.size:,} bytes (truncated?)"
            )
        self.n_segments = count

    def _parse(self) -> list[tuple[int, tuple[int, ...]]]:
        """Number and (type, flags, offset, vaddr, filesz, memsz) of each segment."""
        reader = lief(self.name).ELF
        config = reader.ParserConfig()
        for what in ("dyn_symbols", "notes", "overlay", "relocations", "symbol_versions", "symtab_symbols"):
            setattr(config, f"parse_{what}", False)
        binary: Any = reader.parse(self.file.read(0, self.content.size), config)
        if binary is None or len(binary.segments) != self.n_segments:
            raise ImageError(f"{self.name}: lief cannot read the program headers at offset {self.table:#x}")
        return [
            (
                number,
                (
                    int(segment.type) & 0xFFFFFFFF,
                    int(segment.flags),
                    segment.file_offset,
                    segment.virtual_address,
                    segment.physical_size,
                    segment.virtual_size,
                ),
            )
            for number, segment in enumerate(binary.segments)
        ]

    def _check(self, number: int, kind: int, flags: int, offset: int, at: int, size: int, memory: int) -> None:
        if size > memory:
            raise self._wrong(number, "p_filesz", size, f"it is more than p_memsz {memory:#x}")
        if offset + size > self.content.size:
            right = f"with p_filesz {size:#x} it ends beyond the file's {self.content.size:,} bytes (truncated?)"
            raise self._wrong(number, "p_offset", offset, right)
        if (offset - at) % PAGE:
            raise self._wrong(number, "p_offset", offset, f"it must be p_vaddr {at:#x} modulo the page size")
        if at + memory > (1 << self.bits) - PAGE:
            raise self._wrong(number, "p_vaddr", at, f"with p_memsz {memory:#x} it is beyond the address space")

    def _sections(
        self, loads: list[tuple[int, tuple[int, ...]]], base: int
    ) -> tuple[tuple[Section, ...], tuple[Piece, ...]]:
        """What is mapped, and from where in the file."""
        sections: list[Section] = []
        pieces = []
        relro = next(((s[3], s[3] + s[5]) for _, s in self.segments if s[0] == _PT_GNU_RELRO), (0, 0))
        end = 0
        for number, (_, flags, offset, at, size, memory) in loads:
            first = at - at % PAGE - base
            if first < end:
                raise self._wrong(number, "p_vaddr", at, "its pages are not behind those of the LOAD segment before it")
            end = at - base + memory + -(at + memory) % PAGE
            what = f"p_memsz of program header {number}"
            check_size(self.name, what, self._at(number, "p_memsz"), end, self.content.size)
            sections += _protected(flags, first, end, relro[0] - base, relro[1] - base)
            if size:
                start = offset - at % PAGE
                # Whole pages are mapped, so what the file has around the segment is seen, too; but memory that the
                # segment has behind the file's bytes is cleared.
                whole = offset + size if memory > size else offset + size + -(offset + size) % PAGE
                pieces.append(Piece(first, start, min(whole, self.content.size) - start))
        return tuple(sections), tuple(pieces)

    def _at(self, number: int, field: str) -> int:
        return self.table + number * _PROGRAM_HEADER[self.bits] + _P_AT[self.bits][field]

    def _wrong(self, number: int, field: str, value: int, right: str) -> ImageError:
        at = self._at(number, field)
        return ImageError(f"{self.name}: {field} of program header {number} at offset {at:#x} is {value:#x}; {right}")


def _protected(flags: int, first: int, end: int, protect: int, protect_end: int) -> list[Section]:
    """A segment; its pages that are writable only until they are relocated are a section of their own."""
    executable, writable = bool(flags & _PF_X), bool(flags & _PF_W)
    if executable or not writable:
        return [section_of(".text" if executable else ".rodata", executable, False, first, end - first)]
    start = min(max(first, protect // PAGE * PAGE), end)
    stop = min(max(start, protect_end // PAGE * PAGE), end)
    parts = ((".data", first, start), (".data.rel.ro", start, stop), (".data", stop, end))
    return [section_of(name, False, True, at, to - at) for name, at, to in parts if to > at]
