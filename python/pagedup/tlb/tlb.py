"""A TLB over memory of small and large pages: addresses in, hits, misses, references and cycles out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from pagedup.tlb.geometry import PAGE_SIZES, Geometry
from pagedup.tlb.translations import Translations, translations

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_RANGE = 1 << 21
_MOST_MEMORY = 1 << 48


class Tlb:
    """The TLBs, page-walk caches and data caches of one core, over `memory` bytes from address 0; empty at first.

    memory: bytes, a multiple of 2 MiB, up to 2**48. page_size: 4096, 2**21 or 2**30, or an array of these, one for
    each 2 MiB of memory; a page of 1 GiB is 512 of them, aligned. host_page_size: the same of the host's pages under
    a guest's, or None: no host, and walks are native. table_page_size: of the host's pages under the guest's page
    tables. data: whether what is accessed, and page table entries, go through data caches; without, each page table
    entry counts as found in memory. Threads take turns.

    Raises ValueError that names the argument.
    """

    def __init__(
        self,
        geometry: Geometry,
        memory: int,
        page_size: int | ArrayLike = 4096,
        *,
        host_page_size: int | ArrayLike | None = None,
        table_page_size: int = 4096,
        data: bool = True,
    ) -> None:
        if not 0 < memory <= _MOST_MEMORY or memory % _RANGE:
            raise ValueError(f"memory is {memory}; it must be a multiple of 2 MiB, up to 2**48")
        self.geometry = geometry
        self.memory = memory
        self._tlb = geometry.tlb(data=data)
        self._turns = threading.Lock()  # so that what is counted in access is its own
        self.remap(page_size, host_page_size=host_page_size, table_page_size=table_page_size)

    def remap(
        self, page_size: int | ArrayLike, *, host_page_size: int | ArrayLike | None = None, table_page_size: int = 4096
    ) -> None:
        """Give the memory pages of other sizes. All caches are empty then, as after a flush."""
        own = self._classes("page_size", page_size)
        host = None if host_page_size is None else self._classes("host_page_size", host_page_size)
        if table_page_size not in PAGE_SIZES:
            raise ValueError(f"table_page_size is {table_page_size}; it must be {_SIZES}")
        self._tlb.map(own, host, PAGE_SIZES.index(table_page_size))

    def access(self, addresses: NDArray[np.uint64]) -> Translations:
        """Access bytes at these addresses, uint64 (n,), in order; how each translation was found.

        Raises ValueError for another dtype, and for an address beyond the memory: then nothing was accessed.
        """
        if not isinstance(addresses, np.ndarray) or addresses.dtype != np.uint64 or addresses.ndim != 1:
            given = (
                f"an array of {addresses.dtype} with {addresses.ndim} dimensions"
                if isinstance(addresses, np.ndarray)
                else f"a {type(addresses).__name__}"
            )
            raise ValueError(f"addresses is {given}; it must be a uint64 array (n,) of bytes")
        if addresses.size and int(addresses.max()) >= self.memory:
            at = int(np.argmax(addresses >= np.uint64(self.memory)))
            raise ValueError(f"addresses[{at}] is {addresses[at]}; the memory has {self.memory} bytes")
        with self._turns:
            before = self._tlb.count()
            self._tlb.access(np.ascontiguousarray(addresses))
            return translations(self._tlb.count(), before, self.geometry)

    def _classes(self, what: str, sizes: int | ArrayLike) -> NDArray[np.uint8]:
        """Of each 2 MiB, the number of its page size."""
        n = self.memory // _RANGE
        given: NDArray[Any] = np.asarray(sizes)
        if given.ndim == 0:
            given = np.broadcast_to(given, (n,))
        if given.shape != (n,):
            raise ValueError(f"{what} has the shape {given.shape}; it must be ({n},), one for each 2 MiB")
        classes = np.full(n, len(PAGE_SIZES), np.uint8)
        for number, size in enumerate(PAGE_SIZES):
            classes[given == size] = number
        wrong = classes == len(PAGE_SIZES)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(f"{what}[{at}] is {given[at]}; it must be {_SIZES}")
        _require_whole(what, classes == PAGE_SIZES.index(1 << 30))
        return classes


_SIZES = "4096, 2097152 or 1073741824"
_PER_GIB = 512


def _require_whole(what: str, is_gib: NDArray[np.bool_]) -> None:
    padded = np.zeros(-(-len(is_gib) // _PER_GIB) * _PER_GIB, np.bool_)
    padded[: len(is_gib)] = is_gib
    each = padded.reshape(-1, _PER_GIB)
    part = each.any(axis=1) & ~each.all(axis=1)
    if part.any():
        first = int(np.argmax(part)) * _PER_GIB
        raise ValueError(f"{what}[{first}:{first + _PER_GIB}] is 1 GiB in parts; a page of 1 GiB takes all 512 of them")
