"""What must hold of any file at all that is opened as memory."""

import os

import numpy as np

from pagedup.memory import Extent, Source, open_sources
from pagedup.memory.dumps.mapped_source import MappedSource
from pagedup.memory.layouts import Layout, LayoutSource
from pagedup.sharing import find_duplicate_names, summarize_layout_regions


def check_input(data: bytes, path: str) -> str:
    """Open the input as the file at `path`, which is written anew: what came of it, a kind of source or "refused".

    Opening it either raises an error of one line, or gives extents that are sound. The first byte chooses the size of
    the frames, the others are the file.
    """
    frame_size = 8 << (data[0] % 10 if data else 0)
    with open(path, "wb") as file:
        file.write(data[1:])
    try:
        (source,) = open_sources([path], frame_size=frame_size)
    except OSError as error:
        assert "\n" not in str(error)
        assert path in str(error)
        return "refused"
    with source:
        if isinstance(source, LayoutSource):
            check_layout(source.layout)
        else:
            check_extents(source, os.stat(path).st_size, frame_size)
    return source.kind


def check_layout(layout: Layout) -> None:
    """Its parts fit together, so that it can be grouped."""
    n_present = int(np.count_nonzero(layout.present))
    found = find_duplicate_names([layout], threads=1)
    assert found.n_frames == n_present <= layout.n_pages
    assert sum(row.pages for row in summarize_layout_regions(found, [layout])) == n_present


def check_extents(source: Source, file_size: int, frame_size: int) -> None:
    """Whole frames with ascending addresses, which lie inside the file and take no byte of it twice."""
    assert isinstance(source, MappedSource)
    base = np.frombuffer(source.file.content, np.uint8).ctypes.data
    places = []
    end = total = 0
    for extent in source.extents:
        if not isinstance(extent, Extent):
            size = extent.size
        else:
            view = np.frombuffer(memoryview(extent.buffer), np.uint8)
            size = view.nbytes
            places.append((view.ctypes.data - base, size))
        assert size > 0
        assert size % frame_size == extent.address % frame_size == 0
        assert extent.address >= end
        end = extent.address + size
        total += size
    assert end <= 1 << 64
    assert source.size == total <= file_size
    done = 0
    for place, size in sorted(places):
        assert done <= place
        done = place + size
    assert done <= file_size
    assert all(0 < size <= 1 << 64 for size in source.apart.values())
