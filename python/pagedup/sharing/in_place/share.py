"""`share_in_place`: looks at the memory, plans, and replaces."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from pagedup.memory.live.smaps import read_mappings
from pagedup.sharing.in_place import backing as backings
from pagedup.sharing.in_place.arrays import checked, owner, ranges, whole_pages
from pagedup.sharing.in_place.look import look
from pagedup.sharing.in_place.plan import plan
from pagedup.sharing.in_place.replace import replace
from pagedup.sharing.in_place.result import InPlace, Left
from pagedup.sharing.in_place.suitable import pieces, with_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PAGE = mmap.PAGESIZE
_SPARE = 1024  # mappings left to the rest of the process


def share_in_place(arrays: Iterable[NDArray[Any]]) -> InPlace:
    """Let equal pages of these arrays take the memory of one, from now on; they stay writable, each write its own.

    **Nothing else may write to the arrays, resize them, or have the kernel or a device read into them, until the call
    returns**: what is written meanwhile may be lost. Pages that are pinned (registered with io_uring, RDMA, VFIO) must
    not be handed in at all, as the device goes on with the old memory. docs/in-place.md says what fork and madvise mean
    for the arrays afterwards.

    Private anonymous memory only, such as `pagedup.allocate` gives: of each array the whole pages in it. What cannot be
    replaced safely is left as it is, and named in the result's `left`. Pages of zeros are given back to the kernel.
    Huge pages with something to share are split, and none are made of this memory any more. Each run of shared pages
    takes a mapping: where vm.max_map_count (less 1,024 for the rest of the process) is in the way, the longest runs are
    shared. Of a content that stands many times in a row a few copies are stored, so that a mapping shows several
    pages. While it runs it takes memory for a copy of each shared content, and about 100 bytes a page.

    Call it again when the contents have changed: it finds what has become equal.

    Raises:
        TypeError: not a list of NumPy arrays.
        ValueError: an array that is not contiguous.
        OSError: the kernel refuses to tell about the process's own memory, or has no memory for the copies. Nothing was
            shared then; pages of zeros may have been given back.
        MemoryError: no memory for the lists of pages. The same.
    """
    kept = checked(arrays)
    memory, beside = whole_pages(ranges(kept), _PAGE)
    with backings.lock:
        with mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as new:
            text = _read_smaps()
            mappings = read_mappings(text)
            new_at = np.frombuffer(new, np.uint8).ctypes.data
            new_is_locked = any("lo" in m.flags for m in mappings if m.start <= new_at < m.end)
        found, left = pieces(memory, mappings, with_keys(text))
        del text
        if new_is_locked:
            # The kernel would write to each page that it maps, and so give it a copy of its own.
            left["what is mapped is locked by mlockall"] += sum(piece.end - piece.start for piece in found)
            found = []
        limit = _max_mappings()
        seen = look(found)
        planned = plan(seen.pages, limit - _SPARE - len(mappings))
        done = replace(seen, planned, [owner(array) for array in kept])
        now = _count_mappings()
    if beside:
        left["in pages that the arrays have a part of only"] += beside
    wanted = len(mappings) + planned.all_mappings + _SPARE
    if planned.left:
        left[f"more mappings than vm.max_map_count ({limit:,}) allows; {wanted:,} would do"] += planned.left * _PAGE
    left.update(done.left)
    return InPlace(
        page_size=_PAGE,
        pages=seen.whole.n,
        zero_pages=done.zero,
        shared_pages=done.shared,
        stored_pages=len(planned.store),
        huge_pages_split=done.split,
        mappings=now,
        max_mappings=limit,
        mappings_wanted=wanted,
        left=[Left(n_bytes, why) for why, n_bytes in left.most_common()],
        backings=done.files,
    )


def _count_mappings() -> int:
    with open("/proc/self/maps", "rb", buffering=1 << 20) as file:
        return file.read().count(b"\n")


def _read_smaps() -> bytes:
    with open("/proc/self/smaps", "rb", buffering=1 << 20) as file:
        return file.read()


def _max_mappings() -> int:
    with open("/proc/sys/vm/max_map_count", "rb") as file:
        return int(file.read())
