"""Live guests over frames that they share: first touch, copy on write, exact sharing."""

from pagedup.sharing.frame_pool.guest import ABSENT, PoolGuest
from pagedup.sharing.frame_pool.pool import FramePool

__all__ = ["ABSENT", "FramePool", "PoolGuest"]
