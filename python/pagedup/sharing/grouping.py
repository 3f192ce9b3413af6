"""Grouping frames domain by domain: each is a call of the engine of its own, so frames of two domains never meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from dedupcore import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dedupcore._dedupcore import BufferLike

    Span = tuple[BufferLike | None, int, int]
    """A buffer (None: zero frames), an offset in bytes into it, and a number of frames."""

_CHUNK = 1 << 20  # frames renumbered at once: bounds the memory of the steps between


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """The engine's answer. `zero_canonical`: for each domain the lowest zero frame, or None."""

    canonical: NDArray[np.uint32]
    zero_canonical: tuple[int | None, ...]
    n_zero: int
    n_distinct: int
    work: Work


def group(
    spans: Sequence[Sequence[Span]],
    guest_offsets: NDArray[np.int64],
    domains: NDArray[np.int64],
    *,
    frame_size: int,
    threads: int,
    progress: Callable[[str, int, int], None] | None,
) -> Grouping:
    """Group the frames of guests, given as spans, whose domains are numbered 0, 1, ... in `domains`."""
    canonical = np.empty(int(guest_offsets[-1]), np.uint32)
    results = []
    for domain in range(int(domains.max(initial=-1)) + 1):
        guests = np.flatnonzero(domains == domain)
        starts, ends = guest_offsets[guests], guest_offsets[guests + 1]
        together = bool((starts[1:] == ends[:-1]).all())
        # Frames of one domain that are numbered without a gap are grouped in place.
        own = canonical[starts[0] : ends[-1]] if together else np.empty(int((ends - starts).sum()), np.uint32)
        found = dedupcore.find_duplicates(
            [span for guest in guests.tolist() for span in spans[guest]],
            own,
            frame_size=frame_size,
            threads=threads,
            progress=progress,
        )
        own_starts = np.cumsum(ends - starts) - (ends - starts)
        if together:
            own += np.uint32(starts[0])
        else:
            _renumber(own, own_starts, starts, ends, canonical)
        zero = found.zero_canonical
        if zero is not None:
            guest = int(np.searchsorted(own_starts, zero, side="right")) - 1
            zero += int(starts[guest] - own_starts[guest])
        results.append((zero, found))
    canonical.flags.writeable = False
    return Grouping(
        canonical,
        tuple(zero for zero, _ in results),
        sum(found.n_zero for _, found in results),
        sum(found.n_distinct for _, found in results),
        Work(*np.array([found.work for _, found in results], np.int64).reshape(-1, len(Work._fields)).sum(0).tolist()),
    )


def _renumber(
    own: NDArray[np.uint32],
    own_starts: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    canonical: NDArray[np.uint32],
) -> None:
    """Write the domain's own frame numbers, as those of all frames, to where its guests stand in `canonical`."""
    shift = (starts - own_starts).astype(np.uint32)
    for own_start, start, end in zip(own_starts, starts, ends, strict=True):
        for at in range(0, int(end - start), _CHUNK):
            part = own[own_start + at : min(own_start + at + _CHUNK, own_start + end - start)]
            of_guest = np.searchsorted(own_starts, part, side="right") - 1
            canonical[start + at : start + at + len(part)] = part + shift[of_guest]
