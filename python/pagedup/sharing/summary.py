"""What sharing would save: the numbers of a report, from the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pagedup.sharing.duplicates import Duplicates


@dataclass(frozen=True, slots=True)
class Summary:
    """What storing each content once saves at one page size. All but `page_size` and `excluded_bytes` count pages.

    saved_zero is `zero`: the kernel's zero page costs nothing. saved_within_guests is what storing each non-zero
    content once per guest saves, saved_across_guests what storing it once per domain saves beyond that. pages_shared,
    _sharing and _unshared are Linux KSM's (Documentation/admin-guide/mm/ksm.rst), over non-zero pages with no limit on
    sharing.
    """

    page_size: int
    frames: int
    zero: int
    nonzero: int
    distinct: int
    saved_zero: int
    saved_nonzero: int
    saved_within_guests: int
    saved_across_guests: int
    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    excluded_bytes: int


@dataclass(frozen=True, slots=True)
class GuestSummary:
    """The same for one guest, in pages.

    distinct counts different non-zero contents in this guest, saved_within is nonzero - distinct, and shared_across
    counts its non-zero pages whose content another guest of its domain holds, too.
    """

    frames: int
    zero: int
    nonzero: int
    distinct: int
    saved_within: int
    shared_across: int


@dataclass(frozen=True, slots=True)
class SharedContent:
    """A non-zero content that stands more than once: its canonical frame, where that lies, and how often it stands."""

    frame: int
    guest: int
    address: int
    copies: int
    n_guests: int


def summarize(duplicates: Duplicates) -> Summary:
    """The saving over all guests."""
    counts = duplicates.counts()
    nonzero = duplicates.n_frames - duplicates.n_zero
    saved = nonzero - duplicates.n_distinct
    within = int(duplicates.within_guests().sum())
    shared = int(np.count_nonzero(counts.copies > 1)) - int(np.count_nonzero(counts.copies[_zeros(duplicates)] > 1))
    return Summary(
        page_size=duplicates.frame_size,
        frames=duplicates.n_frames,
        zero=duplicates.n_zero,
        nonzero=nonzero,
        distinct=duplicates.n_distinct,
        saved_zero=duplicates.n_zero,
        saved_nonzero=saved,
        saved_within_guests=within,
        saved_across_guests=saved - within,
        pages_shared=shared,
        pages_sharing=saved,
        pages_unshared=duplicates.n_distinct - shared,
        excluded_bytes=duplicates.excluded_bytes,
    )


def summarize_guests(duplicates: Duplicates) -> list[GuestSummary]:
    """The saving of each guest."""
    counts = duplicates.counts()
    columns = (
        counts.frames,
        counts.zero,
        counts.nonzero,
        counts.distinct,
        duplicates.within_guests(),
        counts.shared_across,
    )
    return [GuestSummary(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def most_shared(duplicates: Duplicates, k: int) -> list[SharedContent]:
    """The up to `k` non-zero contents with the most copies, at least two; of equally many, the lowest frame first."""
    counts = duplicates.counts()
    shared = counts.copies > 1
    shared[_zeros(duplicates)] = False
    frames = np.flatnonzero(shared)
    if k < 1 or not len(frames):
        return []
    copies = counts.copies[frames]
    least = np.partition(copies, -min(k, len(copies)))[-min(k, len(copies))]
    more, tied = frames[copies > least], frames[copies == least]
    chosen = np.concatenate((more, tied))[:k]
    chosen = chosen[np.lexsort((chosen, -counts.copies[chosen].astype(np.int64)))]
    return [
        SharedContent(frame, *duplicates.runs.locate(frame), int(counts.copies[frame]), int(counts.owners[frame]))
        for frame in chosen.tolist()
    ]


def _zeros(duplicates: Duplicates) -> list[int]:
    """The canonical zero frames, one a domain that has one."""
    return sorted({zero for zero in duplicates.zero_canonicals() if zero is not None})
