"""Bytes for names: layouts as memory that can be read, scanned and compared."""

from __future__ import annotations

import contextlib
import mmap
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.memory.layouts import ABSENT, PAGE, NameKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.layouts import Layout

_AT_ONCE = 1 << 14  # pages: 64 MiB, which bounds the memory of the steps between


class Texture(StrEnum):
    """What the bytes of made-up pages look like; in each of them equal names, and only these, have equal bytes."""

    NOISE = "noise"
    """Random bytes."""
    SPARSE = "sparse"
    """Zero but for one word of 8 bytes."""
    ONE_BYTE = "one-byte"
    """Names that agree but for their lowest 8 bits differ in a single byte, somewhere."""
    PREFIX = "prefix"
    """All pages agree but for their last 8 bytes."""
    MIXED = "mixed"
    """Three quarters noise, the rest of the other kinds."""


_NUMBERS = {
    Texture.NOISE: dedupcore.NOISE,
    Texture.SPARSE: dedupcore.SPARSE,
    Texture.ONE_BYTE: dedupcore.ONE_BYTE,
    Texture.PREFIX: dedupcore.PREFIX,
    Texture.MIXED: dedupcore.MIXED,
}


def materialize(
    layout: Layout, out: NDArray[np.uint8] | None = None, *, texture: Texture | str = Texture.MIXED
) -> NDArray[np.uint8]:
    """The bytes of a layout's pages: uint8 ndarray (n_pages, 4096), in memory of its own, or in `out`.

    Equal names give equal bytes and different names different ones, by construction; name 0 gives zero bytes. Absent
    pages have no bytes: in new memory they stay untouched, and in `out` as they are. Deterministic on any machine. The
    GIL is released. Pages of real files have the bytes of these. ValueError for an `out` of another shape or type, a
    texture that there is none of, and a layout that was saved and has pages of real files.
    """
    number = _NUMBERS[Texture(texture)]
    shape = (layout.n_pages, PAGE)
    if out is None:
        out = _room(layout.n_pages)
    if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out is {out.dtype} {out.shape}; it must be writeable, contiguous uint8 {shape}")
    real = np.isin(layout.names >> np.uint64(60), (NameKind.REAL, NameKind.MOVED))
    if real.any() and layout.content is None:
        raise ValueError(f"{layout.name}: holds pages of real files, whose bytes only the generated layout knows")
    for begin in range(0, layout.n_pages, _AT_ONCE):
        _fill(layout.names[begin : begin + _AT_ONCE], out[begin : begin + _AT_ONCE], number)
    if layout.content is not None:
        layout.content.fill(layout.names, out)
    return out


def _fill(names: NDArray[np.uint64], out: NDArray[np.uint8], texture: int) -> None:
    present = names != np.uint64(ABSENT)
    edges = np.flatnonzero(np.diff(present, prepend=False, append=False)).tolist()
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        dedupcore.materialize(np.ascontiguousarray(names[begin:end]), out[begin:end], PAGE, texture)


def _room(n_pages: int) -> NDArray[np.uint8]:
    if not n_pages:
        return np.empty((0, PAGE), np.uint8)
    buffer = mmap.mmap(-1, n_pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # only saves page faults
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(buffer, np.uint8).reshape(n_pages, PAGE)
