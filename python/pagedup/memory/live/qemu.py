"""Live QEMU guests, found as processes: their names, and where in the process the guest's RAM lies."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagedup.memory.live.smaps import Mapping

# Debian's, Red Hat's and older names of the emulators of whole machines; NixOS wraps them.
_EMULATOR = re.compile(r"\.?(qemu-system-[\w-]+?|qemu-kvm|kvm)(-wrapped)?")
# QEMU's -m and size=: a number, which may have a fraction, and a suffix that is a power of 1024 (qemu_strtosz).
_SIZE = re.compile(r"(0x[0-9a-f]{1,16}|[0-9]{1,20}(?:\.[0-9]{0,20})?)([bkmgtpe]?)", re.ASCII | re.IGNORECASE)
_POWER = {letter: power for power, letter in enumerate("bkmgtpe")}
_DEFAULT_RAM = 128 << 20  # bytes; without -m
_RAM_GRAIN = 8192  # bytes; QEMU rounds -m up to it, and the size of a memory backend up to a page
_PAGE = 4096
_MAIN = "ram"  # our name for RAM that has no backend of its own


@dataclass(frozen=True, slots=True)
class RamBlock:
    """A block of guest RAM in the addresses of its QEMU: from `start` up to, not including, `end`."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class QemuGuest:
    """A running QEMU: its process, its name (empty if it was given none), and its command line.

    What only QEMU itself can tell, on its QMP socket: `blocks`, its RAM, and `status`, such as `running` or `paused`.
    """

    pid: int
    name: str
    arguments: tuple[str, ...]
    blocks: tuple[RamBlock, ...] = ()
    status: str = ""

    @property
    def ram(self) -> list[tuple[str, int]]:
        """Name and bytes of each block of RAM that its command line asks for.

        That is the machine's memory, from -m or from the backends that -machine or -numa name, and what -device plugs
        in. What was plugged in later it does not tell. OSError for a size that QEMU would not take.
        """
        try:
            return _expected_ram(self.arguments)
        except ValueError as error:
            raise _without_ram(self, str(error)) from None


def find_guests() -> list[QemuGuest]:
    """All QEMU system emulators that run here, by process number. Reads no memory."""
    guests = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        arguments = _arguments(pid)
        if arguments and _is_emulator(pid, arguments[0]) and not _is_helper(pid):
            guests.append(QemuGuest(pid, _name(arguments), arguments))
    return guests


def find_guest(text: str) -> QemuGuest:
    """The one guest of this name or process number; of the name, where one is called like another's number.

    OSError where there is none or more than one.
    """
    guests = find_guests()
    named = [guest for guest in guests if guest.name == text]
    named = named or [guest for guest in guests if text == str(guest.pid)]
    if len(named) == 1:
        return named[0]
    if named:
        pids = ", ".join(f"qemu:{guest.pid}" for guest in named)
        raise OSError(f"qemu:{text}: {len(named)} guests have this name; give one by its process number: {pids}")
    if not guests:
        raise ProcessLookupError(errno.ESRCH, f"qemu:{text}: there is no such guest, since no QEMU runs here")
    known = ", ".join(f"qemu:{guest.name or guest.pid}" for guest in guests)
    raise ProcessLookupError(errno.ESRCH, f"qemu:{text}: there is no such guest; there are {known}")


def guest_of(pid: int) -> QemuGuest | None:
    """The guest of this process, if it is a QEMU."""
    return next((guest for guest in find_guests() if guest.pid == pid), None)


def ram_blocks(guest: QemuGuest, mappings: Sequence[Mapping]) -> list[RamBlock]:
    """Where the guest's RAM lies among its process's mappings, both by ascending address.

    QEMU maps each block in one piece, with a page behind it that nothing may touch. So a block of S bytes lies between
    the end of a run of mappings that touch and are backed alike, and a mapping that begins S bytes before that. Other
    memory may lie right before it, and advice to the kernel may have cut it in several mappings.

    Of blocks of one size nobody can tell from here which is which; each is named after all of them.

    OSError where a block is not found, or more of its size are than were asked for: what QEMU tells on its QMP socket
    is exact, and taken where the guest has it.
    """
    if guest.blocks:
        return _checked(guest, mappings)
    sizes: dict[int, list[str]] = {}
    for name, size in guest.ram:
        sizes.setdefault(size, []).append(name)
    blocks = []
    for size, names in sizes.items():
        starts = _starts(mappings, size)
        if len(starts) != len(names):
            raise _without_ram(
                guest,
                f"its command line asks for {len(names)} of {size:,} bytes, and {len(starts) or 'none'} of its mappings"
                " could be that",
            )
        blocks += [RamBlock(" or ".join(names), start, start + size) for start in starts]
    return sorted(blocks, key=lambda block: block.start)


def _checked(guest: QemuGuest, mappings: Sequence[Mapping]) -> list[RamBlock]:
    """The blocks that QEMU told of, if they are there."""
    for block in guest.blocks:
        there = sum(
            max(0, min(mapping.end, block.end) - max(mapping.start, block.start))
            for mapping in mappings
            if mapping.accessible
        )
        if there != block.end - block.start:
            raise OSError(
                f"qemu:{guest.name or guest.pid}: its block {block.name} at {block.start:#x} has"
                f" {block.end - block.start:,} bytes, of which process {guest.pid} maps {there:,}"
            )
    return sorted(guest.blocks, key=lambda block: block.start)


