"""What sharing saves on a machine of several memory nodes, where KSM may be told to merge only within one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.sharing.duplicates import Duplicates


@dataclass(frozen=True, slots=True)
class NumaSaving:
    """Non-zero pages saved across all nodes (KSM's merge_across_nodes=1), and if each merges its own (0).

    Pages whose node is not known take no part, so that the two compare; `unknown` counts them.
    """

    page_size: int
    nodes: int
    unknown: int
    saved_across_nodes: int
    saved_within_nodes: int


def split_by_node(duplicates: Duplicates, nodes: NDArray[np.int16]) -> NumaSaving:
    """What each choice saves. `nodes`, int16 (n_frames,): the memory node of each frame, negative where not known.

    Raises ValueError unless `nodes` has one item a frame.
    """
    if nodes.shape != (duplicates.n_frames,):
        raise ValueError(
            f"nodes has the shape {nodes.shape} for {duplicates.n_frames:,} frames; it must be ({duplicates.n_frames},)"
        )
    known = nodes >= 0
    counted = known & ~duplicates.zero
    seen = np.zeros(duplicates.n_frames, np.bool_)
    within = 0
    numbers = np.flatnonzero(np.bincount(nodes[known])).tolist()
    for node in numbers:
        own = duplicates.canonical[counted & (nodes == node)]
        seen[own] = True
        within += len(own) - int(np.count_nonzero(seen))
        seen[own] = False
    seen[duplicates.canonical[counted]] = True
    across = int(np.count_nonzero(counted)) - int(np.count_nonzero(seen))
    unknown = duplicates.n_frames - int(np.count_nonzero(known))
    return NumaSaving(duplicates.frame_size, len(numbers), unknown, across, within)
