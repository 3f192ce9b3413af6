"""What keeping guests apart costs: the classes of domains follow from those without, so no memory is read again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pagedup.sharing.grouping import Grouping

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dedupcore import Work
    from pagedup.sharing.duplicates import Duplicates

_NOWHERE = np.uint32((1 << 32) - 1)  # no frame has this number, since there are at most so many


@dataclass(frozen=True, slots=True)
class Isolation:
    """Non-zero pages saved where all guests may share (`together`), and only those of one of the `domains` (`apart`).

    Zero pages are saved either way: the kernel's zero page tells nobody anything.
    """

    page_size: int
    domains: int
    saved_together: int
    saved_apart: int


def isolation_cost(duplicates: Duplicates, domains: Sequence[Hashable] | None = None) -> Isolation:
    """What is lost if only guests of equal values in `domains` share; left out: if no guest shares with another.

    Raises ValueError when `domains` has not one value a guest, or `duplicates` was made with several domains.
    """
    values = range(duplicates.runs.n_guests) if domains is None else domains
    apart = duplicates.isolate(values)
    nonzero = duplicates.n_frames - duplicates.n_zero
    return Isolation(
        duplicates.frame_size, len(set(values)), nonzero - duplicates.n_distinct, nonzero - apart.n_distinct
    )


def domain_numbers(domains: Sequence[Hashable] | None, n_guests: int) -> NDArray[np.int64]:
    """The domains numbered 0, 1, ... as they first appear, int64 (n_guests,); all 0 for None."""
    if domains is None:
        return np.zeros(n_guests, np.int64)
    values = list(domains)
    if len(values) != n_guests:
        raise ValueError(f"domains has {len(values)} values for {n_guests} guests; it must have one a guest")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def split_classes(
    canonical: NDArray[np.uint32], offsets: NDArray[np.int64], domains: NDArray[np.int64], zero: int | None, work: Work
) -> Grouping:
    """Cut each class into one a domain. `zero`: the canonical frame of the zero frames, if there are any."""
    n_frames = len(canonical)
    split = np.empty(n_frames, np.uint32)
    lowest = np.empty(n_frames, np.uint32)
    zero_canonical: list[int | None] = []
    n_zero = n_distinct = 0
    for domain in range(int(domains.max(initial=-1)) + 1):
        own = [slice(int(offsets[guest]), int(offsets[guest + 1])) for guest in np.flatnonzero(domains == domain)]
        if zero is not None:
            lowest[zero] = _NOWHERE
            n_zero += sum(int(np.count_nonzero(canonical[frames] == zero)) for frames in own)
        for frames in reversed(own):
            # Of several frames of a class the last one written stays: here the lowest.
            lowest[canonical[frames][::-1]] = np.arange(frames.start, frames.stop, dtype=np.uint32)[::-1]
        for frames in own:
            split[frames] = lowest[canonical[frames]]
            n_distinct += int(np.count_nonzero(split[frames] == np.arange(frames.start, frames.stop, dtype=np.uint32)))
        has_zero = zero is not None and bool(lowest[zero] != _NOWHERE)
        n_distinct -= has_zero
        zero_canonical.append(int(lowest[zero]) if has_zero else None)
    split.flags.writeable = False
    return Grouping(split, tuple(zero_canonical), n_zero, n_distinct, work)
