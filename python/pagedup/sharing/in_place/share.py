"""`share_in_place`: looks at the memory, plans, and replaces."""

from __future__ import annotations

import ctypes
import mmap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import dedupcore
from dedupcore import _dedupcore as engine
from pagedup.memory.live.smaps import Mapping, read_mappings
from pagedup.sharing.in_place import backing as backings
from pagedup.sharing.in_place.arrays import checked, owner, ranges, whole_pages
from pagedup.sharing.in_place.backing import Backing, own_pagemap, written
from pagedup.sharing.in_place.plan import NEW, Pages, Plan, plan, runs
from pagedup.sharing.in_place.result import InPlace, Left
from pagedup.sharing.in_place.suitable import Piece, details, pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.sharing.in_place.arrays import Range

_PAGE = mmap.PAGESIZE
_HUGE = 2 << 20  # bytes; where the architecture's huge pages are larger, each is split several times, to no harm
_SPARE = 1024  # mappings left to the rest of the process
_FILE = 1 << 40  # pages; what places of different files are apart


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
    shared. While it runs it takes memory for a copy of each shared content, and about 100 bytes a page.

    Call it again when the contents have changed: it finds what has become equal.

    Raises:
        TypeError: not a list of NumPy arrays.
        ValueError: an array that is not contiguous.
        OSError: the kernel refuses to tell about the process's own memory, or has no memory for the copies. Nothing was
            shared then.
        MemoryError: no memory for the lists of pages. Nothing was changed.
    """
    kept = checked(arrays)
    memory, beside = whole_pages(ranges(kept), _PAGE)
    with backings.lock:
        with mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as new:
            text = _read_smaps()
            mappings = read_mappings(text)
            new_at = np.frombuffer(new, np.uint8).ctypes.data
            new_is_locked = any("lo" in m.flags for m in mappings if m.start <= new_at < m.end)
        concerned = _overlapping(mappings, memory)
        huge, keys = details(text, concerned)
        found, left = pieces(memory, concerned, keys)
        if new_is_locked:
            # The kernel would write to each page that it maps, and so give it a copy of its own.
            left["what is mapped is locked by mlockall"] += sum(piece.end - piece.start for piece in found)
            found = []
        del text
        limit = _max_mappings()
        pages, files = _look(found)
        planned = plan(pages, limit - _SPARE - len(mappings))
        owners = [owner(array) for array in kept]
        _keep_small(planned, found)
        split = _split(planned, found, memory) if huge else 0
        done = _replace(pages, planned, found, files, owners)
        now = _count_mappings()
    if beside:
        left["in pages that the arrays have a part of only"] += beside
    wanted = len(mappings) + planned.all_mappings + _SPARE
    if planned.left:
        left[f"more mappings than vm.max_map_count ({limit:,}) allows; {wanted:,} would do"] += planned.left * _PAGE
    left.update(done.left)
    return InPlace(
        page_size=_PAGE,
        pages=len(pages.begins),
        zero_pages=done.zero,
        shared_pages=done.shared,
        stored_pages=len(planned.store),
        huge_pages_split=split,
        mappings=now,
        max_mappings=limit,
        mappings_wanted=wanted,
        left=[Left(n_bytes, why) for why, n_bytes in left.most_common()],
        backings=done.files,
    )


class _Done:
    """What was replaced: pages; and bytes that were not, by reason."""

    def __init__(self, files: list[Backing]) -> None:
        self.zero = 0
        self.shared = 0
        self.left: Counter[str] = Counter()
        self.files = files

    def note(self, outcomes: NDArray[np.uint8], first: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pages of the ranges that were replaced; what became of the others."""
        if (outcomes == engine.LOST).any():
            raise MemoryError("the kernel took a part of an array and gave nothing for it; its content is lost")
        for outcome, why in (
            (engine.DIFFERS, "written during the call"),
            (engine.REFUSED, "refused by the kernel (no room for a mapping more)"),
        ):
            if n := int((end - first)[outcomes == outcome].sum()):
                self.left[why] += n * _PAGE
        good = outcomes == engine.REPLACED
        return np.flatnonzero(_between(first[good], end[good], int(end.max(initial=0))))


