"""What frames hold in a host's pool: content names, or the bytes that stand for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import dedupcore
from pagedup.host.guest_memory import names_themselves
from pagedup.memory.batch import NAME
from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.layouts import Layout

Content = Callable[["NDArray[np.uint64]"], "NDArray[Any]"]
"""The frames of content names (n,): uint64 (n,), or uint8 (n, 4096)."""


def content_of(layout: Layout, frame_size: int) -> Content:
    """Of a guest's names: themselves in frames of 8 bytes; in those of a page noise, or what real files hold."""
    if frame_size == NAME:
        return names_themselves

    def pages(names: NDArray[np.uint64]) -> NDArray[np.uint8]:
        out = np.empty((len(names), PAGE), np.uint8)
        dedupcore.materialize(np.ascontiguousarray(names), out, PAGE, dedupcore.NOISE)
        if layout.content is not None:
            layout.content.fill(names, out)
        return out

    return pages
