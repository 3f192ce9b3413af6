"""LiME dumps: ranges of physical memory, each behind a header that says where it lay.

The form is that of LiME's module and of AVML without compression (LiME's doc/README.md, "LiME Format"; AVML's
src/image.rs): 32 bytes in little-endian order, then the bytes of the range, then the next header.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import NamedTuple

from pagedup.memory.dumps.image_file import ImageFile
from pagedup.memory.dumps.mapped_source import MappedSource

LIME_MAGIC = 0x4C694D45
_HEADER = struct.Struct("<IIQQ8x")  # magic, version, s_addr, e_addr (of the last byte), reserved
_VERSION = 1


def lime_header(address: int, size: int) -> bytes:
    """What stands before a range of `size` bytes, at least 1, that lay at `address`."""
    return _HEADER.pack(LIME_MAGIC, _VERSION, address, address + size - 1)


class LimeSource(MappedSource):
    """The ranges of a LiME dump, by physical address."""

    kind = "lime"

    def __init__(self, name: str, file: ImageFile, frame_size: int) -> None:
        super().__init__(name, file, frame_size)
        ranges = sorted(_read_ranges(file))
        for one, other in pairwise(ranges):
            if one.last >= other.first:
                raise OSError(
                    f"{file.path}: the ranges of the headers at offsets {one.header:#x} and {other.header:#x} overlap:"
                    f" e_addr {one.last:#x} is not below s_addr {other.first:#x}"
                )
        for item in ranges:
            self._add(item.first, item.header + _HEADER.size, item.last + 1 - item.first)


class _Range(NamedTuple):
    first: int
    last: int
    header: int  # the offset of its header in the file


def _read_ranges(file: ImageFile) -> list[_Range]:
    ranges = []
    at = 0
    while at < file.size:
        magic, version, first, last = _HEADER.unpack(file.read(at, _HEADER.size, "a LiME header"))
        if magic != LIME_MAGIC:
            raise OSError(
                f"{file.path}: magic at offset {at:#x} is {magic:#010x}; where a range ends, the next LiME header"
                f" begins with {LIME_MAGIC:#x}"
            )
        if version != _VERSION:
            raise OSError(f"{file.path}: version at offset {at + 4:#x} is {version}; only LiME version 1 is known")
        if last < first:
            raise OSError(
                f"{file.path}: e_addr at offset {at + 16:#x} is {last:#x}, below s_addr {first:#x}; it must be the"
                " address of the last byte"
            )
        size = last + 1 - first
        left = file.size - at - _HEADER.size
        if size > left:
            raise OSError(
                f"{file.path}: e_addr at offset {at + 16:#x} makes a range of {size:,} bytes, but the file ends after"
                f" {left:,} of them ({size - left:,} bytes are missing; truncated?)"
            )
        ranges.append(_Range(first, last, at))
        at += _HEADER.size + size
    return ranges
