"""The result of grouping frames: the classes of equal content of a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.sharing.grouping import Grouping, group
from pagedup.sharing.isolation import domain_numbers, split_classes

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from dedupcore import Work
    from pagedup.sharing.frame_runs import FrameRuns
    from pagedup.sharing.grouping import Span


class Duplicates:
    """Which frames of a snapshot are equal. Frames are numbered through all guests, in their order.

    Attributes:
        canonical: uint32 ndarray (n_frames,), read-only: the lowest number of a frame with the same content in the
            same domain. Two frames of one domain have equal bytes if and only if their entries are equal.
        frame_size: bytes.
        n_frames: how many frames there are.
        n_zero: how many of them are zero, in all domains.
        n_distinct: different non-zero contents, counted once in each domain.
        excluded_bytes: memory of the guests in which no whole aligned frame of this size lies (see `coarsen`).
        guest_offsets: int64 ndarray (n_guests + 1,): guest g has the frames guest_offsets[g]:guest_offsets[g + 1].
        work: exact counters of what reading the memory took (dedupcore.Work); the same for any number of threads.
    """

    def __init__(
        self, grouping: Grouping, runs: FrameRuns, domains: NDArray[np.int64], n_bytes: int, threads: int, work: Work
    ) -> None:
        """For find_duplicates and coarsen only."""
        self.canonical = grouping.canonical
        self.frame_size = runs.frame_size
        self.n_frames = runs.n_frames
        self.n_zero = grouping.n_zero
        self.n_distinct = grouping.n_distinct
        self.excluded_bytes = n_bytes - runs.n_frames * runs.frame_size
        self.guest_offsets = runs.guest_offsets
        self.work = work
        self.runs = runs
        self._domains = domains
        self._zero_canonical = grouping.zero_canonical
        self._n_bytes = n_bytes
        self._threads = threads
        self._counts: Counts | None = None

    def __repr__(self) -> str:
        return (
            f"<Duplicates: {self.n_frames:,} frames of {self.frame_size:,} bytes in {self.runs.n_guests:,} guests,"
            f" {self.n_zero:,} zero, {self.n_distinct:,} distinct others>"
        )

    @property
    def zero(self) -> NDArray[np.bool_]:
        """Bool ndarray (n_frames,): which frames are zero. Made anew at each use."""
        mask = np.zeros(self.n_frames, np.bool_)
        for guest, zero in enumerate(self.zero_canonicals()):
            if zero is not None:
                own = slice(*self.guest_offsets[guest : guest + 2])
                np.equal(self.canonical[own], np.uint32(zero), out=mask[own])
        return mask

    @property
    def addresses(self) -> NDArray[np.uint64]:
        """Uint64 ndarray (n_frames,): the address of each frame in its guest, in bytes. Made anew at each use."""
        return self.runs.addresses()

    def zero_canonicals(self) -> list[int | None]:
        """For each guest the canonical frame of the zero frames of its domain, or None if no frame there is zero."""
        return [self._zero_canonical[domain] for domain in self._domains]

    def coarsen(self, factor: int) -> Duplicates:
        """The same result for frames `factor` times as large, from the classes alone: no memory is read again.

        A large frame exists only where its small ones are contiguous in the guest's addresses and begin at a multiple
        of its size; `excluded_bytes` counts the rest. Two large frames are equal if their small ones are, one by one.
        Raises ValueError when `factor` is no power of two, or the frames were larger than 1 GiB.
        """
        if factor < 1 or factor & (factor - 1):
            raise ValueError(f"factor is {factor}; it must be a power of two: 1, 2, 4, ...")
        if factor == 1:
            return self
        if self.frame_size * factor > 1 << 30:
            raise ValueError(
                f"factor is {factor:,}: frames of {self.frame_size * factor:,} bytes; at most 1 GiB is possible"
            )
        runs, first = self.runs.coarse(factor)
        # A large frame is the vector of its small frames' classes: bytes again, equal if and only if they are. The
        # class of zero frames is 0, so that the engine sees a large frame of them as a zero frame.
        labels = self.canonical + np.uint32(1)
        labels[self.zero] = 0
        spans: list[list[Span]] = [[] for _ in range(runs.n_guests)]
        for guest, small, length in zip(runs.guest.tolist(), first.tolist(), runs.length.tolist(), strict=True):
            spans[guest].append((labels, small * labels.itemsize, length))
        grouping = group(
            spans,
            runs.guest_offsets,
            self._domains,
            frame_size=labels.itemsize * factor,
            threads=self._threads,
            progress=None,
        )
        return Duplicates(grouping, runs, self._domains, self._n_bytes, self._threads, self.work)

    def isolate(self, domains: Sequence[Hashable]) -> Duplicates:
        """What find_duplicates would say with these domains, one a guest, from the classes: no memory is read again.

        Its `work` is what this one took. Raises ValueError when `domains` has not one value a guest, or when more than
        one domain was given already.
        """
        if self._domains.any():
            raise ValueError("the guests are in several domains already; isolate a grouping without domains")
        numbers = domain_numbers(domains, self.runs.n_guests)
        zero = self._zero_canonical[0] if self._zero_canonical else None
        grouping = split_classes(self.canonical, self.guest_offsets, numbers, zero, self.work)
        return Duplicates(grouping, self.runs, numbers, self._n_bytes, self._threads, self.work)

    def within_guests(self) -> NDArray[np.int64]:
        """Int64 ndarray (n_guests,): non-zero frames of each guest that storing each content once per guest saves."""
        return self.counts().nonzero - self.counts().distinct

    def pairs(self) -> NDArray[np.uint32]:
        """Uint32 ndarray (n_pairs, 2): the non-zero frames that sharing frees, each with its canonical frame.

        One row (frame, canonical) for each non-zero frame that is not its own canonical one, in the frames' order.
        """
        frames = np.arange(self.n_frames, dtype=np.uint32)
        freed = (self.canonical != frames) & ~self.zero
        return np.stack((frames[freed], self.canonical[freed]), axis=1)

    def counts(self) -> Counts:
        """What the classes say about the guests; counted at the first use."""
        if self._counts is None:
            self._counts = Counts(self)
        return self._counts


class Counts:
    """Copies and owners of each class, and what they say about each guest.

    Attributes:
        copies, owners: uint32 ndarrays (n_frames,): for a canonical frame the number of frames of its class, and the
            number of guests that hold one; 0 for other frames.
        frames, zero, nonzero, distinct, shared_across: int64 ndarrays (n_guests,): the guest's frames; its zero frames;
            its others; different contents among these; those whose content another guest of its domain holds, too.
    """

    def __init__(self, duplicates: Duplicates) -> None:
        """Count."""
        self.copies = np.zeros(duplicates.n_frames, np.uint32)
        self.owners = np.zeros(duplicates.n_frames, np.uint32)
        offsets = duplicates.guest_offsets.tolist()
        guests = list(zip(offsets[:-1], offsets[1:], duplicates.zero_canonicals(), strict=True))
        counts = dedupcore.count(duplicates.canonical, guests, self.copies, self.owners)
        table = np.array(counts, np.int64).reshape(-1, 3)
        self.frames = np.diff(duplicates.guest_offsets)
        self.zero, self.distinct, self.shared_across = table[:, 0], table[:, 1], table[:, 2]
        self.nonzero = self.frames - self.zero
