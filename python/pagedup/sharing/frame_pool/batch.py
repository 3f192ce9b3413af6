"""The arguments of a batch, as the engine takes them; what does not fit is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

NAME = 8
"""Bytes of a frame that holds a content name."""


def whole_numbers(what: str, numbers: ArrayLike, limit: int, of: str) -> NDArray[np.uint32]:
    """One-dimensional integers from 0 to below `limit`, as contiguous uint32; `of`: what there are so many of."""
    given = np.asarray(numbers)
    if given.ndim != 1:
        raise ValueError(f"{what} has {given.ndim} dimensions; it must have one")
    if not given.size:
        return np.empty(0, np.uint32)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{what} has the dtype {given.dtype}; it must be of integers")
    if int(given.max()) >= limit or int(given.min()) < 0:
        at = int(np.argmax((given < 0) | (given >= limit)))
        numbered = f", 0 to {limit - 1:,}" if limit else ""
        raise ValueError(f"{what}[{at}] is {given[at]}; there are {limit:,} {of}{numbered}")
    return np.ascontiguousarray(given, np.uint32)


def frames(what: str, array: Any, n: int, frame_size: int, each: str = "gpn") -> NDArray[Any]:
    """The array itself, if it holds n frames, one for each of those: uint8 (n, frame_size), of names uint64 (n,)."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{what} is a {type(array).__name__}; it must be a NumPy array")
    names = " or uint64 (n,)" if frame_size == NAME else ""
    right = f"uint8 (n, {frame_size}){names} with n = {n}, one frame a {each}"
    if array.dtype == np.uint8 or (array.dtype == np.uint64 and names):
        if array.shape != ((n, frame_size) if array.dtype == np.uint8 else (n,)):
            raise ValueError(f"{what} has the shape {array.shape}; it must be {right}")
        return array
    raise TypeError(f"{what} has the dtype {array.dtype}; it must be {right}")


def flags(what: str, array: Any, n: int, each: str) -> NDArray[np.uint8]:
    """A bool or uint8 array of n items, one for each of those, as contiguous uint8."""
    if not isinstance(array, np.ndarray) or array.dtype not in (np.bool_, np.uint8):
        kind = f"of the dtype {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        raise TypeError(f"{what} is {kind}; it must be a bool ndarray ({n},), one item a {each}")
    if array.shape != (n,):
        raise ValueError(f"{what} has the shape {array.shape}; it must be ({n},), one item a {each}")
    return np.ascontiguousarray(array).view(np.uint8)


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a contiguous array, one-dimensional."""
    return array.reshape(-1).view(np.uint8)
