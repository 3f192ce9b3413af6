"""Live QEMU guests among the processes of this host, and which of their mappings are the guest's RAM."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagedup.memory.smaps import Mapping

# What QEMU's system emulators are called: by itself, and by Red Hat's and Debian's packages.
_EMULATOR = re.compile(r"qemu-system-[a-z0-9_]+|qemu-kvm|kvm")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([BKMGTPE]?)(?:i?B)?", re.IGNORECASE)
_SHIFTS = {"B": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_DEFAULT_RAM = 128 << 20  # bytes, without -m


@dataclass(frozen=True, slots=True)
class QemuGuest:
    """One QEMU process. `ram`: name and bytes of each block of RAM that it was told to give its guest."""

    pid: int
    name: str
    ram: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class RamBlock:
    """A block of guest RAM in QEMU's address space: start <= address < end."""

    name: str
    start: int
    end: int


def find_guests() -> list[QemuGuest]:
    """All QEMU guests that /proc shows, in the order of their process numbers. Reads no memory."""
    guests = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended, or hides its arguments
                arguments = Path(entry.path, "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                if arguments and _EMULATOR.fullmatch(os.path.basename(arguments[0])):
                    guests.append(QemuGuest(int(entry.name), _name(arguments), _ram(arguments)))
    return sorted(guests, key=lambda guest: guest.pid)


def find_guest(text: str) -> QemuGuest:
    """The guest of this name or process number. Raises OSError, naming what there is, if it is not exactly one."""
    guests = find_guests()
    found = [guest for guest in guests if guest.name == text] or [
        guest for guest in guests if text.isascii() and text.isdigit() and guest.pid == int(text)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        numbers = ", ".join(f"qemu:{guest.pid}" for guest in found)
        raise OSError(f"qemu:{text}: {len(found)} guests have this name; give one by its process number: {numbers}")
    known = ", ".join(guest.name or str(guest.pid) for guest in guests[:10]) + (", ..." if len(guests) > 10 else "")
    there = f"there are {known}" if guests else "no QEMU runs here"
    raise OSError(errno.ESRCH, f"qemu:{text}: there is no such guest; {there}")


def ram_blocks(guest: QemuGuest, mappings: Sequence[Mapping]) -> list[RamBlock]:
    """The guest's RAM among QEMU's mappings, by ascending address; OSError where it cannot be told.

    Behind each block QEMU has a page that nobody may touch, so a block is what ends a run of touching mappings that are
    backed alike, and its size tells where it begins. Other memory may lie right before it, and madvise may have cut it
    in several mappings.
    """
    runs = list(_runs(mappings))
    blocks = []
    for size in dict.fromkeys(size for _, size in guest.ram):
        names = [name for name, own in guest.ram if own == size]
        fitting = [(end - size, end) for starts, end in runs if end - size in starts]
        if len(fitting) != len(names):
            found = "none" if not fitting else str(len(fitting))
            raise OSError(
                f"pid:{guest.pid}: of its mappings {found} could be the {len(names)} blocks of {size:,} bytes of guest"
                " RAM; give its QMP socket (qemu:/path/to/socket), or scan all of it as pid:"
                f"{guest.pid}"
            )
        blocks += [RamBlock(name, start, end) for name, (start, end) in zip(names, fitting, strict=True)]
    return sorted(blocks, key=lambda block: block.start)


def _runs(mappings: Sequence[Mapping]) -> Iterator[tuple[set[int], int]]:
    """Runs of touching mappings of data with the same backing: where its mappings begin, and where it ends."""
    # TCG's own code is executable, or, seen twice, in a file of this name.
    data = [m for m in mappings if m.accessible and "x" not in m.permissions and "tcg-jit" not in m.path]
    number, last = 0, None
    numbered = []
    for mapping in data:
        if last is None or (mapping.start, mapping.path, mapping.private) != (last.end, last.path, last.private):
            number += 1
        numbered.append((number, mapping))
        last = mapping
    for _, run in groupby(numbered, key=lambda item: item[0]):
        members = [mapping for _, mapping in run]
        yield {mapping.start for mapping in members}, members[-1].end


def _name(arguments: Sequence[str]) -> str:
    """From `-name NAME` or `-name guest=NAME,...`; empty if there is none."""
    for value in _values(arguments, "name"):
        for index, (key, text) in enumerate(_properties(value)):
            if text is None and index == 0:
                return key
            if key == "guest" and text:
                return text
    return ""


def _ram(arguments: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """The blocks of RAM that the arguments ask for."""
    backends = list(_backends(arguments))
    assigned = any("memory-backend" in dict(_properties(value)) for value in _values(arguments, "machine", "M"))
    assigned = assigned or any("memdev" in dict(_properties(value)) for value in _values(arguments, "numa"))
    if assigned:
        return tuple(backends)
    main = _DEFAULT_RAM
    for value in _values(arguments, "m"):
        for key, text in _properties(value):
            if text is None or key == "size":
                main = _bytes(key if text is None else text, "M") or main
    return (("ram", main), *backends)


def _backends(arguments: Sequence[str]) -> Iterator[tuple[str, int]]:
    for value in _values(arguments, "object"):
        if value.startswith("{"):
            import json  # only here: the other form is what people type

            try:
                properties = json.loads(value)
            except ValueError:
                continue
            kind = properties.get("qom-type")
        else:
            pairs = _properties(value)
            properties = dict(pairs)
            kind = properties.get("qom-type") or pairs[0][0]
        size = properties.get("size")
        if str(kind).startswith("memory-backend-") and size is not None:
            yield str(properties.get("id", "")), size if isinstance(size, int) else _bytes(str(size), "B")


def _values(arguments: Sequence[str], *options: str) -> Iterator[str]:
    """What follows `-option` or `--option`."""
    spelled = {f"{dashes}{option}" for option in options for dashes in ("-", "--")}
    for argument, following in pairwise(arguments):
        if argument in spelled:
            yield following


def _properties(text: str) -> list[tuple[str, str | None]]:
    """`a,b=c` as pairs; a comma in a value is written twice."""
    pairs: list[tuple[str, str | None]] = []
    for part in text.replace(",,", "\0").split(","):  # no argument of a process holds a zero byte
        key, equals, value = part.replace("\0", ",").partition("=")
        pairs.append((key, value if equals else None))
    return pairs


def _bytes(text: str, unit: str) -> int:
    """A size as QEMU reads it; 0 if it is none. `unit` is meant where none is given."""
    match = _SIZE.fullmatch(text)
    if not match:
        return 0
    return int(float(match[1]) * (1 << _SHIFTS[(match[2] or unit).upper()]))
