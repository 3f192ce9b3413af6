"""What the caller hands in: arrays, checked, as ranges of addresses; and how long their memory lives."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Range = tuple[int, int]
    """Start <= address < end."""


def checked(arrays: Iterable[NDArray[Any]]) -> list[NDArray[Any]]:
    """The arrays, each one block of memory. Raises TypeError and ValueError in one line."""
    if isinstance(arrays, np.ndarray) or not isinstance(arrays, Iterable):
        raise TypeError(f"arrays is one {type(arrays).__name__}; give a list of NumPy arrays, such as [array]")
    found = list(arrays)
    for i, array in enumerate(found):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"array {i} is a {type(array).__name__}; it must be a NumPy array")
        if not array.flags.forc:
            raise ValueError(f"array {i} is not contiguous; give the array that it is a part of, or contiguous parts")
    return found


def ranges(arrays: Iterable[NDArray[Any]]) -> list[Range]:
    """The memory of the arrays, ascending, without overlaps; what touches is joined."""
    joined: list[Range] = []
    for start, end in sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays if array.nbytes):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def whole_pages(memory: Iterable[Range], page: int) -> tuple[list[Range], int]:
    """The whole pages in these ranges, and the bytes beside them."""
    pages = []
    beside = 0
    for start, end in memory:
        first, last = -(-start // page) * page, end // page * page
        if first < last:
            pages.append((first, last))
        beside += end - start - max(0, last - first)
    return pages, beside


def owner(array: NDArray[Any]) -> object:
    """What keeps the memory of the array, as far as can be told: the last of its bases that allows weak references."""
    last: object = array
    found: object = array
    while (found := found.obj if isinstance(found, memoryview) else getattr(found, "base", None)) is not None:
        try:
            weakref.ref(found)
        except TypeError:
            continue
        last = found
    return last
