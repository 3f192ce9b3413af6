"""The memory that one call takes at its peak, beyond its buffers: run as a child process, prints JSON."""

from __future__ import annotations

import json
import sys

import numpy as np

from benchmarks import data
from benchmarks.memory import forget_peak, peak_bytes, resident_bytes
from pagedup import find_duplicates


def peak(kind: str, n_frames: int, frame_size: int) -> int:
    """Bytes beyond the memory of this process before, the result included."""
    if kind == "names":
        memory = data.names(n_frames).view(np.uint8)
    elif kind == "mixed":
        memory = data.mixed(n_frames, frame_size)
    elif kind == "unique":
        memory = data.unique(n_frames, frame_size)
    else:
        memory = data.adversarial(kind, n_frames, frame_size)
    find_duplicates(memory[: 64 * frame_size], frame_size=frame_size, threads=2)  # what only the first call makes
    forget_peak()
    before = resident_bytes()
    result = find_duplicates(memory, frame_size=frame_size, threads=2)
    taken = peak_bytes() - before
    assert result.n_frames == n_frames
    return taken


if __name__ == "__main__":
    print(json.dumps(peak(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
