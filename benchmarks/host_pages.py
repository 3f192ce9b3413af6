"""In pages of which size a host gives this machine its memory: by what the TLB holds, as a guest cannot see it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from benchmarks.dependent_loads import Timer, link, medians
from benchmarks.measure import undisturbed
from benchmarks.page_sizes import LARGE, SMALL, NotGiven, Pages
from pagedup.tlb import Geometry

_CPUINFO = Path("/proc/cpuinfo")
_ROUNDS = 9


def host_page_size(geometry: Geometry) -> int | None:
    """Bytes; None if no hypervisor says that it is there.

    What a TLB holds is the smaller of the guest's page and the host's. So in a large page of the guest, more pages of
    4 KiB are visited than the first level has entries for: if that costs what its misses cost, entries are of 4 KiB.
    What makes them small cannot be told. A host whose own pages are small, one that gives a large page as small
    ones (so that it can tell which of them were written, say), and one that writes shadow page tables look the same.
    """
    if not re.search(r"^flags\s*:.*\bhypervisor\b", _CPUINFO.read_text(), re.MULTILINE):
        return None
    entries = geometry.caches[geometry.l1[SMALL]].entries
    try:
        few, many = _cycles(entries // 2), _cycles(entries * 3 // 2)
    except NotGiven as why:
        print(why, "so the host's pages are taken to be of 4 KiB", sep="; ", file=sys.stderr)
        return SMALL
    return SMALL if many - few > geometry.l2_cycles / 2 else LARGE


def _cycles(pages: int) -> float:
    """Of a load, in a chase over so many pages of 4 KiB that lie side by side in large ones."""
    memory = Pages(-(-pages * SMALL // LARGE) * LARGE, LARGE).memory
    dice = np.random.default_rng(0)
    # Lines of the first-level data cache's sets in turn: it holds them all, and costs the same however many they are.
    places = np.arange(pages) * SMALL + np.arange(pages) % (SMALL // 64) * 64
    timer = Timer(link(memory, places, dice))
    with undisturbed(1):
        return medians([timer() for _ in range(_ROUNDS)])[1]
