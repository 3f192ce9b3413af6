"""The figures that simulated guests are held against, and which of them may tune a parameter.

The split was made before any parameter was tuned: a source's figure tunes only what it says of one kind of guest, and
what it says of another one, or of many together, judges. Where a source gives several figures of the same guests, they
are all on one side, but for the mix of three systems: its share of zero pages says how full its guests were, which
nothing else tells, and so tunes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Use = Literal["tunes", "judges", "told"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One published or measured figure.

    tag: P read in the primary source, S second-hand, D derived from one, M measured here on real memory. published: as
    the source says it. low, high: between what a simulated value agrees. use: whether parameters were tuned to it, or
    it judges what was tuned to others, or is only told, since sources contradict each other. counts: what it is a share
    of. measured: the same on real memory by a command of this repository, "" where there is none. disagrees: why the
    simulation is known not to agree, "" if it does.
    """

    key: str
    what: str
    tag: Literal["P", "S", "D", "M"]
    published: str
    low: float
    high: float
    use: Use
    counts: str
    measured: str = ""
    disagrees: str = ""
    unit: str = " %"

    def holds(self, value: float) -> bool:
        """Whether a simulated value agrees."""
        return self.low <= value <= self.high


def _about(
    key: str,
    what: str,
    tag: Literal["P", "S", "D", "M"],
    value: float,
    use: Use,
    counts: str,
    measured: str = "",
    disagrees: str = "",
) -> Figure:
    """A figure that is met within a quarter of it, or two points where that is more: no two guests are alike."""
    margin = max(0.25 * value, 2)
    return Figure(key, what, tag, f"{value:g} %", value - margin, value + margin, use, counts, measured, disagrees)


_ALL = "all memory"
_TOUCHED = "touched memory (ESX sees no other)"
_NONZERO = "non-zero frames"
_SAVING = "non-zero saving"

FIGURES: tuple[Figure, ...] = (
    # Identical Linux guests of 40 MB: C. Waldspurger, OSDI'02, as quoted by others.
    Figure("linux-one", "one small Linux guest alone: saved", "S", "5 of 40 MB", 10.5, 14.5, "tunes", _ALL),
    _about("linux-one-zero", "one small Linux guest alone: zero pages", "S", 55, "tunes", "saving"),
    _about("linux-ten", "ten of them: shared", "S", 67, "judges", f"{_ALL} that equals another page"),
    # Difference Engine, OSDI'08: XP, Debian and Slackware on Xen.
    _about("mix-zero", "XP + Debian + Slackware: zero", "P", 37.9, "tunes", _ALL),
    _about(
        "mix-sharable",
        "XP + Debian + Slackware: sharable, not zero",
        "P",
        13.3,
        "judges",
        _ALL,
        disagrees="13.3 % sharable, 12.4 % saved: some fifteen copies of each content, in three guests, so most stand"
        " in one guest many times. Nothing that was read of the source says what they are, so no preset has them.",
    ),
    _about("mix-unique", "XP + Debian + Slackware: unique", "P", 48.7, "judges", _ALL),
    _about("mix-saved", "XP + Debian + Slackware: saved", "P", 50.3, "judges", _ALL),
    # Barker et al., ATC'12.
    Figure("unlike-nonzero", "unlike machines: non-zero saving", "P", "< 15 %", 0, 15, "judges", _ALL),
    Figure(
        "unlike-within",
        "unlike machines: saved within one",
        "P",
        "> 90 %",
        90,
        100,
        "judges",
        _SAVING,
        disagrees="by a hair; two of the five are of one distribution and have kernel and libraries in common. Real"
        " guests that are alike save a fifth within one only (last rows), so the figure is of unlike machines alone.",
    ),
    # Desktops on ESX, 2011.
    Figure("xp", "ten XP desktops: saved", "P", "~40 %", 35, 45, "tunes", _TOUCHED),
    Figure(
        "seven",
        "ten Windows 7 desktops: saved, 4 KiB",
        "P",
        "10-15 %",
        10,
        15,
        "judges",
        _TOUCHED,
        disagrees="nearly all of it is file cache: desktops that fill a GiB with parts of the same 9 GiB of files hold"
        " much of it twice. The figure is a rule for planning; hosts of its time could back such guests with pages of"
        " 2 MiB, of which the simulation saves next to nothing (next row).",
    ),
    Figure("seven-large", "ten Windows 7 desktops: saved, 2 MiB", "P", "10-15 %", 0, 100, "told", _TOUCHED),
    # VMware vSphere 4.1, Resource Management Guide.
    Figure("near-identical", "desktops that have just started: saved", "P", "> 30 %", 30, 100, "judges", _TOUCHED),
    Figure(
        "diverse",
        "unlike guests after a day: saved",
        "P",
        "< 5 %",
        0,
        5,
        "judges",
        _TOUCHED,
        disagrees="most of it is zero pages, of memory that the presets' guests never needed; without these it agrees"
        " (next row). How full its guests were, the source does not tell.",
    ),
    Figure("diverse-nonzero", "the same without zero pages: saved", "P", "< 5 %", 0, 5, "told", _TOUCHED),
    # 165 guests with large pages on ESX: 33 of 493 GB shared, all of it zero pages.
    Figure("large", "servers in pages of 2 MiB: zero pages", "P", "zero pages only", 99, 100, "judges", "saving"),
    # Address space layout randomization. Barker: can further diminish; Savill: only a small part; Kraft Kennedy: none.
    Figure("aslr-x86", "ASLR's cost, 32-bit Windows 7", "P", "disputed", 0, 100, "told", _SAVING, "96.9 % code moves"),
    Figure("aslr-x64", "ASLR's cost, 64-bit Windows 7", "P", "disputed", 0, 100, "told", _SAVING, "0.4 % code moves"),
    Figure("aslr-ratio", "ASLR's cost, 32-bit / 64-bit", "D", "> 1", 1, 1e9, "judges", "the two above", unit=""),
    # Eight Debian 12 guests of 512 MiB under QEMU.
    _about("eight-zero", "eight Debian guests: zero", "M", 59.2, "tunes", _ALL, "65.7 %"),
    _about("eight-4k", "eight Debian guests: saved, 4 KiB", "M", 40.5, "tunes", _NONZERO, "45.1 %"),
    _about("eight-16k", "eight Debian guests: saved, 16 KiB", "M", 17.5, "tunes", _NONZERO, "25.3 %"),
    _about("eight-64k", "eight Debian guests: saved, 64 KiB", "M", 13.9, "tunes", _NONZERO, "18.9 %"),
    _about("eight-2m", "eight Debian guests: saved, 2 MiB", "M", 5.6, "tunes", _NONZERO, "7.9 %"),
    _about("eight-within", "eight Debian guests: saved within one", "M", 19, "tunes", _SAVING, "21.4 %"),
    # Five Debian 12 guests of 384 MiB: idle, sort, mixed with huge pages, churn.
    _about("five-zero", "five other Debian guests: zero", "M", 51, "judges", _ALL),
    _about("five-4k", "five other Debian guests: saved, 4 KiB", "M", 41.2, "judges", _NONZERO),
    _about("five-2m", "five other Debian guests: saved, 2 MiB", "M", 4.9, "judges", _NONZERO),
    _about(
        "five-within",
        "five other Debian guests: saved within one",
        "M",
        35,
        "judges",
        _SAVING,
        disagrees="what the workloads held was not written down. A heap of equal pages in one of them would do it; the"
        " simulated ones have none.",
    ),
)
