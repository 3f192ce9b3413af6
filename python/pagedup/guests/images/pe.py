"""PE32 and PE32+: programs and DLLs of Windows, mapped as its memory manager does.

lief reads headers and section table; all that they claim is checked here against the file. Relocations and imports are
read here from the bytes, since lief makes an object of each and passes over what is wrong with them. Field names,
offsets and rules are those of the PE format (Microsoft, "PE Format").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.guests.images.content import Content, OpenContent
from pagedup.guests.images.error import ImageError
from pagedup.guests.images.fixups import Fixups
from pagedup.guests.images.format_reader import lief
from pagedup.guests.images.image import Image, Piece, Section
from pagedup.guests.images.mapping import Mapping, check_size, section_of
from pagedup.guests.images.pe_imports import read_imports
from pagedup.guests.images.pe_relocations import read_relocations
from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from typing import Any

MAGIC = b"MZ"
_E_LFARLC, _E_LFANEW, _DOS_SIZE = 0x18, 0x3C, 64
_SIGNATURE = b"PE\0\0"
_OPTIONAL_AT = 24  # behind the signature and the file header
_IMAGE_BASE_AT = {32: _OPTIONAL_AT + 28, 64: _OPTIONAL_AT + 24}
_SECTION_ALIGNMENT_AT, _SIZE_OF_IMAGE_AT, _SIZE_OF_HEADERS_AT = (_OPTIONAL_AT + at for at in (32, 56, 60))
_DIRECTORIES_AT = {32: _OPTIONAL_AT + 96, 64: _OPTIONAL_AT + 112}
_BITS = {0x10B: 32, 0x20B: 64}
_SECTION_HEADER = 40  # bytes
_MACHINES = {0x14C: "x86", 0x8664: "x86-64", 0xAA64: "aarch64", 0x1C0: "arm", 0x1C2: "arm", 0x1C4: "arm"}
_RELOCS_STRIPPED = 0x0001  # of the file header's Characteristics
_DYNAMIC_BASE = 0x0040  # of DllCharacteristics
_EXECUTE, _WRITE = 0x20000000, 0x80000000  # of a section's Characteristics
_SECTOR = 512  # bytes; where a section begins in the file is rounded down to it
_GRAIN = 16  # bits: bases are multiples of 64 KiB
_IMPORTS, _RELOCATIONS = 1, 5  # numbers of data directories


def is_pe(content: Content, head: bytes) -> bool:
    """Whether a file that begins with "MZ" is PE. Raises ImageError if it would be, were it not cut off.

    A program for DOS is none: no other header follows its own.
    """
    if len(head) < _DOS_SIZE:
        return False
    at = int.from_bytes(head[_E_LFANEW : _E_LFANEW + 4], "little")
    if at <= content.size - len(_SIGNATURE):
        with content.opened() as file:
            return file.read(at, len(_SIGNATURE)) == _SIGNATURE
    if int.from_bytes(head[_E_LFARLC : _E_LFARLC + 2], "little") >= _DOS_SIZE:
        raise ImageError(
            f"{content.name}: e_lfanew at offset {_E_LFANEW:#x} is {at:#x}, beyond the file's {content.size:,} bytes"
            " (truncated?)"
        )
    return False


def pe_image(content: Content) -> Image:
    """The image of a PE file. Raises ImageError for one that Windows would not load, ImportError without lief."""
    with content.opened() as file:
        return _Reader(content, file).image()


class _Reader:
    """Reads one file, field by field."""

    def __init__(self, content: Content, file: OpenContent) -> None:
        self.content = content
        self.file = file
        self.name = content.name
        self.start = int.from_bytes(file.read(_E_LFANEW, 4), "little")
        self._check_tables()
        self.binary = self._parse()
        self.size = 0  # of the image in bytes, once it is checked

    def image(self) -> Image:
        binary, optional = self.binary, self.binary.optional_header
        machine = int.from_bytes(self.file.read(self.start + 4, 2), "little")
        base = optional.imagebase
        if base % (1 << _GRAIN):
            raise self.wrong(_IMAGE_BASE_AT[self.bits], "ImageBase", base, "it must be a multiple of 64 KiB")
        sections, pieces = self._sections()
        mapping = Mapping(self.file, pieces, self.size)
        n_pages = self.size // PAGE
        stripped = bool(binary.header.characteristics & _RELOCS_STRIPPED)
        fields = Fixups.none(_GRAIN)
        if not stripped:
            at, size = self._directory(_RELOCATIONS)
            # Windows writes the base that it chose into the header's ImageBase, but only of images that take part in
            # ASLR: it is the kernel that relocates those, and ntdll the others (CasualX/pelite issue 266,
            # x64dbg/x64dbgpylib issue 7). pefile's relocate_image() leaves the header's bytes alone.
            follows = bool(optional.dll_characteristics & _DYNAMIC_BASE)
            header = self.start + _IMAGE_BASE_AT[self.bits] if follows else None
            fields = read_relocations(mapping, at, size, machine, header, self.bits // 8, _GRAIN)
        imports, imported = read_imports(mapping, *self._directory(_IMPORTS), self.bits // 8)
        return Image(
            name=self.name,
            kind="pe",
            machine=_MACHINES.get(machine, f"{machine:#x}"),
            preferred_base=base,
            n_pages=n_pages,
            sections=sections,
            relocatable=not stripped,
            granularity=1 << _GRAIN,
            fixups=fields.pages(n_pages),
            imports=imports,
            imported=imported,
            address_bits=self.bits,
            content=self.content,
            pieces=pieces,
            fields=fields,
        )

    def _check_tables(self) -> None:
        """Before lief reads them: headers and section table are in the file, and of a kind that is known."""
        header = self._read(0, _OPTIONAL_AT, "the file header")
        self.n_sections = int.from_bytes(header[6:8], "little")
        optional_size = int.from_bytes(header[20:22], "little")
        magic = int.from_bytes(self._read(_OPTIONAL_AT, 2, "Magic of the optional header"), "little")
        if magic not in _BITS:
            raise self.wrong(_OPTIONAL_AT, "Magic", magic, "it must be 0x10b (PE32) or 0x20b (PE32+)")
        self.bits = _BITS[magic]
        needed = _DIRECTORIES_AT[self.bits] - _OPTIONAL_AT
        if optional_size < needed:
            raise self.wrong(20, "SizeOfOptionalHeader", optional_size, f"it must be at least {needed:#x}")
        self._read(_OPTIONAL_AT, optional_size, "the optional header (SizeOfOptionalHeader)")
        self.table = _OPTIONAL_AT + optional_size
        size = self.n_sections * _SECTION_HEADER
        self._read(self.table, size, f"the table of {self.n_sections:,} sections (NumberOfSections)")
        self.n_directories = (optional_size - needed) // 8  # as many as there is room for

    def _parse(self) -> Any:
        reader = lief(self.name).PE
        config = reader.ParserConfig()
        for what in ("exports", "imports", "reloc", "rsrc", "signature", "exceptions", "arm64x_binary"):
            setattr(config, f"parse_{what}", False)
        # No more of the file than the headers, which have been found to be whole: lief copies what it is given, twice.
        binary = reader.parse(self.file.read(0, self.start + self.table + self.n_sections * _SECTION_HEADER), config)
        if binary is None or len(binary.sections) != self.n_sections:
            raise ImageError(f"{self.name}: lief cannot read the PE headers at offset {self.start:#x}")
        return binary

    def _sections(self) -> tuple[tuple[Section, ...], tuple[Piece, ...]]:
        """What is mapped, and from where in the file."""
        optional = self.binary.optional_header
        self.size = optional.sizeof_image + -optional.sizeof_image % PAGE
        if self.size == 0:
            raise self.wrong(_SIZE_OF_IMAGE_AT, "SizeOfImage", 0, "it must not be 0")
        check_size(self.name, "SizeOfImage", self.start + _SIZE_OF_IMAGE_AT, self.size, self.content.size)
        headers = optional.sizeof_headers
        if not 0 < headers <= min(self.content.size, self.size):
            raise self.wrong(
                _SIZE_OF_HEADERS_AT,
                "SizeOfHeaders",
                headers,
                f"it must be more than 0 and at most SizeOfImage and the file's {self.content.size:,} bytes",
            )
        if self.start + _DIRECTORIES_AT[self.bits] > headers:
            raise self.wrong(_SIZE_OF_HEADERS_AT, "SizeOfHeaders", headers, "it must include the optional header")
        if optional.section_alignment < PAGE:
            return self._as_in_the_file(optional.section_alignment)
        sections = [section_of("header", False, False, 0, headers)]
        pieces = [Piece(0, 0, headers)]
        for number, header in enumerate(self.binary.sections):
            at, raw_at, raw_size = header.virtual_address, header.pointerto_raw_data, header.sizeof_raw_data
            size = header.virtual_size or raw_size
            if at % PAGE:
                raise self.wrong_section(number, 12, "VirtualAddress", at, "it must be a multiple of the page size")
            if at + size > self.size:
                raise self.wrong_section(number, 8, "VirtualSize", size, f"it ends beyond SizeOfImage {self.size:#x}")
            if not size:
                continue
            last = sections[-1]
            if at < (last.first_page + last.n_pages) * PAGE:
                raise self.wrong_section(number, 12, "VirtualAddress", at, f"it overlaps {last.name!r} before it")
            # lief gives bytes where a name is no UTF-8.
            raw = header.name if isinstance(header.name, bytes) else header.name.encode()
            name = raw.partition(b"\0")[0].decode("utf-8", "backslashreplace") or f"section {number}"
            kind = header.characteristics
            sections.append(section_of(name, bool(kind & _EXECUTE), bool(kind & _WRITE), at, size))
            if raw_at and raw_size:
                if raw_at + raw_size > self.content.size:
                    raise self.wrong_section(
                        number, 20, "PointerToRawData", raw_at, f"with SizeOfRawData {raw_size:#x} it ends beyond the"
                        f" file's {self.content.size:,} bytes (truncated?)"
                    )  # fmt: skip
                # Whole pages are mapped: in the last one, what the file has behind the section's size is seen, too.
                pieces.append(Piece(at, raw_at - raw_at % _SECTOR, min(raw_size, size + -size % PAGE)))
        return tuple(sections), tuple(pieces)

    def _as_in_the_file(self, alignment: int) -> tuple[tuple[Section, ...], tuple[Piece, ...]]:
        """Sections aligned to less than a page, as of drivers: the file is mapped as it is, with every right."""
        for number, header in enumerate(self.binary.sections):
            at, raw_at, raw_size = header.virtual_address, header.pointerto_raw_data, header.sizeof_raw_data
            if raw_size and at != raw_at:
                right = f"it must be VirtualAddress {at:#x}, since SectionAlignment is {alignment:#x}"
                raise self.wrong_section(number, 20, "PointerToRawData", raw_at, right)
        pieces = (Piece(0, 0, min(self.size, self.content.size)),)
        return (section_of("image", True, True, 0, self.size),), pieces

    def _directory(self, number: int) -> tuple[int, int]:
        """Address in the image and size of a data directory; (0, 0) without one."""
        at = _DIRECTORIES_AT[self.bits]
        count = int.from_bytes(self._read(at - 4, 4, "NumberOfRvaAndSizes"), "little")
        if number >= min(count, self.n_directories, 16):
            return 0, 0
        place, size = np.frombuffer(self._read(at + 8 * number, 8, "a data directory"), "<u4").tolist()
        if place and size and place + size > self.size:
            raise self.wrong(
                at + 8 * number, f"data directory {number}", place, f"with its size {size:#x} it is beyond the image"
            )
        return (place, size) if place and size else (0, 0)

    def _read(self, at: int, size: int, what: str) -> bytes:
        """Bytes `at` behind the PE signature."""
        at += self.start
        if at + size > self.content.size:
            raise ImageError(
                f"{self.name}: {what} takes {size:,} bytes at offset {at:#x}, but the file ends at"
                f" {self.content.size:#x} (truncated?)"
            )
        return self.file.read(at, size)

    def wrong(self, at: int, field: str, value: int, right: str) -> ImageError:
        return ImageError(f"{self.name}: {field} at offset {self.start + at:#x} is {value:#x}; {right}")

    def wrong_section(self, number: int, at: int, field: str, value: int, right: str) -> ImageError:
        return self.wrong(self.table + number * _SECTION_HEADER + at, f"{field} of section {number}", value, right)
