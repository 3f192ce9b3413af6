"""Writing LiME dumps, whose ranges tell absent memory from zero bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pagedup.memory.dumps.lime import lime_header
from pagedup.memory.whole_file import whole_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def write_lime(path: str, ranges: Iterable[tuple[int, NDArray[np.uint8]]]) -> None:
    """Write contiguous ranges of memory, each with its address, ascending, to `path`; all, or with OSError nothing."""
    with whole_file(path) as file:
        for address, data in ranges:
            file.write(lime_header(address, data.nbytes))
            file.write(data.data)
