"""`find_duplicates`: from whatever holds memory to the engine, with every argument checked by name."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

import dedupcore
from pagedup.memory import AnyExtent, Extent, NamedExtent, ZeroExtent
from pagedup.sharing.duplicates import Duplicates
from pagedup.sharing.frame_runs import FrameRuns
from pagedup.sharing.grouping import group
from pagedup.sharing.isolation import domain_numbers

if TYPE_CHECKING:
    from dedupcore._dedupcore import BufferLike
    from pagedup.sharing.grouping import Span

    Guest = BufferLike | Sequence[AnyExtent]

_MIN_FRAME, _MAX_FRAME = 8, 1 << 30
_MAX_FRAMES = (1 << 32) - 1
_DEFAULT_FRAME = 4096
_MAX_THREADS = 256  # the engine hands out at most so many tasks, so more would never help


def find_duplicates(
    memory: Guest | Iterable[Guest],
    *,
    frame_size: int | None = None,
    domains: Sequence[Hashable] | None = None,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Duplicates:
    """Find all frames of equal content. Equal means that their bytes are, by comparison; hashes only propose.

    Args:
        memory: one guest or an iterable of guests. A guest is an object with a C-contiguous buffer (NumPy array, mmap,
            bytes, memoryview; read-only is fine, any alignment; it is not copied), whose first byte is at address 0;
            or a sequence of `Extent` and `ZeroExtent` with ascending addresses where its memory has holes. Where one
            is a `NamedExtent`, as those of live sources are, all must be, or `ZeroExtent`.
        frame_size: bytes, a power of two from 8 to 2**30. May be left out if all buffers are of single bytes: 4096.
        domains: one hashable value a guest; only frames of guests with equal values are duplicates. Default: all are.
        threads: how many to use; default: as many as the process has CPUs. The result does not depend on it.
        progress: called now and then as progress(phase, done, total) from the calling thread. What it raises ends the
            call.

    Memory must not change meanwhile; if it does, the result describes no single moment. The GIL is released. Takes at
    most 24 bytes a frame and 16 MiB beside the buffers while it runs, the result of 4 bytes a frame included (28 where
    nearly all frames agree in their sampled lines with a frame that they differ from).

    Raises:
        ValueError: a size, address, extent or number of domains that does not fit, named in the message; more than
            2**32 - 1 frames.
        TypeError: a guest that has no buffer.
        BufferError: a buffer that is not C-contiguous.
        MemoryError: no memory for the scratch arrays.
    """
    guests = _guests(memory)
    views = [[(extent, _view(extent, g)) for extent in guest] for g, guest in enumerate(guests)]
    size = _frame_size(frame_size, [view for guest in views for extent, view in guest if isinstance(extent, Extent)])
    stored_size = _stored_size(guests, size)
    spans: list[list[Span]] = [[] for _ in guests]
    runs: list[tuple[int, int, int]] = []  # guest, address, frames
    for g, guest in enumerate(views):
        for extent, view in guest:
            n_bytes = memoryview(extent.buffer).nbytes if isinstance(extent, Extent) else extent.size
            _check_extent(g, extent.address, n_bytes, size)
            spans[g].append((view, 0, n_bytes // size))
            runs.append((g, extent.address, n_bytes // size))
    _check_order(runs, size)
    n_frames = sum(length for _, _, length in runs)
    if n_frames > _MAX_FRAMES:
        raise ValueError(f"memory has {n_frames:,} frames of {size:,} bytes; at most {_MAX_FRAMES:,} are possible")
    numbers = domain_numbers(domains, len(guests))
    n_threads = dedupcore.available_threads() if threads is None else operator.index(threads)
    if n_threads < 1:
        raise ValueError(f"threads is {n_threads}; it must be 1 or more")
    n_threads = min(n_threads, _MAX_THREADS)
    frame_runs = FrameRuns.of(
        size,
        len(guests),
        np.array([guest for guest, _, _ in runs], np.int64),
        np.array([address for _, address, _ in runs], np.uint64),
        np.array([length for _, _, length in runs], np.int64),
    )
    offsets = frame_runs.guest_offsets
    grouping = group(spans, offsets, numbers, frame_size=stored_size, threads=n_threads, progress=progress)
    return Duplicates(grouping, frame_runs, numbers, n_frames * size, n_threads, grouping.work)


def _guests(memory: object) -> list[list[AnyExtent]]:
    """Each guest as its extents."""
    if _has_buffer(memory):
        return [_extents(0, memory)]
    if not isinstance(memory, Iterable):
        raise TypeError(
            f"memory is a {type(memory).__name__}; it must be a buffer, a list of Extent, or an iterable of these"
        )
    items = list(memory)
    if items and all(isinstance(item, AnyExtent) for item in items):
        return [items]
    return [_extents(g, item) for g, item in enumerate(items)]


def _extents(guest: int, item: Any) -> list[AnyExtent]:
    if _has_buffer(item):
        return [Extent(0, item)]
    if isinstance(item, Sequence) and all(isinstance(part, AnyExtent) for part in item):
        return list(item)
    raise TypeError(f"guest {guest} is a {type(item).__name__}; it must be a buffer or a list of Extent")


def _has_buffer(item: object) -> bool:
    try:
        memoryview(item).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    except (BufferError, ValueError):
        pass  # it has one, which cannot be used; said with its guest's number later
    return True


def _view(extent: AnyExtent, guest: int) -> memoryview | None:
    if isinstance(extent, ZeroExtent):
        return None
    if isinstance(extent, NamedExtent):
        return extent.names.data
    try:
        view = memoryview(extent.buffer)
    except TypeError:
        raise TypeError(
            f"guest {guest}: the extent at {extent.address:#x} has a {type(extent.buffer).__name__} for a buffer"
        ) from None
    except (BufferError, ValueError) as error:
        raise BufferError(f"guest {guest}: its buffer cannot be read: {error}") from None
    if "O" in re.sub(":[^:]*:", "", view.format):  # less the names of fields
        raise TypeError(f"guest {guest}: its buffer holds Python objects, not bytes")
    if not view.c_contiguous:
        raise BufferError(f"guest {guest}: its buffer is not C-contiguous; take a contiguous one, or copy it")
    return view


def _frame_size(frame_size: int | None, views: list[memoryview | None]) -> int:
    if frame_size is None:
        wide = next((view for view in views if view is not None and view.itemsize != 1), None)
        if wide is not None:
            raise ValueError(
                f"frame_size is left out, but a buffer has items of {wide.itemsize} bytes; give it (only for buffers of"
                f" single bytes is it {_DEFAULT_FRAME})"
            )
        return _DEFAULT_FRAME
    size = operator.index(frame_size)
    if not _MIN_FRAME <= size <= _MAX_FRAME or size & (size - 1):
        raise ValueError(f"frame_size is {size:,}; it must be a power of two from {_MIN_FRAME} to {_MAX_FRAME:,}")
    return size


def _stored_size(guests: list[list[AnyExtent]], frame_size: int) -> int:
    """Bytes in the buffers for each frame: its own, or the names of its pages, of which it is the vector."""
    named = next((extent for guest in guests for extent in guest if isinstance(extent, NamedExtent)), None)
    if named is None:
        return frame_size
    for g, guest in enumerate(guests):
        for extent in guest:
            if isinstance(extent, Extent) or (
                isinstance(extent, NamedExtent) and (extent.contents, extent.page) != (named.contents, named.page)
            ):
                raise ValueError(
                    f"guest {g}: the extent at {extent.address:#x} cannot be compared with names of pages: it has"
                    " bytes, or names that others gave; open all sources at once"
                )
    if frame_size < named.page:
        raise ValueError(f"frame_size is {frame_size:,}, but of pages of {named.page:,} bytes only the names are known")
    return frame_size // named.page * 8


def _check_extent(guest: int, address: int, n_bytes: int, frame_size: int) -> None:
    if n_bytes < 0 or n_bytes % frame_size:
        raise ValueError(
            f"guest {guest}: {n_bytes:,} bytes (at address {address:#x}) are no multiple of the frame size"
            f" {frame_size:,}: {n_bytes % frame_size:,} bytes too many"
        )
    if address % frame_size:
        raise ValueError(
            f"guest {guest}: an extent begins at address {address:#x}, which is no multiple of the frame size"
            f" {frame_size:,}"
        )
    if address < 0 or address + n_bytes > 1 << 64:
        raise ValueError(
            f"guest {guest}: an extent of {n_bytes:,} bytes at address {address:#x} lies outside 0 to 2**64"
        )


def _check_order(runs: list[tuple[int, int, int]], frame_size: int) -> None:
    for (guest, address, length), (next_guest, next_address, _) in pairwise(runs):
        if guest == next_guest and address + length * frame_size > next_address:
            raise ValueError(
                f"guest {guest}: the extent at {next_address:#x} overlaps the one at {address:#x} or is out of order;"
                " extents must have ascending addresses"
            )
