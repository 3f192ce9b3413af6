"""Measurements of the TLB's model: how many accesses a second it translates, by where translations are found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Outcome, rounds_of
from benchmarks.settings import Settings
from pagedup.tlb import Geometry, Tlb, Translations, microarchitecture, this_cpu

_HITS, _WALKS = 100e6, 20e6  # a second
_MEMORY, _PAGE = 4 << 30, 4096
_ACCESSES = 4_000_000  # a round


def tlb(settings: Settings) -> Iterator[Outcome]:
    """Accesses of 4 KiB pages of a guest of 4 GiB, a thread, without data caches."""
    geometry = _geometry()
    first, second = (geometry.caches[level[_PAGE]] for level in (geometry.l1, geometry.l2))
    n, pages = settings.scaled(_ACCESSES), _MEMORY // _PAGE
    dice = np.random.default_rng(1)
    # So many pages that each set has room for its own. Taking turns, those of the second level never stay in the first.
    small = dice.integers(0, first.entries // 2, n)
    turns = np.arange(n) % (second.entries // 2)
    anywhere = dice.integers(0, pages, n)
    measured = [
        ("hits in the first level", small, None, "l1_hits", _HITS, 1.0),
        ("hits in the second level", turns, None, "l2_hits", _HITS, None),
        ("walks without a host", anywhere, None, "misses", _WALKS, None),
        ("nested walks, 4 KiB on 4 KiB", anywhere, _PAGE, "misses", _WALKS, 1.0),
    ]
    for what, numbers, host, found, unit, floor in measured:
        settings.say(f"translations: {what}")
        ratios, share, references = _ratios(geometry, numbers, host, found, settings, unit)
        yield Outcome(
            "tlb",
            f"{what}, {geometry.name}: a second / {unit / 1e6:.0f} million",
            ratios,
            floor,
            note=f"{100 * share:.1f} % are; {references:.2f} references an access",
        )


def _geometry() -> Geometry:
    """This CPU's; of another than those that are known, a Zen 4's."""
    try:
        return this_cpu()
    except LookupError:
        return microarchitecture("Zen 4")


def _ratios(
    geometry: Geometry, numbers: NDArray[np.int64], host: int | None, found: str, settings: Settings, unit: float
) -> tuple[list[float], float, float]:
    """Rates in units, the share of the accesses that were found as they should be, and references of an access."""
    addresses = numbers.astype(np.uint64) * np.uint64(_PAGE)
    model = Tlb(geometry, _MEMORY, host_page_size=host, data=False)
    model.access(addresses)
    seen: list[Translations] = []
    times = rounds_of({"access": lambda: seen.append(model.access(addresses))}, settings.rounds)
    one = seen[-1]
    share = sum(getattr(one, found)) / one.accesses
    if share < 0.9:
        raise AssertionError(f"{100 * share:.1f} % of the accesses are {found}")
    return (
        [len(addresses) / time["access"] / unit for time in times],
        share,
        (one.references + one.host_references) / one.accesses,
    )
