"""A FramePool that shares as KSM does, with the calls of the model of KSM."""

import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from pagedup.sharing import FramePool, Ksm
from tests.mergeable import PAGE, page_of

CHAINS = ("stable_node_chains", "stable_node_dups")  # which it has none of


class KsmPool:
    """Guests in one pool, of content names or of the same bytes as the kernel's."""

    def __init__(self, sizes: Sequence[int], policy: Ksm, *, frame_size: int = 8, domains: Sequence[str] = ()) -> None:
        self.pool = FramePool(sum(sizes) + len(sizes), frame_size, policy=policy)
        self.policy = policy
        domains = domains or ["a"] * len(sizes)
        self.guests = [
            self.pool.add_guest(size, domain=domain) for size, domain in zip(sizes, domains, strict=True)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.close()

    def write(self, guest: int, gpn: int, content: int) -> None:
        """See KsmModel."""
        data = page_of(content) if self.pool.frame_size == PAGE else content.to_bytes(8, "little")
        self.guests[guest].write([gpn], np.frombuffer(data, np.uint8).reshape(1, -1))

    def release(self, guest: int, gpn: int) -> None:
        """See KsmModel."""
        self.guests[guest].release([gpn])

    def wake(self) -> bool:
        """See KsmModel."""
        before = self.pool.scan_counts().full_scans
        self.pool.scan(self.policy.sleep_millisecs / 1000)
        return bool(self.pool.scan_counts().full_scans > before)

    def full_scan(self) -> None:
        """See KsmModel."""
        self.pool.scan(math.inf)

    def counters(self) -> dict[str, int]:
        """See KsmModel; those of the work, too."""
        found: dict[str, int] = self.pool.scan_counts()._asdict()
        return found
