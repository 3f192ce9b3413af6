"""What sharing small pages does to the large ones that hypervisors like to back guests with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.sharing.duplicates import Duplicates

_LARGE = 2 << 20  # bytes; the large page of x86-64, and of aarch64 with pages of 4 KiB
_SHARES = (50, 80, 95, 100)  # per cent


@dataclass(frozen=True, slots=True)
class BreakStep:
    """Breaking the best `broken` large pages brings `saved` small pages, at least `percent` of the whole saving."""

    percent: int
    broken: int
    saved: int


@dataclass(frozen=True, slots=True)
class LargePageCost:
    """Of the whole, aligned large pages of the guests, those that sharing small pages would break.

    with_saving: large pages that hold at least one small page that sharing frees. whole: those of them that are zero,
    or equal to an earlier large page, so that they can be shared unbroken. to_break: the others. broken_by_ksm: all
    with_saving, and those that hold only the copy that is kept, as KSM shares no large page whole. saved: small pages
    freed in all memory, zero pages included; saved_unbroken: those of them in `whole`, or outside of any large page.
    steps: how few broken pages bring the greater part of `saved`.
    """

    page_size: int
    small_page_size: int
    pages: int
    with_saving: int
    whole: int
    to_break: int
    broken_by_ksm: int
    saved: int
    saved_unbroken: int
    steps: tuple[BreakStep, ...]


def huge_page_cost(duplicates: Duplicates) -> LargePageCost:
    """How many 2 MiB pages would have to be broken, and how much of the saving the best of them bring.

    Raises ValueError unless the frames are smaller than 2 MiB.
    """
    if duplicates.frame_size >= _LARGE:
        raise ValueError(f"frames are of {duplicates.frame_size:,} bytes; they must be smaller than {_LARGE:,}")
    factor = _LARGE // duplicates.frame_size
    frames = np.arange(duplicates.n_frames, dtype=np.uint32)
    zero = duplicates.zero
    saved = zero | (duplicates.canonical != frames)
    lent = (duplicates.counts().copies > 1) & ~zero
    coarse = duplicates.coarsen(factor)
    large = coarse.runs
    first = duplicates.runs.coarse(factor)[1]
    starts = np.arange(large.n_frames) * factor + np.repeat(first - large.first * factor, large.length)
    in_large = _sums(saved, starts, factor)
    touched = (in_large > 0) | (_sums(lent, starts, factor) > 0)
    whole = coarse.zero | (coarse.canonical != np.arange(coarse.n_frames, dtype=np.uint32))
    broken = in_large[~whole & (in_large > 0)]
    total = int(np.count_nonzero(saved))
    unbroken = total - int(broken.sum())
    reached = unbroken + np.concatenate(([0], np.cumsum(np.sort(broken)[::-1])))
    needed = np.searchsorted(reached, [-(-total * percent // 100) for percent in _SHARES]).tolist()
    return LargePageCost(
        page_size=_LARGE,
        small_page_size=duplicates.frame_size,
        pages=coarse.n_frames,
        with_saving=int(np.count_nonzero(in_large)),
        whole=int(np.count_nonzero(whole)),
        to_break=len(broken),
        broken_by_ksm=int(np.count_nonzero(touched)),
        saved=total,
        saved_unbroken=unbroken,
        steps=tuple(BreakStep(percent, k, int(reached[k])) for percent, k in zip(_SHARES, needed, strict=True)),
    )


def _sums(mask: NDArray[np.bool_], starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """How many are set in each of these windows of `length` items."""
    before = np.zeros(len(mask) + 1, np.int64)
    np.cumsum(mask, out=before[1:])
    sums: NDArray[np.int64] = before[starts + length] - before[starts]
    return sums