def _look(found: Sequence[Piece]) -> tuple[Pages, list[Backing]]:
    """What is in the pages of these pieces, and the backings that some of them show."""
    starts, firsts = _numbering(found)
    ends = np.array([piece.end for piece in found], np.int64)
    counts = (ends - starts) // _PAGE
    n = int(counts.sum())
    files = list({id(piece.backing): piece.backing for piece in found if piece.backing is not None}.values())
    number = {id(file): i for i, file in enumerate(files)}
    place_of = np.array(
        [-1 if p.backing is None else number[id(p.backing)] * _FILE + p.offset // _PAGE for p in found], np.int64
    )
    inside = np.arange(n, dtype=np.int64) - np.repeat(firsts, counts)
    place = np.where(np.repeat(place_of, counts) >= 0, np.repeat(place_of, counts) + inside, -1)
    with own_pagemap() as pagemap:
        occupied = np.concatenate([np.zeros(0, bool), *written(pagemap, starts, ends)])
    begins = np.zeros(n, bool)
    if n:
        protections = np.array([piece.protection for piece in found])
        begins[firsts] = np.concatenate(([True], (starts[1:] != ends[:-1]) | (protections[1:] != protections[:-1])))
    canonical, zero = _group(starts, firsts, begins, occupied | (place >= 0))
    return Pages(begins, canonical, zero, occupied, place), files


def _group(
    starts: NDArray[np.int64], firsts: NDArray[np.int64], begins: NDArray[np.bool_], to_read: NDArray[np.bool_]
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """The first page of equal content of each page, and which are zero: such as were never touched, unread."""
    n = len(begins)
    canonical = np.empty(n, np.uint32)
    changes = begins.copy()
    changes[1:] |= to_read[1:] != to_read[:-1]
    first = np.flatnonzero(changes)
    addresses = _addresses(first, starts, firsts)
    spans = [
        ((ctypes.c_uint8 * (count * _PAGE)).from_address(address) if read else None, 0, count)
        for address, count, read in zip(
            addresses.tolist(), np.diff(np.append(first, n)).tolist(), to_read[first].tolist(), strict=True
        )
    ]
    found = dedupcore.find_duplicates(spans, canonical, frame_size=_PAGE, threads=dedupcore.available_threads())
    if found.zero_canonical is None:
        return canonical, np.zeros(n, bool)
    return canonical, canonical == found.zero_canonical


def _replace(
    pages: Pages,
    planned: Plan,
    found: Sequence[Piece],
    files: list[Backing],
    owners: Sequence[object],
) -> _Done:
    done = _Done(list(files))
    starts, firsts = _numbering(found)
    of_piece = np.array([piece.protection for piece in found], np.uint8)

    def where(first: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """Addresses of pages, and their rights."""
        piece = np.searchsorted(firsts, first, side="right") - 1
        return _addresses(first, starts, firsts).astype(np.uint64), of_piece[piece]

    new = Backing(len(planned.store) * _PAGE) if len(planned.store) else None
    if new is not None:
        _store(new, planned.store, pages.begins, where)
        done.files.append(new)
    # In parts of a huge page at most, so that little can be written between the look at it and its end.
    cuts = _addresses(np.arange(len(pages.begins)), starts, firsts) % _HUGE == 0
    first, end = runs(planned.zero, np.arange(len(pages.begins)), pages.begins | cuts | _steps(pages.place >= 0))
    addresses, protections = where(first)
    outcomes = np.full(len(first), engine.REFUSED, np.uint8)
    sizes = ((end - first) * _PAGE).astype(np.uint64)
    mapped = (pages.place[first] >= 0).astype(np.uint8)
    engine.in_place_zero(addresses, sizes, mapped, protections, outcomes)
    done.zero = len(done.note(outcomes, first, end))

    for number, file in enumerate(done.files):
        base = NEW if file is new else number * _FILE
        chosen = (planned.place >= base) & (planned.place < base + _FILE)
        first, end = runs(chosen, planned.place, pages.begins)
        if not len(first) or file.file is None:
            continue
        addresses, protections = where(first)
        outcomes = np.full(len(first), engine.REFUSED, np.uint8)
        with mmap.mmap(file.file.fd, file.size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as stored:
            engine.in_place_map(
                file.file.fd,
                stored,
                addresses,
                ((planned.place[first] - base) * _PAGE).astype(np.uint64),
                ((end - first) * _PAGE).astype(np.uint64),
                protections,
                outcomes,
            )
        file.live_as_long_as(owners)
        replaced = done.note(outcomes, first, end)
        done.shared += int(np.count_nonzero(pages.occupied[replaced]))
    return done


def _keep_small(planned: Plan, found: Sequence[Piece]) -> None:
    """Have no huge pages made of the memory any more: khugepaged would fill its holes with zeros that take memory."""
    if planned.zero.any() or (planned.place >= 0).any():
        anonymous = [piece for piece in found if piece.backing is None]
        starts = np.array([piece.start for piece in anonymous], np.uint64)
        engine.in_place_keep_small(starts, np.array([piece.end for piece in anonymous], np.uint64) - starts)


def _split(planned: Plan, found: Sequence[Piece], memory: Sequence[Range]) -> int:
    """Split the huge pages of which a part is to be replaced; how many there were."""
    changing = planned.zero | (planned.place >= 0)
    starts, firsts = _numbering(found)
    before = _huge_bytes(memory)
    engine.in_place_split(_one_of_each_huge_page(changing, starts, firsts), _PAGE)
    return max(0, before - _huge_bytes(memory)) // _HUGE


def _store(new: Backing, store: NDArray[np.int64], begins: NDArray[np.bool_], where: Any) -> None:
    """Write these pages to the file, in this order; neighbours at once."""
    breaks = np.concatenate(([True], (store[1:] != store[:-1] + 1) | begins[store[1:]]))
    first = np.flatnonzero(breaks)
    counts = np.diff(np.append(first, len(store)))
    assert new.file is not None
    engine.in_place_store(
        new.file.fd,
        where(store[first])[0],
        (first * _PAGE).astype(np.uint64),
        (counts * _PAGE).astype(np.uint64),
    )


def _one_of_each_huge_page(
    changing: NDArray[np.bool_], starts: NDArray[np.int64], firsts: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """The address of a page to be replaced in each possible huge page that is not replaced as a whole."""
    addresses = _addresses(np.flatnonzero(changing), starts, firsts)
    _, first, counts = np.unique(addresses // _HUGE, return_index=True, return_counts=True)
    return addresses[first[counts < _HUGE // _PAGE]].astype(np.uint64)


def _numbering(found: Sequence[Piece]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each piece starts, and the number of its first page."""
    starts = np.array([piece.start for piece in found], np.int64)
    counts = (np.array([piece.end for piece in found], np.int64) - starts) // _PAGE
    return starts, np.cumsum(counts) - counts


def _addresses(numbers: NDArray[np.int64], starts: NDArray[np.int64], firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of pages, by their numbers."""
    piece = np.searchsorted(firsts, numbers, side="right") - 1
    addresses: NDArray[np.int64] = starts[piece] + (numbers - firsts[piece]) * _PAGE
    return addresses


def _steps(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.diff(values, prepend=values[:1])


def _between(first: NDArray[np.int64], end: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    marks = np.zeros(n + 1, np.int8)
    np.add.at(marks, first, 1)
    np.add.at(marks, end, -1)
    return np.cumsum(marks[:-1], dtype=np.int8) > 0


def _overlapping(mappings: Sequence[Mapping], memory: Sequence[Range]) -> list[Mapping]:
    """The mappings that some of the memory lies in."""
    if not memory:
        return []
    starts = np.array([start for start, _ in memory])
    ends = np.array([end for _, end in memory])
    begin = np.array([mapping.start for mapping in mappings])
    end = np.array([mapping.end for mapping in mappings])
    some = np.searchsorted(ends, begin, side="right") < np.searchsorted(starts, end, side="left")
    return [mapping for mapping, there in zip(mappings, some.tolist(), strict=True) if there]


def _huge_bytes(memory: Sequence[Range]) -> int:
    text = _read_smaps()
    return details(text, _overlapping(read_mappings(text), memory))[0]


def _count_mappings() -> int:
    with open("/proc/self/maps", "rb", buffering=1 << 20) as file:
        return file.read().count(b"\n")


def _read_smaps() -> bytes:
    with open("/proc/self/smaps", "rb", buffering=1 << 20) as file:
        return file.read()


def _max_mappings() -> int:
    with open("/proc/sys/vm/max_map_count", "rb") as file:
        return int(file.read())
