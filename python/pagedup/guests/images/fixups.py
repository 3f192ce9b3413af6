"""The fields of an image that hold addresses of its own, and how the loader moves them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """Fields of one size and shift that overlap no other; of these `stored` get a `value`."""

    size: int
    shift: int
    at: NDArray[np.int64]
    stored: NDArray[np.int64]
    value: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Fixups:
    """Fields, one item each, in the order in which the loader writes them.

    `at` int64: the field's first byte in the image; `size` uint8: its bytes, 2, 4 or 8; `shift` uint8: how many low
    bits of an address it leaves out (16 for the upper half of one, else 0). `value` uint64: what the loader stores at
    the preferred base where `stores` bool is true; elsewhere it adds to what the file has. Numbers are in the byte
    `order`. Bases differ by multiples of 2 ** `grain`. `overlap` bool: the field shares bytes with another one, which
    no linker makes, but a loader takes.
    """

    at: NDArray[np.int64]
    size: NDArray[np.uint8]
    shift: NDArray[np.uint8]
    value: NDArray[np.uint64]
    stores: NDArray[np.bool_]
    grain: int
    order: Literal["<", ">"] = "<"
    overlap: NDArray[np.bool_] = field(init=False)
    _apart: list[_Kind] = field(init=False)

    def __post_init__(self) -> None:
        # Once, since an image is relocated again and again.
        apart: list[_Kind] = []
        overlap = self._overlapping() if len(self.at) else np.zeros(0, np.bool_)
        for size, shift in self.kinds() if len(self.at) else ():
            chosen = ~overlap & (self.size == size) & (self.shift == shift)
            stored = chosen & self.stores
            apart.append(_Kind(size, shift, self.at[chosen], self.at[stored], self.value[stored]))
        object.__setattr__(self, "overlap", overlap)
        object.__setattr__(self, "_apart", apart)

    @classmethod
    def none(cls, grain: int) -> Fixups:
        """Of an image that needs none."""
        return cls.adding(np.empty(0, np.int64), 4, grain)

    @classmethod
    def adding(cls, at: NDArray[np.int64], size: int, grain: int, order: Literal["<", ">"] = "<") -> Fixups:
        """Whole addresses of one size, to which the loader adds."""
        n = len(at)
        return cls(
            at,
            np.full(n, size, np.uint8),
            np.zeros(n, np.uint8),
            np.zeros(n, np.uint64),
            np.zeros(n, np.bool_),
            grain,
            order,
        )

    def __len__(self) -> int:
        return len(self.at)

    def changing(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last byte that another base may change: the lowest bits of an address are the same at every one."""
        still = np.where(self.shift > 0, 0, self.grain // 8).astype(np.int64)
        end = self.at + self.size
        return (self.at + still, end - 1) if self.order == "<" else (self.at, end - 1 - still)

    def pages(self, n_pages: int) -> NDArray[np.bool_]:
        """Which pages of the image another base changes."""
        changed = np.zeros(n_pages, np.bool_)
        for byte in self.changing():
            changed[byte // PAGE] = True
        return changed

    def apply(self, image: NDArray[np.uint8], delta: int) -> None:
        """Make of the file's bytes what the loader makes `delta` (modulo 2 ** 64) above the preferred base."""
        for kind in self._apart:
            numbers = self._fields(image, kind.size)
            if len(kind.stored):
                numbers[kind.stored] = kind.value.astype(numbers.dtype)
            if delta:
                numbers[kind.at] += numbers.dtype.type((delta >> kind.shift) & ((1 << 8 * kind.size) - 1))
        for number in np.flatnonzero(self.overlap).tolist():
            size = int(self.size[number])
            place = self._fields(image, size)[self.at[number] :][:1]
            before = int(self.value[number]) if self.stores[number] else int(place[0])
            place[0] = (before + (delta >> int(self.shift[number]))) & ((1 << 8 * size) - 1)

    def values(self, image: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """What the fields hold in an image, as addresses: uint64, without the bits that they leave out."""
        found = np.empty(len(self), np.uint64)
        for size, shift in self.kinds():
            chosen = (self.size == size) & (self.shift == shift)
            found[chosen] = self._fields(image, size)[self.at[chosen]].astype(np.uint64) << np.uint64(shift)
        return found

    def kinds(self) -> list[tuple[int, int]]:
        """Sizes and shifts that there are."""
        together = np.unique(self.size.astype(np.int64) << 8 | self.shift)
        return [(kind >> 8, kind & 0xFF) for kind in together.tolist()]

    def _overlapping(self) -> NDArray[np.bool_]:
        order = np.argsort(self.at, kind="stable")
        start, end = self.at[order], (self.at + self.size)[order]
        # The furthest end so far, since fields have several sizes.
        meets = np.zeros(len(order) + 1, np.bool_)
        meets[1:-1] = start[1:] < np.maximum.accumulate(end)[:-1]
        found = np.empty(len(order), np.bool_)
        found[order] = meets[:-1] | meets[1:]
        return found

    def _fields(self, image: NDArray[np.uint8], size: int) -> NDArray[np.unsignedinteger]:
        """A number at each byte of the image."""
        return np.ndarray((len(image) - size + 1,), np.dtype(f"{self.order}u{size}"), image, strides=(1,))
