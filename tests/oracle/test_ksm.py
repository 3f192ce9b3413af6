"""The kernel's own page sharing and find_duplicates, on the same bytes."""

import mmap

import numpy as np
import pytest

import pagedup
from benchmarks import ksm

pytestmark = pytest.mark.ksm
PAGE = mmap.PAGESIZE


def content(seed: int, n: int) -> np.ndarray:
    """Pages of many kinds: zero, copied once and often, alone, alike but for one byte, zero but for one byte."""
    rng = np.random.default_rng(seed)
    pages = rng.integers(0, 256, (n, PAGE), np.uint8)
    kind = rng.integers(0, 8, n)
    pages[kind == 0] = 0
    originals = rng.integers(0, 256, (40, PAGE), np.uint8)
    pages[kind == 1] = originals[rng.integers(0, 40, np.count_nonzero(kind == 1))]
    pages[kind == 2] = originals[0]
    for i in np.flatnonzero(kind == 3):
        pages[i] = originals[1]
        pages[i, rng.integers(0, PAGE)] ^= 1 + rng.integers(0, 2)
    for i in np.flatnonzero(kind == 4):
        pages[i] = 0
        pages[i, rng.integers(0, PAGE)] = 1
    return pages


@pytest.mark.parametrize("seed", [1, 2])
def test_counters_agree(seed: int) -> None:
    n = 6000
    with ksm.stepped() as kernel, mmap.mmap(-1, n * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory.madvise(mmap.MADV_MERGEABLE)
        memory[:] = content(seed, n).tobytes()
        found = pagedup.summarize(pagedup.find_duplicates(memory, frame_size=PAGE))
        merged = kernel.converge()
        again = pagedup.summarize(pagedup.find_duplicates(memory, frame_size=PAGE))
    assert found.zero > 0 and found.pages_sharing > 0 and found.pages_unshared > 0
    assert merged == {
        "pages_shared": found.pages_shared,
        "pages_sharing": found.pages_sharing,
        "pages_unshared": found.pages_unshared,
        "pages_volatile": 0,
        "ksm_zero_pages": found.zero,
    }
    assert again == found  # merging changed no byte
