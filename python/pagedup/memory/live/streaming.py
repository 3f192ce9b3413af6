"""Pages of a process that stream by: each is in the cache while it is looked at, and need not be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

import dedupcore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.live.page_runs import Pieces
    from pagedup.memory.live.remote import Bytes, RemoteMemory

    Visit = Callable[[Bytes, slice], None]
    """Looks at pages that were just read: their bytes, and which of all they are. Called by several threads at once."""

_ROOM = 1 << 20  # bytes read at once: they fit the cache, and are at most 256 pieces
_ROOMS_A_TASK = 16  # enough that handing out tasks takes no time, few enough that progress moves


def stream(
    remote: RemoteMemory,
    page: int,
    pieces: Pieces,
    visit: Visit,
    *,
    into: Bytes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.bool_]:
    """Read the pieces and visit all their pages, in no order; bool ndarray: which of the pages are not there.

    With `into`, of as many bytes as the pieces, they are read there, one behind the other, and stay. A page that is not
    there is visited, too: what stands in its place means nothing.
    """
    total = int(pieces[:, 1].sum())
    gone = np.zeros(total // page, np.bool_)
    fragments, bounds = _cut(pieces)
    rooms: list[Bytes] = []  # those that no thread uses

    def fill(room: int, space: Bytes) -> None:
        here = fragments[bounds[room] : bounds[room + 1]]
        mine = slice(room * _ROOM // page, (room * _ROOM + len(space)) // page)
        missing = remote.read(here, space)
        if len(missing):
            addresses = [np.arange(begin, begin + size, page, dtype=np.uint64) for begin, size in here.tolist()]
            gone[mine] = np.isin(np.concatenate(addresses), missing)
        visit(space, mine)

    def run(first: int) -> None:
        try:
            space = rooms.pop()  # asking first whether there is one would leave time for another thread to take it
        except IndexError:
            space = np.empty(0 if into is not None else _ROOM, np.uint8)
        for room in range(first, min(first + _ROOMS_A_TASK, len(bounds) - 1)):
            begin, end = room * _ROOM, min((room + 1) * _ROOM, total)
            fill(room, space[: end - begin] if into is None else into[begin:end])
        rooms.append(space)

    tasks = range(0, len(bounds) - 1, _ROOMS_A_TASK)
    done = 0
    for _ in _in_threads(run, tasks):
        done = min(done + _ROOMS_A_TASK * _ROOM, total)
        if progress is not None:
            progress(done, total)
    return gone


def _cut(pieces: Pieces) -> tuple[Pieces, NDArray[np.int64]]:
    """The same pieces, cut where a room is full, and for each room its first piece; an end mark behind the last."""
    ends = np.cumsum(pieces[:, 1])
    begins = ends - pieces[:, 1]
    total = ends[-1:].sum()
    full = np.arange(0, total, _ROOM, dtype=np.uint64)
    at = np.union1d(begins, full)
    piece = np.searchsorted(begins, at, side="right") - 1
    cut = np.stack((pieces[piece, 0] + (at - begins[piece]), np.diff(at, append=total)), axis=1)
    return cut, np.append(np.searchsorted(at, full), len(at))


def _in_threads(function: Callable[[int], None], tasks: range) -> Iterable[None]:
    """Run the tasks; yields as they end, in their order. When the caller gives up, what has not begun is dropped."""
    if len(tasks) <= 1:
        yield from map(function, tasks)
        return
    from concurrent.futures import ThreadPoolExecutor  # only here: importing it takes longer than importing this room

    pool = ThreadPoolExecutor(dedupcore.available_threads())
    try:
        yield from pool.map(function, tasks)
    finally:
        pool.shutdown(cancel_futures=True)
