"""Where the frames of guests lie: their numbers, and their addresses in their guests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class FrameRuns:
    """Frames in runs: consecutive numbers at consecutive addresses of one guest. Arrays have one item a run.

    Runs are in the order of their frame numbers, without gaps between these; within a guest, addresses ascend.
    """

    frame_size: int
    guest: NDArray[np.int64]
    address: NDArray[np.uint64]
    first: NDArray[np.int64]
    length: NDArray[np.int64]
    n_frames: int
    guest_offsets: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        frame_size: int,
        n_guests: int,
        guest: NDArray[np.int64],
        address: NDArray[np.uint64],
        length: NDArray[np.int64],
    ) -> FrameRuns:
        """Number the frames of the runs in the order given; runs of no frame are left out."""
        some = length > 0
        guest, address, length = guest[some], address[some], length[some]
        ends = np.cumsum(length)
        per_guest = np.zeros(n_guests, np.int64)
        np.add.at(per_guest, guest, length)
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(per_guest)))
        n_frames = int(ends[-1]) if len(ends) else 0
        return cls(frame_size, guest, address, ends - length, length, n_frames, offsets)

    @property
    def n_guests(self) -> int:
        """How many guests there are, those without a frame included."""
        return len(self.guest_offsets) - 1

    def addresses(self) -> NDArray[np.uint64]:
        """The address of each frame in its guest, in bytes."""
        size = np.uint64(self.frame_size)
        addresses: NDArray[np.uint64] = np.arange(self.n_frames, dtype=np.uint64) * size
        addresses += np.repeat(self.address - self.first.astype(np.uint64) * size, self.length)
        return addresses

    def locate(self, frame: int) -> tuple[int, int]:
        """The guest of a frame and its address there."""
        run = int(np.searchsorted(self.first, frame, side="right")) - 1
        return int(self.guest[run]), int(self.address[run]) + (frame - int(self.first[run])) * self.frame_size

    def coarse(self, factor: int) -> tuple[FrameRuns, NDArray[np.int64]]:
        """The runs of frames `factor` times as large, and for each of its runs the first small frame in it.

        A large frame exists where its small ones are contiguous, and its address is a multiple of its size.
        """
        large = self.frame_size * factor
        runs = self._joined()
        skip = (-runs.address % np.uint64(large) // np.uint64(self.frame_size)).astype(np.int64)
        length = np.maximum(runs.length - skip, 0) // factor
        address = runs.address + (skip * self.frame_size).astype(np.uint64)
        some = length > 0
        return FrameRuns.of(large, self.n_guests, runs.guest, address, length), (runs.first + skip)[some]

    def _joined(self) -> FrameRuns:
        """The same frames with runs joined that follow each other in their guest's addresses."""
        size = np.uint64(self.frame_size)
        ends = self.address + self.length.astype(np.uint64) * size
        follows = (self.guest[1:] == self.guest[:-1]) & (self.address[1:] == ends[:-1])
        if not follows.any():
            return self
        starts = np.flatnonzero(np.concatenate((np.ones(1, bool), ~follows)))
        length = np.add.reduceat(self.length, starts)
        return FrameRuns.of(self.frame_size, self.n_guests, self.guest[starts], self.address[starts], length)
