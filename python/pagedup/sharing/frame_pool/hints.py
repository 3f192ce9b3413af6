"""What sharing would find in large pages if they were broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HINT = np.dtype([("guest", np.uint32), ("range", np.uint32), ("zero", np.uint16), ("shareable", np.uint16)])
"""As dedupcore_large_hint."""


class LargeHints(NamedTuple):
    """An item for each large page in each of the arrays; by guest, and then by range. From FramePool.large_hints.

    Attributes:
        guest: uint32 ndarray (n,), the index in FramePool.guests.
        range: uint32 ndarray (n,), which range of the guest is the large page: 512 * range is its first page.
        zero: uint16 ndarray (n,), how many of its 512 pages are zero.
        shareable: uint16 ndarray (n,), how many others are equal to what another frame in use of the domain holds, be
            it of this large page, of another one, or of small pages.
    """

    guest: NDArray[np.uint32]
    range: NDArray[np.uint32]
    zero: NDArray[np.uint16]
    shareable: NDArray[np.uint16]

    @classmethod
    def of_bytes(cls, hints: bytes) -> LargeHints:
        """The hints as the engine gives them."""
        whole = np.frombuffer(hints, _HINT)
        return cls(*(np.ascontiguousarray(whole[name]) for name in _HINT.names or ()))
