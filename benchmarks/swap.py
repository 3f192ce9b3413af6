"""Measurements of paging: the swap file against the plain system calls, compression against zlib in a plain loop."""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Outcome, rounds_of
from benchmarks.settings import Settings
from pagedup.host import Pager
from pagedup.sharing import FramePool
from pagedup.swap import CompressedCache, SwapFile

_PAGE = 4096
_TRANSFER = 1 << 20
_SCATTERED = 8  # one page in so many is asked for, in any order


def swap(settings: Settings) -> Iterator[Outcome]:
    """Pages to a swap file and back, whole and scattered; compression; and a pager with both."""
    n = settings.scaled(1 << 15)
    pages = _pages(n)
    yield from _file(settings, pages)
    yield from _compression(settings, pages[: n // 4])
    yield from _pager(settings, pages)


def _file(settings: Settings, pages: NDArray[np.uint8]) -> Iterator[Outcome]:
    settings.say("pages to a swap file and back")
    n = len(pages)
    room = mmap.mmap(-1, pages.nbytes)
    whole = np.frombuffer(room, np.uint8).reshape(pages.shape)
    whole[:] = pages
    view, out = memoryview(room), np.empty_like(pages)
    scattered = np.random.default_rng(1).permutation(n)[: n // _SCATTERED].astype(np.uint32)
    with SwapFile(n) as file, SwapFile(n) as plain:
        slots = file.put(pages).slots
        plain.put(pages)
        kind = "past the page cache" if file.direct else "through the page cache"

        def put() -> None:
            file.free(slots)
            if len(file.put(pages).slots) < n:
                raise AssertionError("the disk is full")

        def pwrite() -> None:
            for at in range(0, len(view), _TRANSFER):
                os.pwrite(plain.fileno(), view[at : at + _TRANSFER], at)
            if not plain.direct:
                os.fdatasync(plain.fileno())

        def preadv() -> None:
            for at in range(0, len(view), _TRANSFER):
                os.preadv(plain.fileno(), [view[at : at + _TRANSFER]], at)

        def preadv_scattered() -> None:
            for slot in np.sort(scattered).tolist():
                os.preadv(plain.fileno(), [view[slot * _PAGE : (slot + 1) * _PAGE]], slot * _PAGE)

        times = rounds_of(
            {
                "put": put,
                "pwrite": pwrite,
                "get": lambda: file.get(slots, out),
                "preadv": preadv,
                "get scattered": lambda: file.get(scattered, out[: len(scattered)]),
                "preadv scattered": preadv_scattered,
            },
            settings.rounds,
        )
        if not (out[: len(scattered)] == pages[scattered]).all():
            raise AssertionError("what came back is not what was stored")
    for ours, theirs, what, floor, size in (
        ("put", "pwrite", "pages to swap, checksums made", 0.4, pages.nbytes),
        ("get", "preadv", "pages from swap, checksums verified", 0.4, pages.nbytes),
        ("get scattered", "preadv scattered", "one page in 8 from swap, in any order", 0.6, len(scattered) * _PAGE),
    ):
        best = {side: f"{size / min(t[side] for t in times) / 1e6:,.0f} MB/s" for side in (ours, theirs)}
        note = f"{kind}; best: {best[ours]}, {theirs} {best[theirs]}"
        ratios = [t[theirs] / t[ours] for t in times]
        yield Outcome("swap", f"{what}: speed / {theirs.split()[0]}", ratios, floor, note=note)


def _compression(settings: Settings, pages: NDArray[np.uint8]) -> Iterator[Outcome]:
    settings.say("compressing pages")
    cpus = len(os.sched_getaffinity(0))
    out = np.empty_like(pages)
    with CompressedCache(len(pages)) as cache:
        entries = cache.put(cache.compress(pages))
        kept = np.flatnonzero(entries < cache.entries)
        streams = [zlib.compress(page.data, 1) for page in pages[kept]]
        times = rounds_of(
            {
                "compress": lambda: cache.compress(pages),
                "zlib": lambda: [zlib.compress(page.data, 1) for page in pages],
                "get": lambda: cache.get(entries[kept], out[: len(kept)]),
                "zlib back": lambda: [zlib.decompress(stream) for stream in streams],
            },
            settings.rounds,
            cpus=cpus,
        )
    for ours, theirs, what, n in (
        ("compress", "zlib", "pages compressed: speed / zlib.compress in a plain loop", len(pages)),
        ("get", "zlib back", "pages uncompressed: speed / zlib.decompress in a plain loop", len(kept)),
    ):
        note = f"best: {n / min(t[ours] for t in times):,.0f} pages/s on {cpus} CPUs; the loop is on one"
        yield Outcome("swap", what, [t[theirs] / t[ours] for t in times], 0.75, note=note)


def _pager(settings: Settings, pages: NDArray[np.uint8]) -> Iterator[Outcome]:
    """All of a guest out and in again; told, as no peer does it."""
    settings.say("paging a guest out and in")
    n = len(pages)
    everything = np.arange(n)
    with FramePool(n) as pool, SwapFile(n) as file, CompressedCache(n // 10) as cache:
        pager, guest = Pager(pool, file, cache), pool.add_guest(n)
        guest.write(everything, pages)
        times = rounds_of(
            {"out": lambda: pager.page_out(guest, everything), "in": lambda: pager.page_in(guest, everything)},
            1,
            cpus=len(os.sched_getaffinity(0)),
        )
        counts = pager.counts()
        note = f"{counts.compressed:,} compressed, {counts.swapped_out + counts.evicted:,} swapped, in two rounds"
    for side, what in (("out", "paged out, compressed first"), ("in", "paged in")):
        speeds = [n / t[side] / 1e6 for t in times]
        yield Outcome("swap", f"(for comparison: pages {what}, by the pager: million a second)", speeds, note=note)


def _pages(n: int) -> NDArray[np.uint8]:
    """Random bytes, of which half compresses to half a frame."""
    pages = np.random.default_rng(0).integers(0, 256, (n, _PAGE), np.uint8)
    pages[::2, _PAGE // 3 :] = np.arange(n, dtype=np.uint8)[::2, None]
    return pages
