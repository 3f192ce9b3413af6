"""Where shared pages come from: the files whose pages they are."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.memory import AnyExtent, NamedExtent, ZeroExtent
from pagedup.memory.files.filetree import PAGE
from pagedup.sharing.grouping import group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.memory.files.filetree import FileTree, Piece
    from pagedup.sharing.duplicates import Duplicates
    from pagedup.sharing.grouping import Span

_BATCH = 64 << 20  # bytes of files that are compared at once; bounds the memory of it, whatever the tree


@dataclass(frozen=True, slots=True)
class FileShare:
    """A file, or the files under a directory: so many different contents of theirs stand more than once in guests,
    `copies` times in all, and sharing these saves `saved_bytes`.
    """

    path: str
    contents: int
    copies: int
    saved_bytes: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which part of the saving of non-zero pages are pages of files.

    root: the text that the user gave. files, bytes: read in all. unreadable: files and directories that were not.
    contents: different non-zero contents that stand more than once; explained_contents: those found in a file;
    in_several_files: those found in more than one, of which the first by path gets them. saved_bytes: by sharing all
    `contents`; explained_bytes: by those that were found. by_file, by_directory (of the first two levels): those with
    at least one content, the greatest saving first.
    """

    root: str
    files: int
    bytes: int
    unreadable: int
    contents: int
    explained_contents: int
    in_several_files: int
    saved_bytes: int
    explained_bytes: int
    by_file: Sequence[FileShare]
    by_directory: Sequence[FileShare]


