"""Which memory of this process may be replaced page by page, and why the rest may not."""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pagedup.sharing.in_place.backing import Backing, backing_of

if TYPE_CHECKING:
    from pagedup.memory.live.smaps import Mapping
    from pagedup.sharing.in_place.arrays import Range

# What may be lost without anybody noticing, or is kept (VmFlags of Linux's filesystems/proc.rst): rights, how memory is
# accounted, and hints. Memory with any other flag stays as it is, also with one of a later kernel.
_HARMLESS = frozenset(["rd", "wr", "mr", "mw", "me", "ac", "nr", "sd", "hg", "nh", "rr", "sr", "mg"])
_WHY = {
    "lo": "locked by mlock",
    "ht": "huge pages of hugetlbfs",
    "pf": "a device's memory",
    "io": "a device's memory",
    "sh": "shared with others",
    "dc": "not copied by fork",
    "wf": "wiped by fork",
    "um": "watched by userfaultfd",
    "uw": "watched by userfaultfd",
    "ui": "watched by userfaultfd",
    "dd": "kept out of core dumps",
    "ex": "executable",
    "gd": "a stack",
    "sl": "sealed",
    "gu": "with guard pages",
}
# Others' memory lies beside the array's there, in pages that are used again after the array is freed.
_ALLOCATORS = {"[heap]": "the heap of malloc; pagedup.allocate gives memory of its own", "[stack]": "a stack"}
_KEY = re.compile(rb"\nProtectionKey: +[1-9]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one mapping that may be replaced: start <= address < end. offset: in the backing, if it shows one."""

    start: int
    end: int
    protection: int
    backing: Backing | None
    offset: int


def pieces(
    memory: Sequence[Range], mappings: Sequence[Mapping], keys: frozenset[int]
) -> tuple[list[Piece], Counter[str]]:
    """What of these whole pages may be replaced; and bytes of the others, by the reason in words.

    Both ascending. keys: where mappings begin that have a protection key.
    """
    found = []
    left: Counter[str] = Counter()
    for start, end, mapping in _cut(memory, mappings):
        if why := _unsuitable(mapping, mapping.start in keys):
            left[why] += end - start
            continue
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if mapping.permissions[1] == "w" else 0)
        found.append(Piece(start, end, protection, backing_of(mapping), mapping.offset + start - mapping.start))
    return found, left


def with_keys(text: bytes) -> frozenset[int]:
    """Where mappings begin that have a protection key, from the text of smaps."""
    found = set()
    for match in _KEY.finditer(text):
        flags_before = text.rfind(b"\nVmFlags:", 0, match.start())
        line = text.find(b"\n", flags_before + 1) + 1 if flags_before >= 0 else 0
        found.add(int(text[line : text.find(b"-", line)], 16))
    return frozenset(found)


def _cut(memory: Sequence[Range], mappings: Sequence[Mapping]) -> Iterator[tuple[int, int, Mapping]]:
    """The memory, cut where mappings end."""
    at = 0
    for start, end in memory:
        while at < len(mappings) and mappings[at].end <= start:
            at += 1
        for i in range(at, len(mappings)):
            if mappings[i].start >= end:
                break
            yield max(start, mappings[i].start), min(end, mappings[i].end), mappings[i]


def _unsuitable(mapping: Mapping, has_key: bool) -> str:
    """Why the mapping must stay as it is; empty if it may be replaced."""
    if not mapping.private:
        return "shared with others"
    if not mapping.anonymous and backing_of(mapping) is None:
        return "a mapping of a file"
    if mapping.path in _ALLOCATORS:
        return _ALLOCATORS[mapping.path]
    if mapping.permissions[0] != "r":
        return "not readable"
    if has_key:
        return "under a protection key"
    if not mapping.flags:
        return "of unknown flags: the kernel tells no VmFlags"
    return ", ".join(sorted({_WHY.get(flag, f"VmFlags {flag}") for flag in mapping.flags - _HARMLESS}))
