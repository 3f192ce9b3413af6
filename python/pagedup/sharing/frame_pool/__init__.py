"""Live guests over frames that they share: first touch, copy on write, exact sharing, large pages, paging out."""

from pagedup.sharing.frame_pool.guest import (
    ABSENT,
    ACCESSED_BY_GUEST,
    ACCESSED_BY_HOST,
    LARGE_PAGE,
    OUT,
    PoolGuest,
    Touched,
)
from pagedup.sharing.frame_pool.hints import LargeHints
from pagedup.sharing.frame_pool.pool import FramePool

__all__ = [
    "ABSENT",
    "ACCESSED_BY_GUEST",
    "ACCESSED_BY_HOST",
    "LARGE_PAGE",
    "OUT",
    "FramePool",
    "LargeHints",
    "PoolGuest",
    "Touched",
]
