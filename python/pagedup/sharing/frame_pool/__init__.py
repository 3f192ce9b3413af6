"""Live guests over frames that they share: first touch, copy on write, exact sharing, large pages."""

from pagedup.sharing.frame_pool.guest import ABSENT, LARGE_PAGE, PoolGuest
from pagedup.sharing.frame_pool.hints import LargeHints
from pagedup.sharing.frame_pool.pool import FramePool

__all__ = ["ABSENT", "LARGE_PAGE", "FramePool", "LargeHints", "PoolGuest"]
