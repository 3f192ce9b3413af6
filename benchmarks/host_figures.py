"""The figures that simulated hosts are held against. No parameter was tuned to any of them: they judge, or are told."""

from __future__ import annotations

import math
from typing import Literal

from benchmarks.figures import Figure

_ONE_GIB = "1 GiB, pages_to_scan 100, sleep 20 ms"
_PRESENT = "memory"
_NOT_ZERO = "memory without zero pages"
_LARGE = "5 desktops of 2 GiB on 12 GiB"
_EARLY = "4 desktops of 2 GiB on 7 GiB"
_HYPERV = "8 of XP that start with 128 to 384 MiB and keep 128, on 768"


def _ratio(
    key: str, what: str, published: str, use: Literal["judges", "told"] = "judges", disagrees: str = ""
) -> Figure:
    """A slowdown without breaking large pages early / with it, which is to be 2.1 at the most, and no loss."""
    return Figure(key, what, "P", published, 1, 2.1, use, _EARLY, disagrees=disagrees, unit="")


HOST_FIGURES: tuple[Figure, ...] = (
    # Linux: mm/ksm.c, Documentation/admin-guide/mm/ksm.rst.
    Figure(
        "ksm-first",
        "KSM: the first merge",
        "D",
        ">= 105 s",
        105,
        math.inf,
        "judges",
        _ONE_GIB,
        disagrees="105 s are two passes. A page is looked for in the second one, since it must be unchanged since the"
        " first (mm/ksm.c), and so the first merge comes as soon as the second pass meets a second copy. It would be at"
        " 105 s only if that were the last page of all.",
        unit=" s",
    ),
    Figure(
        "ksm-not-before",
        "KSM: nothing in the first pass",
        "P",
        "second pass (52.4 s)",
        52.4,
        math.inf,
        "judges",
        _ONE_GIB,
        unit=" s",
    ),
    Figure("ksm-all", "KSM: all is merged", "D", "two passes (105 s)", 100, 105, "judges", _ONE_GIB, unit=" s"),
    Figure(
        "ksm-zero",
        "KSM: frames of 1,000 zero pages",
        "P",
        "4",
        4,
        4,
        "judges",
        "max_page_sharing 256, use_zero_pages off",
        unit="",
    ),
    # ESXi in pages of 2 MiB: 33 of 493 GB shared, zero pages only; the states of Epping, 2015.
    Figure(
        "large-before",
        "ESXi, large pages, memory not short: saved, not zero",
        "P",
        "none",
        0,
        0,
        "judges",
        _LARGE,
        unit=" MiB",
    ),
    Figure(
        "large-zero",
        "the same: saved, zero",
        "P",
        "33 of 493 GB",
        0,
        math.inf,
        "told",
        _LARGE,
        unit=" MiB",
    ),
    Figure(
        "large-when",
        "ESXi, large pages: free as sharing begins (shared pages counted as if they were not)",
        "P",
        "< 400 %",
        100,
        400,
        "judges",
        "minFree",
    ),
    Figure(
        "large-after",
        "ESXi, large pages, then: saved, not zero",
        "P",
        "some",
        1,
        math.inf,
        "judges",
        _LARGE,
        unit=" MiB",
    ),
    # Guo et al., VEE'15.
    Figure(
        "early-reclaimed",
        "large pages broken before balloon and swap: pages that these take, of those if after",
        "P",
        "less",
        0,
        99,
        "judges",
        _EARLY,
    ),
    _ratio("early-disk", "the same: a virus scan's slowdown, after / before; disk", "up to 2.1"),
    _ratio("early-ssd", "the same: SSD", "up to 2.1"),
    _ratio(
        "early-work",
        "the same, at work, before the scan: SSD",
        "up to 2.1",
        disagrees="desktops at 300 touches a second hardly miss what was paged out, much of it zeroed memory that they"
        " do not use, but small pages cost them some per cent in translation (docs/tlb.md), and where large pages are"
        " broken late some are left. Guests gain that go through all that they hold (the rows before).",
    ),
    # ESXi's settings: Mem.ShareRateMax 1024 pages a second and guest, Mem.ShareScanTime 60 minutes.
    Figure(
        "cover-16", "ESXi: looked at in 60 minutes, of 16 GiB", "D", "14.06 / 16 = 87.9 %", 87.8, 88, "judges", "guest"
    ),
    Figure("cover-12", "ESXi: looked at in 60 minutes, of 12 GiB", "D", "all", 99.9, 100, "judges", "guest"),
    # VMware vSphere 4.1, Resource Management Guide.
    Figure("near-debian", "6 Debian servers, salting 0: saved", "P", "> 30 %", 30, 100, "judges", _NOT_ZERO),
    Figure(
        "near-windows",
        "5 Windows 7 desktops that have just started: saved",
        "P",
        "> 30 %",
        30,
        100,
        "judges",
        _NOT_ZERO,
        disagrees="what they have in common by then is mostly zeroed memory; with it they agree (next row). The source"
        " does not tell whether it counts zero pages.",
    ),
    Figure("near-windows-zero", "the same, with zero pages: saved", "P", "> 30 %", 30, 100, "judges", _PRESENT),
    Figure("diverse", "6 unlike guests after a day: saved", "P", "< 5 %", 0, 5, "judges", _NOT_ZERO),
    Figure(
        "diverse-zero",
        "the same unlike guests, with zero pages: saved",
        "P",
        "< 5 %",
        0,
        5,
        "judges",
        _PRESENT,
        disagrees="memory that the presets' guests never needed, as in [layouts](layouts.md).",
    ),
    # Savill, 2016.
    Figure("hyperv-held", "Hyper-V: the most that is held at any step", "P", "<= 100 %", 0, 100, "judges", "host"),
    Figure("hyperv-refused", "Hyper-V: guests refused", "D", "2 or more", 2, 7, "judges", _HYPERV, unit=""),
)