def _starts(mappings: Sequence[Mapping], size: int) -> list[int]:
    """Where `size` bytes begin that begin with a mapping, and end with a run of mappings that are backed alike."""
    found = []
    run: list[int] = []  # where the mappings of this run begin
    for mapping, following in zip_longest(mappings, mappings[1:]):
        if not _may_be_ram(mapping):
            run = []
            continue
        run.append(mapping.start)
        if following is not None and _continues(mapping, following):
            continue
        if mapping.end - size in run:
            found.append(mapping.end - size)
        run = []
    return found


def _continues(mapping: Mapping, following: Mapping) -> bool:
    touches = following.start == mapping.end and _may_be_ram(following)
    return touches and (following.path, following.private) == (mapping.path, mapping.private)


def _may_be_ram(mapping: Mapping) -> bool:
    """Readable, and neither what the kernel has named, such as [heap], nor QEMU's translated code."""
    code = "x" in mapping.permissions or "tcg-jit" in mapping.path
    return mapping.permissions[0] == "r" and not code and re.match(r"\[(?!anon:)", mapping.path) is None


def _without_ram(guest: QemuGuest, why: str) -> OSError:
    return OSError(
        f"qemu:{guest.name or guest.pid}: its RAM is not found in process {guest.pid}: {why}; give the path of its QMP"
        " socket for its name: qemu:/path/to/socket"
    )


def _is_emulator(pid: int, command: str) -> bool:
    try:
        # A program that was upgraded meanwhile is "(deleted)".
        program = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:  # it is another user's, so its word is all that there is
        program = command
    return _EMULATOR.fullmatch(os.path.basename(program)) is not None


def _is_helper(pid: int) -> bool:
    """Whether it is what -async-teardown starts, which shares everything with its QEMU but the name of its thread."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").startswith("cleanup/")
    except (FileNotFoundError, ProcessLookupError):
        return True  # it ended


def _arguments(pid: int) -> tuple[str, ...]:
    """The command line; empty where there is none to read."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in text.removesuffix(b"\0").split(b"\0")) if text else ()


def _name(arguments: Sequence[str]) -> str:
    return _last(_options(arguments, "guest", "name"), "guest")


def _expected_ram(arguments: Sequence[str]) -> list[tuple[str, int]]:
    sizes = {
        backend.get("id", ""): backend.get("size", "")
        for backend in _options(arguments, "qom-type", "object")
        if backend.get("qom-type", "").startswith("memory-backend-")
    }
    main = _last(_options(arguments, "type", "machine", "M"), "memory-backend")
    names = [main] if main else _all(_options(arguments, "type", "numa"), "memdev")
    machine = [] if names else [(_MAIN, _machine_size(arguments))]
    names += [name for name in _all(_options(arguments, "driver", "device"), "memdev") if name in sizes]
    return machine + [(name, _backend_size(name, sizes)) for name in names]


def _machine_size(arguments: Sequence[str]) -> int:
    text = _last(_options(arguments, "size", "m"), "size") or "0"
    size = _bytes(text if text[-1:].isalpha() else f"{text}M", "-m")
    return -(-size // _RAM_GRAIN) * _RAM_GRAIN or _DEFAULT_RAM


def _backend_size(name: str, sizes: dict[str, str]) -> int:
    if name not in sizes:
        raise ValueError(f"its command line has no -object with the id {name}")
    return -(-_bytes(sizes[name], f"-object {name}") // _PAGE) * _PAGE


def _bytes(text: str, where: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{where} of its command line has the size '{text}'")
    number, suffix = match[1].lower(), match[2].lower()
    unit = 1024 ** _POWER[suffix or "b"]
    return int(number, 16) * unit if number.startswith("0x") else int(Fraction(number) * unit)


def _options(arguments: Sequence[str], first: str, *names: str) -> Iterator[dict[str, str]]:
    """What follows each `-name` or `--name`; `first` is the key of a first value that stands without one."""
    spelled = {f"{dashes}{name}" for name in names for dashes in ("-", "--")}
    for option, text in pairwise(arguments):
        if option in spelled:
            yield _from_json(text) if text.startswith("{") else _from_pairs(text, first)


def _from_json(text: str) -> dict[str, str]:
    import json  # only here: most people type the other form

    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}  # no QEMU runs with it
    return {key: str(value) for key, value in values.items()}


def _from_pairs(text: str, first: str) -> dict[str, str]:
    """Of `a,b=c` the pairs; a comma in a value is written twice."""
    pairs = {}
    parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]  # arguments have no zero byte
    for index, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if equals:
            pairs[key] = value
        elif index == 0:
            pairs[first] = part
    return pairs


def _all(options: Iterable[dict[str, str]], key: str) -> list[str]:
    return [option[key] for option in options if key in option]


def _last(options: Iterable[dict[str, str]], key: str) -> str:
    """QEMU reads an option that is repeated as one, of which the last value counts."""
    return (_all(options, key) or [""])[-1]
