"""Pages divided among guests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise


def spread(pages: int, most: Sequence[int]) -> list[int]:
    """So many pages, in proportion to the most that each can have; all of that if it is less. Exact, of any size."""
    total = sum(most)
    wanted = min(pages, total)
    if wanted <= 0:
        return [0] * len(most)
    ends = [wanted * reached // total for reached in accumulate(most, initial=0)]
    return [end - start for start, end in pairwise(ends)]
