"""How much memory a level of TLB covers."""

from __future__ import annotations

from collections.abc import Mapping

from pagedup.tlb.geometry import PAGE_SIZES, Geometry


def reach(geometry: Geometry, shares: Mapping[int, float] | int) -> tuple[float, float]:
    """Bytes of memory that the first and the second level cover at once.

    shares: of the memory, by page size in bytes, what is in pages of that size; they add up to 1. Or one page size.
    The memory grows in these shares until one of the level's TLBs is full; sets that fill up before others are not
    looked at. A level that cannot hold a size that there is covers nothing of such a mixture: 0.

    Raises ValueError for sizes that are none, and shares that do not add up to 1.
    """
    given = {shares: 1.0} if isinstance(shares, int) else dict(shares)
    for size, share in given.items():
        if size not in PAGE_SIZES:
            raise ValueError(f"shares has pages of {size} bytes; it must be {' or '.join(map(str, PAGE_SIZES))}")
        if not 0 <= share <= 1:
            raise ValueError(f"shares[{size}] is {share}; it must be 0 to 1")
    if abs(sum(given.values()) - 1) > 1e-9:
        raise ValueError(f"shares add up to {sum(given.values()):g}; it must be 1")
    present = {size: share for size, share in given.items() if share}
    first = _covered(geometry, geometry.l1, {size: size for size in present}, present)
    second = _covered(geometry, geometry.l2, {size: geometry.smashed.get(size, size) for size in present}, present)
    return first, second


def _covered(
    geometry: Geometry, holds: Mapping[int, str], entry: Mapping[int, int], shares: Mapping[int, float]
) -> float:
    """entry: of pages of each size, the bytes that an entry covers."""
    if any(not holds.get(size) for size in shares):
        return 0.0
    used: dict[str, float] = {}  # entries for each byte of memory
    for size, share in shares.items():
        used[holds[size]] = used.get(holds[size], 0.0) + share / entry[size]
    return min(geometry.caches[name].entries / each for name, each in used.items())
