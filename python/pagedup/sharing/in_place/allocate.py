"""Memory that can be shared in place."""

from __future__ import annotations

import mmap
import operator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def allocate(nbytes: int) -> NDArray[np.uint8]:
    """`nbytes` zero bytes for `share_in_place`: private anonymous memory, from the beginning of a page on.

    No page takes memory before it is written. Freed with the last array on it. Raises ValueError unless nbytes is 1 or
    more, and OSError when the kernel has no room for it.
    """
    size = operator.index(nbytes)
    if size < 1:
        raise ValueError(f"nbytes is {size}; it must be 1 or more")
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
