"""The dynamic section of ELF: what the loader writes where, and which other images that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pagedup.guests.images.error import ImageError
from pagedup.guests.images.fixups import Fixups
from pagedup.guests.images.mapping import MOST_NAMES, pages_of
from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.guests.images.mapping import Mapping


@dataclass(frozen=True, slots=True)
class Machine:
    """Its name, and the number of its relocation R_*_RELATIVE (in its ABI's supplement, and in <elf.h>)."""

    name: str
    relative: int


MACHINES = {  # by e_machine; MIPS is not here: its loader relocates a GOT that no table lists
    3: Machine("x86", 8),
    20: Machine("ppc", 22),
    21: Machine("ppc64", 22),
    22: Machine("s390x", 12),
    40: Machine("arm", 23),
    43: Machine("sparc64", 22),
    62: Machine("x86-64", 8),
    183: Machine("aarch64", 1027),
    243: Machine("riscv", 3),
    258: Machine("loongarch", 3),
}
_NULL, _NEEDED, _PLTRELSZ, _STRTAB, _RELA, _RELASZ, _RELAENT = 0, 1, 2, 5, 7, 8, 9
_REL, _RELSZ, _RELENT, _PLTREL, _JMPREL, _RELRSZ, _RELR, _RELRENT = 17, 18, 19, 20, 23, 35, 36, 37
_ANDROID = {0x6000000F: "DT_ANDROID_REL", 0x60000011: "DT_ANDROID_RELA"}  # packed
_NONE = 0  # R_*_NONE, of any machine
_GRAIN = 12  # bits: bases are multiples of a page


@dataclass(frozen=True, slots=True, eq=False)
class Linked:
    """Fields that hold addresses of the image, pages with others, and what the image needs."""

    fixups: Fixups
    imports: NDArray[np.bool_]
    needed: tuple[str, ...]


def read_dynamic(
    mapping: Mapping, base: int, place: tuple[int, int] | None, machine: Machine, bits: int, order: Literal["<", ">"]
) -> Linked:
    """What the dynamic section says, which is at (address, size); None for an image without one, linked statically."""
    return _Dynamic(mapping, base, machine, bits, order).read(place)


class _Dynamic:
    def __init__(self, mapping: Mapping, base: int, machine: Machine, bits: int, order: Literal["<", ">"]) -> None:
        self.mapping = mapping
        self.name = mapping.file.content.name
        self.base = base
        self.machine = machine
        self.word = bits // 8
        self.order = order
        self.tags: dict[int, int] = {}

    def read(self, place: tuple[int, int] | None) -> Linked:
        imports = np.zeros(self.mapping.size // PAGE, np.bool_)
        if place is None:
            return Linked(Fixups.none(_GRAIN), imports, ())
        address, size = place
        entries = self._words(address, size - size % (2 * self.word), "the dynamic section (PT_DYNAMIC)").reshape(-1, 2)
        (ends,) = np.nonzero(entries[:, 0] == _NULL)
        entries = entries[: ends[0] if len(ends) else None]
        self.tags = dict(zip(entries[:, 0].tolist(), entries[:, 1].tolist(), strict=True))
        for packed in _ANDROID.keys() & self.tags:
            raise ImageError(f"{self.name}: {_ANDROID[packed]} in the dynamic section is not known here")
        strings = self.tags.get(_STRTAB, 0)
        names = entries[entries[:, 0] == _NEEDED, 1].tolist()
        if len(names) > MOST_NAMES:
            raise ImageError(f"{self.name}: the dynamic section at address {address:#x} has {len(names):,} DT_NEEDED")
        needed = tuple(self.mapping.text(self._inside(strings + at, 1, "DT_NEEDED"), "DT_NEEDED") for at in names)
        at, value, stores = [], [], []
        for table, size, entry_size, explicit in self._tables():
            offset, info, addend = self._relocations(table, size, entry_size, explicit)
            relative = info == self.machine.relative
            others = self._fields(offset[(info != _NONE) & ~relative])
            imports |= pages_of(others, len(imports), self.word)
            at.append(self._fields(offset[relative]))
            value.append(addend[relative])
            stores.append(np.full(len(at[-1]), explicit, np.bool_))
        relr = self._relr()
        at.append(relr)
        value.append(np.zeros(len(relr), np.uint64))
        stores.append(np.zeros(len(relr), np.bool_))
        places = np.concatenate(at)
        n = len(places)
        fixups = Fixups(
            places,
            np.full(n, self.word, np.uint8),
            np.zeros(n, np.uint8),
            np.concatenate(value),
            np.concatenate(stores),
            _GRAIN,
            self.order,
        )
        return Linked(fixups, imports, needed)

    def _tables(self) -> list[tuple[int, int, int, bool]]:
        """Address, size, size of an entry, and whether it has an addend, of each table of relocations."""
        tags, found = self.tags, []
        for table, size, entry, explicit in ((_REL, _RELSZ, _RELENT, False), (_RELA, _RELASZ, _RELAENT, True)):
            width = (3 if explicit else 2) * self.word
            if tags.get(table) and tags.get(size):
                if tags.get(entry, width) != width:
                    raise ImageError(
                        f"{self.name}: DT_REL{'A' * explicit}ENT in the dynamic section is {tags[entry]}; it must be"
                        f" {width}"
                    )
                found.append((tags[table], tags[size], width, explicit))
        at, size = tags.get(_JMPREL, 0), tags.get(_PLTRELSZ, 0)
        # On some machines the other table has it, too.
        if at and size and not any(table <= at < table + length for table, length, _, _ in found):
            explicit = tags.get(_PLTREL) == _RELA
            found.append((at, size, (3 if explicit else 2) * self.word, explicit))
        return found

    def _relocations(
        self, at: int, size: int, entry_size: int, explicit: bool
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
        """Address, type and addend of each."""
        if size % entry_size:
            raise ImageError(
                f"{self.name}: the relocation table at address {at:#x} has {size:#x} bytes, which are no whole entries"
                f" of {entry_size}"
            )
        table = self._words(at, size, "the relocation table").reshape(-1, 3 if explicit else 2)
        kinds = table[:, 1] & np.uint64(0xFF if self.word == 4 else 0xFFFFFFFF)
        return table[:, 0], kinds, table[:, 2] if explicit else np.zeros(len(table), np.uint64)

    def _relr(self) -> NDArray[np.int64]:
        """Bytes of the image that hold fields which DT_RELR lists: an address, or bits for the words behind it."""
        at, size = self.tags.get(_RELR, 0), self.tags.get(_RELRSZ, 0)
        if not at or not size:
            return np.empty(0, np.int64)
        if self.tags.get(_RELRENT, self.word) != self.word or size % self.word:
            raise ImageError(f"{self.name}: DT_RELRENT or DT_RELRSZ {size:#x} is not of words of {self.word} bytes")
        words = self._words(at, size, "DT_RELR")
        even = words & np.uint64(1) == 0
        if not even[0]:
            raise ImageError(f"{self.name}: DT_RELR at address {at:#x} begins with bits, {words[0]:#x}, not an address")
        bits = 8 * self.word - 1
        maps = np.flatnonzero(~even)
        flags = np.unpackbits(words[maps].astype(f"<u{self.word}").view(np.uint8), bitorder="little")
        flags = flags.reshape(-1, bits + 1)[:, 1:]
        if np.count_nonzero(even) + np.count_nonzero(flags) > self.mapping.size // self.word:
            raise ImageError(f"{self.name}: DT_RELR at address {at:#x} lists more words than the image has")
        # The address that a word of bits goes on from: the last one given, and what the words between them cover.
        last = np.maximum.accumulate(np.where(even, np.arange(len(words)), 0))
        number, bit = np.nonzero(flags)
        which = maps[number]
        start = self._fields(words[last[which]])
        behind = start + (1 + (which - last[which] - 1) * bits + bit) * self.word
        places = np.concatenate([self._fields(words[even]), behind])
        if len(places) and int(places.max()) + self.word > self.mapping.size:
            raise ImageError(f"{self.name}: DT_RELR at address {at:#x} lists a word beyond the image's end")
        return places

    def _fields(self, address: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Bytes of the image at these addresses, each a field's first. Raises ImageError if one is outside."""
        at = address - np.uint64(self.base)  # wraps for one below it
        if (outside := at > np.uint64(self.mapping.size - self.word)).any():
            raise ImageError(
                f"{self.name}: the relocation of address {address[int(outside.argmax())]:#x} is not within the image's"
                f" {self.mapping.size:,} bytes at {self.base:#x}"
            )
        return at.astype(np.int64)

    def _words(self, address: int, size: int, what: str) -> NDArray[np.uint64]:
        """Numbers at an address of the image."""
        data = self.mapping.read(self._inside(address, size, what), size, what)
        return np.frombuffer(data, f"{self.order}u{self.word}").astype(np.uint64)

    def _inside(self, address: int, size: int, what: str) -> int:
        at = address - self.base
        if at < 0 or at + size > self.mapping.size:
            raise ImageError(
                f"{self.name}: {what} takes {size:,} bytes at address {address:#x}, which are not within the image's"
                f" {self.mapping.size:,} at {self.base:#x}"
            )
        return at
