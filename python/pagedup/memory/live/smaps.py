"""The mappings of a process, as /proc/N/smaps lists them (Linux's filesystems/proc.rst)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAPPING = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) \S+ (\d+) *(.*)")
# Lent by the kernel to every process; not the process's memory, and reading some of it fails.
_KERNEL_MAPPINGS = frozenset({"[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]"})


@dataclass(frozen=True, slots=True)
class Mapping:
    """One range of addresses, start <= address < end. `flags` are the two-letter VmFlags, such as mg, ht or hg.

    `offset`: where in its file it begins, in bytes.
    """

    start: int
    end: int
    permissions: str
    inode: int
    path: str
    flags: frozenset[str]
    offset: int = 0

    @property
    def private(self) -> bool:
        """Whether what is written here is seen by nobody else."""
        return self.permissions.endswith("p")

    @property
    def accessible(self) -> bool:
        """Whether it may be read or written; an allocator's reservation may not."""
        return self.permissions[:2] != "--"

    @property
    def anonymous(self) -> bool:
        """Whether there is no file behind it."""
        return self.inode == 0

    @property
    def name(self) -> str:
        """What a person calls it: its file, what the kernel calls it, or [anonymous]."""
        return self.path or "[anonymous]"


def read_mappings(text: bytes) -> list[Mapping]:
    """The mappings in the text of smaps (or maps, which tells no flags), in ascending order, less the kernel's own.

    The kernel writes the text piece by piece. A mapping that grows meanwhile is told again, with what it has grown to:
    of that only what lies behind the piece before counts.
    """
    found = []
    told = 0  # up to this address
    flag_sets: dict[bytes, frozenset[str]] = {}  # thousands of mappings have few different ones
    for match, flags in _matches(text):
        start, end, permissions, offset, inode, path = match.groups()
        if flags not in flag_sets:
            flag_sets[flags] = frozenset(flags.decode("ascii", "replace").split())
        first, told = max(told, int(start, 16)), max(told, int(end, 16))
        if first == told:
            continue
        mapping = Mapping(
            first,
            told,
            permissions.decode("ascii", "replace"),
            int(inode),
            path.decode("utf-8", "surrogateescape"),
            flag_sets[flags],
            int(offset, 16) + first - int(start, 16),
        )
        if mapping.path not in _KERNEL_MAPPINGS:
            found.append(mapping)
    return found


def _matches(text: bytes) -> Iterator[tuple[re.Match[bytes], bytes]]:
    """The line of each mapping, and its flags.

    In smaps lines `Key: value` follow, the first of them Size, the last VmFlags. There may be tens of thousands of
    mappings: so they are cut apart there, and no other of these lines is looked at.
    """
    parts = text.split(b"\nVmFlags:")
    parts[0] = b"\n" + parts[0]  # which has no flags before it
    last: re.Match[bytes] | None = None
    for part in parts:
        flags, *lines = part.partition(b"\nSize:")[0].split(b"\n")
        if last:
            yield last, flags
        last = None
        for match in filter(None, map(_MAPPING.fullmatch, lines)):
            if last:
                yield last, b""
            last = match
    if last:
        yield last, b""
