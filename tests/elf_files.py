"""ELF shared objects made byte by byte: one writable segment with all of the file, and a dynamic section in it."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.dumps import HEADER

PAGE = 4096
RELATIVE = {3: 8, 22: 12, 40: 23, 62: 8, 183: 1027}
NULL, NEEDED, STRTAB, RELA, RELASZ, REL, RELSZ, RELRSZ, RELR = 0, 1, 5, 7, 8, 17, 18, 35, 36
LOAD, DYNAMIC, RELRO = 1, 2, 0x6474E552


@dataclass
class Made:
    """A file, and where in it what lies."""

    content: bytes
    fields: dict[str, int] = field(default_factory=dict)


def shared_object(
    data: bytes,
    *,
    rela: Sequence[tuple[int, int, int]] = (),
    rel: Sequence[tuple[int, int]] = (),
    relr: Sequence[int] = (),
    needed: Sequence[str] = (),
    bits: int = 64,
    order: str = "<",
    machine: int = 62,
    kind: int = 3,
    base: int = 0,
    memory: int = 0,
    tags: Mapping[int, int] | None = None,
) -> Made:
    """Its `data` begins at the second page. Relocations: address, type and for rela the addend; `relr`: its words.

    `memory`: bytes of zeros behind the file's. `tags` are added to the dynamic section, or put in place of its own.
    """
    number = order + ("I" if bits == 32 else "Q")

    def words(*values: int) -> bytes:
        return b"".join(struct.pack(number, value % (1 << bits)) for value in values)

    def info(type_: int) -> int:
        symbol = 0 if type_ in RELATIVE.values() else 1
        return symbol << (8 if bits == 32 else 32) | type_

    body = bytearray(data)
    body += bytes(-len(body) % 8)
    found: dict[int, int] = {}

    def add(blob: bytes, tag: int, size_tag: int | None) -> None:
        found[tag] = base + PAGE + len(body)
        if size_tag is not None:
            found[size_tag] = len(blob)
        body.extend(blob)
        body.extend(bytes(-len(body) % 8))

    if rela:
        add(b"".join(words(at, info(type_), addend) for at, type_, addend in rela), RELA, RELASZ)
    if rel:
        add(b"".join(words(at, info(type_)) for at, type_ in rel), REL, RELSZ)
    if relr:
        add(words(*relr), RELR, RELRSZ)
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    add(strings, STRTAB, None)
    found.update(tags or {})
    entries = [(NEEDED, strings.index(name.encode() + b"\0")) for name in needed] + [*found.items(), (NULL, 0)]
    dynamic_at = PAGE + len(body)
    dynamic = words(*(value for entry in entries for value in entry))
    body += dynamic
    size = PAGE + len(body)
    header_size, entry_size = (52, 32) if bits == 32 else (64, 56)
    segments = [
        (LOAD, 6, 0, base, size, size + memory),
        (DYNAMIC, 6, dynamic_at, base + dynamic_at, len(dynamic), len(dynamic)),
    ]
    table = b""
    for type_, flags, offset, at, filesz, memsz in segments:
        if bits == 32:
            table += struct.pack(order + "8I", type_, offset, at, at, filesz, memsz, flags, PAGE)
        else:
            table += struct.pack(order + "IIQQQQQQ", type_, flags, offset, at, at, filesz, memsz, PAGE)
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    header = struct.pack(
        order + HEADER[bits], kind, machine, 1, 0, header_size, 0, 0, header_size, entry_size, len(segments), 0, 0, 0
    )
    content = (ident + header + table).ljust(PAGE, b"\0") + bytes(body)
    return Made(content, {"dynamic": dynamic_at, "table": header_size})
