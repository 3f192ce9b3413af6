"""Base relocations of PE, by NumPy: a large DLL has a million.

The rules are those of "The .reloc Section" in Microsoft's "PE Format"; bases differ by multiples of 64 KiB.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from pagedup.guests.images.error import ImageError
from pagedup.guests.images.fixups import Fixups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.guests.images.mapping import Mapping

_BLOCK = struct.Struct("<II")  # the page's address in the image, and the block's size with this header
_ABSOLUTE, _HIGH, _LOW, _HIGHLOW, _HIGHADJ, _DIR64 = 0, 1, 2, 3, 4, 10
# LOW adds the low half of the difference between two bases, which is 0. HIGHADJ adds the high half and what the low
# halves carry, which is nothing: it is as HIGH, but for the parameter in the entry behind it.
_NOTHING = (_ABSOLUTE, _LOW)
_SIZE = {_HIGH: 2, _LOW: 2, _HIGHLOW: 4, _HIGHADJ: 2, _DIR64: 8}
_SHIFT = {_HIGH: 16, _HIGHADJ: 16}


def read_relocations(
    mapping: Mapping, at: int, size: int, machine: int, header: int | None, header_size: int, grain: int
) -> Fixups:
    """The fixups of an image whose relocation directory is `size` bytes `at` an address of it.

    `header` is where the image itself holds its base, in `header_size` bytes, if the loader moves that, too.
    """
    name = mapping.file.content.name
    data = mapping.read(at, size, "the relocation directory") if size else b""
    places, kinds = _entries(name, at, data)
    known = np.isin(kinds, [*_NOTHING, *_SIZE])
    if not known.all():
        which = int(np.flatnonzero(~known)[0])
        raise ImageError(
            f"{name}: the relocation of address {places[which]:#x} of the image is of type {kinds[which]}, which is not"
            f" known for machine {machine:#x}"
        )
    chosen = ~np.isin(kinds, _NOTHING)
    places, kinds = places[chosen], kinds[chosen]
    sizes, shifts = np.zeros(16, np.uint8), np.zeros(16, np.uint8)
    sizes[list(_SIZE)], shifts[list(_SHIFT)] = list(_SIZE.values()), list(_SHIFT.values())
    size_of, shift_of = sizes[kinds], shifts[kinds]
    if header is not None:
        places, size_of, shift_of = np.append(places, header), np.append(size_of, header_size), np.append(shift_of, 0)
    if (beyond := places + size_of > mapping.size).any():
        raise ImageError(
            f"{name}: the relocation of address {places[int(beyond.argmax())]:#x} of the image is beyond its end"
            f" {mapping.size:#x}"
        )
    n = len(places)
    sizes, shifts = size_of.astype(np.uint8), shift_of.astype(np.uint8)
    return Fixups(places, sizes, shifts, np.zeros(n, np.uint64), np.zeros(n, np.bool_), grain)


def _entries(name: str, at: int, data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Address in the image and type of each relocation, without the parameters of HIGHADJ."""
    starts, bases, counts = [], [], []
    done = 0
    while done < len(data):
        if len(data) - done < _BLOCK.size:
            raise ImageError(
                f"{name}: the relocation block at address {at + done:#x} of the image is cut off: {len(data) - done}"
                " bytes are left of the directory"
            )
        base, size = _BLOCK.unpack_from(data, done)
        if size < _BLOCK.size or size % 2 or size > len(data) - done:
            raise ImageError(
                f"{name}: SizeOfBlock at address {at + done + 4:#x} of the image is {size:#x}; it must be even, at"
                f" least 8, and not beyond the directory's end {at + len(data):#x}"
            )
        starts.append((done + _BLOCK.size) // 2)
        bases.append(base)
        counts.append((size - _BLOCK.size) // 2)
        done += size
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2")
    chosen = np.zeros(len(words) + 1, np.int8)  # +1 where a block's entries begin, -1 where they end
    np.add.at(chosen, np.array(starts, np.int64), 1)
    np.add.at(chosen, np.array(starts, np.int64) + np.array(counts, np.int64), -1)
    entries = words[np.cumsum(chosen[:-1], dtype=np.int8).view(np.bool_)].astype(np.int64)
    places = np.repeat(np.array(bases, np.int64), counts) + (entries & 0xFFF)
    kinds = entries >> 12
    if (kinds == _HIGHADJ).any():
        ends = np.cumsum(counts)
        keep = _without_parameters(name, kinds, ends)
        places, kinds = places[keep], kinds[keep]
    return places, kinds


def _without_parameters(name: str, kinds: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    keep = np.ones(len(kinds), np.bool_)
    block_end = set(ends.tolist())
    for number in np.flatnonzero(kinds == _HIGHADJ).tolist():
        if not keep[number]:
            continue  # it is the parameter of the one before it
        if number + 1 in block_end:
            raise ImageError(f"{name}: relocation {number} is of type HIGHADJ, but its parameter is missing")
        keep[number + 1] = False
    return keep