def explain(
    duplicates: Duplicates,
    memory: Sequence[Sequence[AnyExtent]],
    tree: FileTree,
    *,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Explanation:
    """Compare every content that stands more than once with the pages of the tree's files, byte by byte.

    `duplicates` must be what find_duplicates found in `memory`, in frames of 4096 bytes; ValueError otherwise. Zero
    pages are left out. Takes 64 MiB, and 28 bytes a content, whatever the tree.
    """
    counts = duplicates.counts().copies.copy()
    counts[[zero for zero in set(duplicates.zero_canonicals()) if zero is not None]] = 0
    shared = np.flatnonzero(counts > 1)
    copies = counts[shared].astype(np.int64)
    spans = _spans(duplicates, memory, shared)
    found = _Found(len(shared), len(tree.paths))
    n_threads = dedupcore.available_threads() if threads is None else threads
    total, done = sum(tree.sizes), 0
    if progress is not None:
        progress("reading files", 0, total)
    with mmap.mmap(-1, _BATCH) as room, memoryview(room) as buffer:
        for pieces in tree.batches(buffer):
            pages = pieces[-1].first + pieces[-1].pages
            canonical = _grouped(spans, len(shared), buffer, pages, n_threads)
            found.add(pieces, canonical[: len(shared)], canonical[len(shared) :])
            done += pages * PAGE
            if progress is not None:
                progress("reading files", min(done, total), total)
    if progress is not None:
        progress("reading files", total, total)
    return found.explanation(tree, copies)


def _spans(duplicates: Duplicates, memory: Sequence[Sequence[AnyExtent]], frames: NDArray[np.int64]) -> list[Span]:
    """Where these frames lie, in as few spans as possible."""
    if duplicates.frame_size != PAGE:
        raise ValueError(f"frames are of {duplicates.frame_size:,} bytes; files are compared in pages of {PAGE:,}")
    frame_runs = duplicates.runs
    extents = [(extent, _size(extent)) for guest in memory for extent in guest]
    extents = [(extent, size) for extent, size in extents if size]
    here = [(extent.address, size // PAGE) for extent, size in extents]
    if here != list(zip(frame_runs.address.tolist(), frame_runs.length.tolist(), strict=True)):
        raise ValueError("duplicates is not of this memory: its extents are others")
    spans: list[Span] = []
    bounds = np.searchsorted(frames, np.append(frame_runs.first, frame_runs.n_frames)).tolist()
    for (extent, _), first, (begin, end) in zip(extents, frame_runs.first.tolist(), pairwise(bounds), strict=True):
        if begin < end:
            spans += _spans_in(extent, frames[begin:end] - first)
    return spans


def _spans_in(extent: AnyExtent, frames: NDArray[np.int64]) -> list[Span]:
    """The same for frames of one extent, numbered from its beginning."""
    assert not isinstance(extent, ZeroExtent)  # these are not zero
    if isinstance(extent, NamedExtent):
        if extent.page != PAGE:
            raise ValueError(f"pages of {extent.page:,} bytes were named; files are compared in pages of {PAGE:,}")
        return list(extent.contents.find(extent.names[frames]))
    starts = np.flatnonzero(np.diff(frames, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(frames)).tolist()
    return [(extent.buffer, start * PAGE, n) for start, n in zip(frames[starts].tolist(), lengths, strict=True)]


def _size(extent: AnyExtent) -> int:
    return extent.size if isinstance(extent, ZeroExtent | NamedExtent) else memoryview(extent.buffer).nbytes


def _grouped(spans: list[Span], n_contents: int, buffer: memoryview, pages: int, threads: int) -> NDArray[np.uint32]:
    """For the contents, and behind them the pages in the buffer, the lowest number of what has the same bytes."""
    grouping = group(
        [spans, [(buffer, 0, pages)]],
        np.array([0, n_contents, n_contents + pages]),
        np.zeros(2, np.int64),
        frame_size=PAGE,
        threads=threads,
        progress=None,
    )
    return grouping.canonical


class _Found:
    """Which file is the first that holds each content."""

    def __init__(self, n_contents: int, n_files: int) -> None:
        self._n_files = n_files
        self._owner = np.full(n_contents, n_files)
        self._several = np.zeros(n_contents, np.bool_)
        self._same: NDArray[np.integer] = np.arange(n_contents)
        self._pages = 0

    def add(self, pieces: Sequence[Piece], same: NDArray[np.uint32], contents: NDArray[np.uint32]) -> None:
        """The contents of the pages of a batch; files come in their order.

        `same`: for each content the lowest one with its bytes, another one where several domains share it apart.
        """
        self._same = same
        files = np.repeat([piece.file for piece in pieces], [piece.pages for piece in pieces])
        self._pages += len(files)
        known = contents < len(self._owner)
        contents, files = contents[known], files[known]
        new = self._owner[contents] == self._n_files
        self._owner[contents[new][::-1]] = files[new][::-1]  # the last one written stays: the first file
        self._several[contents[files != self._owner[contents]]] = True

    def explanation(self, tree: FileTree, copies: NDArray[np.int64]) -> Explanation:
        """What all batches showed. `copies`: of each content."""
        owner = self._owner[self._same]
        explained = owner < self._n_files
        owner, found = owner[explained], copies[explained]
        by_file = [
            FileShare(path, contents, n, (n - contents) * PAGE)
            for path, contents, n in zip(
                tree.paths,
                np.bincount(owner, minlength=self._n_files).tolist(),
                np.bincount(owner, found, self._n_files).astype(np.int64).tolist(),
                strict=True,
            )
            if contents
        ]
        return Explanation(
            root=tree.root,
            files=len(tree.paths),
            bytes=self._pages * PAGE,
            unreadable=tree.unreadable,
            contents=len(copies),
            explained_contents=len(owner),
            in_several_files=int(np.count_nonzero(self._several[self._same])),
            saved_bytes=int((copies - 1).sum()) * PAGE,
            explained_bytes=int((found - 1).sum()) * PAGE,
            by_file=_ordered(by_file),
            by_directory=_ordered(_by_directory(by_file)),
        )


def _by_directory(files: Sequence[FileShare]) -> list[FileShare]:
    sums: dict[str, list[int]] = {}
    for file in files:
        folder = "/".join(file.path.split("/")[:-1][:2]) or "."
        total = sums.setdefault(folder, [0, 0, 0])
        for index, value in enumerate((file.contents, file.copies, file.saved_bytes)):
            total[index] += value
    return [FileShare(folder, *total) for folder, total in sums.items()]


def _ordered(shares: list[FileShare]) -> list[FileShare]:
    return sorted(shares, key=lambda share: (-share.saved_bytes, share.path))
