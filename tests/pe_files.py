"""PE files made field by field, and what becomes of their bytes by brute force."""

import struct
from dataclasses import dataclass

PAGE = 4096
ABSOLUTE, HIGH, LOW, HIGHLOW, HIGHADJ, DIR64 = 0, 1, 2, 3, 4, 10
CODE, RDATA, DATA = 0x60000020, 0x40000040, 0xC0000040
PE_AT = 64
SECTION = 40

Fixup = tuple[int, int]
"""Address in the image, and type."""


@dataclass
class Part:
    """A section; `size` in memory, by default as in the file."""

    name: str
    at: int
    data: bytes
    size: int | None = None
    flags: int = DATA


def blocks(fixups: list[Fixup]) -> bytes:
    """A relocation directory; a block ends where the page changes. The parameter of HIGHADJ is made up."""
    found = bytearray()
    at = 0
    while at < len(fixups):
        page = fixups[at][0] // PAGE
        entries: list[int] = []
        while at < len(fixups) and fixups[at][0] // PAGE == page:
            place, kind = fixups[at]
            entries += [kind << 12 | place % PAGE] + [0x8123] * (kind == HIGHADJ)
            at += 1
        entries += [0] * (len(entries) % 2)
        found += struct.pack(f"<II{len(entries)}H", page * PAGE, 8 + 2 * len(entries), *entries)
    return bytes(found)


def import_table(at: int, dlls: dict[str, int], thunk: int) -> tuple[bytes, dict[str, int]]:
    """An import directory that lies at `at`: DLLs and how many functions of each; and where each address table is."""
    names_at = at + 20 * (len(dlls) + 1)
    names = b"".join(name.encode() + b"\0" for name in dlls)
    names += bytes(-len(names) % 8)
    tables_at = names_at + len(names)
    descriptors, tables, places = b"", b"", {}
    for name, count in dlls.items():
        place = names_at + names.index(name.encode() + b"\0")
        places[name] = tables_at + len(tables)
        descriptors += struct.pack("<5I", 0, 0, 0, place, places[name])
        tables += b"".join((0x80000000 + i).to_bytes(thunk, "little") for i in range(count)) + bytes(thunk)
    return descriptors + bytes(20) + names + tables, places


def pe_file(
    parts: list[Part],
    relocations: bytes | None = None,
    *,
    bits: int = 32,
    base: int = 0x10000000,
    imports: int = 0,
    dynamic_base: bool = True,
    machine: int | None = None,
    alignment: int = PAGE,
    size_of_image: int | None = None,
) -> bytes:
    """A file whose sections lie in it one behind the other; the relocation directory is one more, and the last.

    None: they are stripped. `imports`: where the import directory is in the image.
    """
    end = max((part.at + (part.size or len(part.data)) for part in parts), default=PAGE)
    parts = list(parts)
    relocations_at = end + -end % PAGE
    if relocations:
        parts.append(Part(".reloc", relocations_at, relocations, flags=RDATA))
        end = relocations_at + len(relocations)
    optional = 224 if bits == 32 else 240
    headers = PE_AT + 24 + optional + SECTION * len(parts)
    headers += -headers % 512
    table, body, at = b"", b"", headers
    for part in parts:
        data = part.data + bytes(-len(part.data) % 512)
        size = len(part.data) if part.size is None else part.size
        place = at if data else 0
        table += struct.pack("<8s4I", part.name.encode(), size, part.at, len(data), place)
        table += struct.pack("<IIHHI", 0, 0, 0, 0, part.flags)
        body += data
        at += len(data)
    dos = b"MZ".ljust(0x18, b"\0") + struct.pack("<H", 64)
    dos = dos.ljust(0x3C, b"\0") + struct.pack("<I", PE_AT)
    if machine is None:
        machine = 0x14C if bits == 32 else 0x8664
    stripped = int(relocations is None)
    file_header = struct.pack("<4sHHIIIHH", b"PE\0\0", machine, len(parts), 0, 0, 0, optional, 0x2102 | stripped)
    image = end + -end % PAGE if size_of_image is None else size_of_image
    directories = [(0, 0)] * 16
    directories[1] = (imports, 40) if imports else (0, 0)
    directories[5] = (relocations_at, len(relocations)) if relocations else (0, 0)
    fields = struct.pack("<HBB5I", 0x10B if bits == 32 else 0x20B, 14, 0, 0, 0, 0, 0, 0)
    fields += struct.pack("<II", 0, base) if bits == 32 else struct.pack("<Q", base)
    fields += struct.pack("<II6H", alignment, min(512, alignment), 6, 0, 0, 0, 6, 0)
    fields += struct.pack("<IIIIHH", 0, image, headers, 0, 3, 0x40 * dynamic_base)
    fields += struct.pack("<4I" if bits == 32 else "<4Q", 0, 0, 0, 0) + struct.pack("<II", 0, 16)
    fields += b"".join(struct.pack("<II", *directory) for directory in directories)
    assert len(fields) == optional
    return (dos + file_header + fields + table).ljust(headers, b"\0") + body


def image_base_at(bits: int) -> int:
    """Where ImageBase is in files made here, and in their images."""
    return PE_AT + 24 + (28 if bits == 32 else 24)


def mapped(parts: list[Part], file: bytes, size: int) -> bytearray:
    """The image at its preferred base: headers, and each part with the zero bytes to its page's end."""
    image = bytearray(size)
    headers = struct.unpack_from("<I", file, PE_AT + 24 + 60)[0]
    image[:headers] = file[:headers]
    for part in parts:
        room = len(part.data) if part.size is None else part.size
        data = part.data[: room + -room % PAGE]
        image[part.at : part.at + len(data)] = data
    return image


def relocated(image: bytearray, fixups: list[Fixup], delta: int) -> bytes:
    """What Microsoft's description of the types says, one field after the other."""
    image = bytearray(image)
    for at, kind in fixups:
        if kind in (ABSOLUTE, LOW):
            continue
        size = {HIGH: 2, HIGHADJ: 2, HIGHLOW: 4, DIR64: 8}[kind]
        value = int.from_bytes(image[at : at + size], "little")
        if kind in (HIGH, HIGHADJ):
            value += delta >> 16
        else:
            value += delta
        image[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(image)
