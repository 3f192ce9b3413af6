"""Pages compressed and uncompressed in batches, on several threads."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

import dedupcore
from pagedup.memory.batch import as_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEVEL = 1  # the fastest: the pages are half a frame, however far below that it gets
_LEAST = 1 << 18  # bytes a thread, so that it is worth starting one


def compress(pages: NDArray[np.uint8]) -> list[bytes]:
    """Each page as a zlib stream, in order."""
    n, size = pages.shape
    view = as_bytes(pages).data

    def some(begin: int, end: int) -> list[bytes]:
        return [zlib.compress(view[at : at + size], _LEVEL) for at in range(begin * size, end * size, size)]

    return [each for part in _in_parts(some, n, size) for each in part]


def uncompress(
    rows: NDArray[np.uint8], which: NDArray[np.uint32], sizes: NDArray[np.uint32], out: NDArray[Any]
) -> list[int]:
    """out[i] becomes the page whose stream is the first sizes[i] bytes of rows[which[i]].

    Returns those i of which that is not what `compress` made, as its own checksum (Adler-32) tells: they become zero.
    """
    n, size = out.shape
    view, into = as_bytes(rows).data, as_bytes(out).data
    begins = which.astype(np.int64) * rows.shape[1]
    places = list(zip(begins.tolist(), (begins + sizes).tolist(), strict=True))

    def some(begin: int, end: int) -> list[int]:
        broken = []
        for i in range(begin, end):
            page = _page(view[slice(*places[i])], size)
            if page is None:
                broken.append(i)
            into[i * size : (i + 1) * size] = page or bytes(size)
        return broken

    return [each for part in _in_parts(some, n, size) for each in part]


def _page(stream: memoryview, size: int) -> bytes | None:
    try:
        page = zlib.decompress(stream, bufsize=size)
    except zlib.error:
        return None
    return page if len(page) == size else None


def _in_parts(work: Callable[[int, int], Any], n: int, size: int) -> list[Any]:
    """Do the work for items 0 to n - 1, of so many bytes each, in as many parts as there are threads for."""
    parts = max(1, min(dedupcore.available_threads(), n * size // _LEAST))
    edges = [n * i // parts for i in range(parts + 1)]
    if parts == 1:
        return [work(0, n)]
    with ThreadPoolExecutor(parts - 1) as pool:
        others = [pool.submit(work, *edge) for edge in itertools.pairwise(edges[1:])]
        first = work(edges[0], edges[1])
        return [first, *(other.result() for other in others)]
