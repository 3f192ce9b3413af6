"""The import address table of PE: where the loader writes addresses of other images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.guests.images.error import ImageError
from pagedup.guests.images.mapping import MOST_NAMES, pages_of
from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.guests.images.mapping import Mapping

_DESCRIPTOR = 20  # bytes: OriginalFirstThunk, TimeDateStamp, ForwarderChain, Name, FirstThunk


def read_imports(mapping: Mapping, at: int, size: int, thunk: int) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Pages (n_pages,) bool with import address tables of `thunk` bytes an entry, and the names of the DLLs.

    The directory's size is not asked, as no loader does: an empty descriptor ends it. Tables for delayed loading are
    not the loader's to write, but the program's at the first call.
    """
    mask = np.zeros(mapping.size // PAGE, np.bool_)
    names: list[str] = []
    end = mapping.size
    followed: set[int] = set()  # descriptors may repeat a table
    left = end // thunk  # entries, as no two tables share one; else a few bytes could be followed for hours
    while size:
        if len(names) == MOST_NAMES:
            raise ImageError(f"{mapping.file.content.name}: the import directory at address {at:#x} has no end")
        what = f"import descriptor {len(names)}"
        fields = np.frombuffer(mapping.read(at, _DESCRIPTOR, what), "<u4").tolist()
        lookup, _, _, name, table = fields
        if not name or not table:
            break
        names.append(mapping.text(name, f"Name of {what}"))
        if table not in followed:
            # Of a bound image only the lookup table is sure to hold what is to be found.
            count = _count(mapping, lookup or table, end, thunk, what)
            followed.add(table)
            if (left := left - count) < 0:
                raise ImageError(f"{mapping.file.content.name}: the table of {what} overlaps those before it")
            if table + count * thunk > end:
                raise ImageError(
                    f"{mapping.file.content.name}: FirstThunk {table:#x} of {what} with {count:,} entries is beyond the"
                    f" image's end {end:#x}"
                )
            mask |= pages_of(table + thunk * np.arange(count), len(mask), thunk)
        at += _DESCRIPTOR
    return mask, tuple(names)


def _count(mapping: Mapping, at: int, end: int, thunk: int, what: str) -> int:
    """Entries of a table up to the empty one that ends it."""
    count, room = 0, 256
    while True:
        size = min(room * thunk, (end - at) // thunk * thunk)
        if size <= 0:
            raise ImageError(f"{mapping.file.content.name}: the table of {what} at address {at:#x} has no end")
        entries = np.frombuffer(mapping.read(at, size, f"the table of {what}"), f"<u{thunk}")
        (empty,) = np.nonzero(entries == 0)
        if len(empty):
            return count + int(empty[0])
        count, at, room = count + len(entries), at + size, room * 2
