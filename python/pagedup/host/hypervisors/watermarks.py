"""How much memory Linux keeps free: the watermarks that kswapd works by."""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

from pagedup.memory.layouts import PAGE

_LEAST, _MOST = 128, 262_144
"""KiB that vm.min_free_kbytes is at least and at most by default (mm/page_alloc.c, since Linux 5.8)."""


class Watermarks(NamedTuple):
    """Free pages: below `low` kswapd starts, to go on up to `high`; below `least`, Linux's min, who asks waits."""

    least: int
    low: int
    high: int


def watermarks(pages: int, scale_factor: int) -> Watermarks:
    """Of a machine of so many pages, in one zone.

    vm.min_free_kbytes is sqrt(16 * KiB of memory) by default; low and high are once and twice further up by that many
    10,000ths of the memory, or a quarter of it if that is more (Documentation/admin-guide/sysctl/vm.rst,
    watermark_scale_factor; mm/page_alloc.c, __setup_per_zone_wmarks).
    """
    kib = min(max(isqrt(16 * pages * (PAGE // 1024)), _LEAST), _MOST)
    least = kib * 1024 // PAGE
    step = max(least // 4, pages * scale_factor // 10_000)
    return Watermarks(least, least + step, least + 2 * step)
