"""From open sources to everything that a report of a scan shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pagedup.cli.answer import Answer
from pagedup.memory import LiveSource, Progress, Source
from pagedup.memory.digest import digest
from pagedup.memory.dumps.mapped_source import MappedSource
from pagedup.memory.files.filetree import FileTree
from pagedup.memory.layouts import LayoutSource
from pagedup.memory.live.numa import memory_nodes, page_nodes
from pagedup.report import ScannedGuest, ScanResult, scan_json
from pagedup.report.provenance import Provenance, SourceDigest
from pagedup.sharing import (
    Duplicates,
    NumaSaving,
    RegionSummary,
    explain,
    find_duplicate_names,
    find_duplicates,
    huge_page_cost,
    isolation_cost,
    most_shared,
    predict_ksm,
    split_by_node,
    summarize,
    summarize_guests,
    summarize_layout_regions,
    summarize_regions,
)
from pagedup.sharing.watch import Watch

if TYPE_CHECKING:
    from rich.console import RenderableType

_KSM_PAGE = 4096
_MOST_SHARED = 5


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the sources.

    page_sizes: bytes, ascending. domains: one a source, or None: all may share. repeat, interval: how often live
    memory is looked at again, and how many seconds apart. tree: files to explain the sharing by. digests: whether to
    make them.
    """

    page_sizes: Sequence[int]
    domains: Sequence[str] | None = None
    threads: int | None = None
    repeat: int = 1
    interval: float = 0.0
    tree: FileTree | None = None
    digests: bool = False


@dataclass(frozen=True, slots=True)
class Examined(Answer):
    """The answer, the grouping at the smallest page size that it is of, and the digests, one a source or none at all.

    Live memory has None: it changes, and is not kept.
    """

    result: ScanResult
    duplicates: Duplicates
    digests: Sequence[str | None]

    def data(self) -> dict[str, Any]:
        """In schema pagedup.scan/1."""
        return scan_json(self.result)

    def text(self) -> RenderableType:
        """The tables, and the verdict."""
        from pagedup.report.terminal import scan_text

        return scan_text(self.result)

    def sources(self) -> Sequence[SourceDigest]:
        """What was scanned."""
        return [
            SourceDigest(guest.name, guest.kind, guest.bytes, digest)
            for guest, digest in zip(self.result.guests, self.digests, strict=True)
        ]

    def html(self, provenance: Provenance) -> str:
        """With pictures."""
        from pagedup.report.html import scan_html
        from pagedup.sharing.pictures import guest_matrix, memory_map

        return scan_html(self.result, memory_map(self.duplicates), guest_matrix(self.duplicates), provenance)


def examine(sources: Sequence[Source], question: Question, frame_size: int, progress: Progress | None) -> Examined:
    """Group all frames, look again at live ones, and answer; raises OSError for a source that cannot be trusted."""
    memory = [source.extents for source in sources]
    layouts = [source.layout for source in sources if isinstance(source, LayoutSource)]
    if layouts:  # all of them are, see open_sources
        free = find_duplicate_names(layouts, threads=question.threads, progress=progress)
    else:
        free = find_duplicates(memory, frame_size=frame_size, threads=question.threads, progress=progress)
    pages = free.coarsen(_KSM_PAGE // frame_size)
    explanation = None
    if question.tree is not None:
        explanation = explain(pages, memory, question.tree, threads=question.threads, progress=progress)
    digests: list[str | None] = []
    if question.digests:
        digests = [digest(source, progress) if isinstance(source, MappedSource) else None for source in sources]
    watch = Watch(sources, free)
    watch.look(question.repeat, question.interval, progress)
    for source in sources:
        source.check()

    bounded = free if question.domains is None else free.isolate(question.domains)
    smallest = bounded.coarsen(question.page_sizes[0] // frame_size)
    summaries = []
    coarse = smallest
    for index, size in enumerate(question.page_sizes):  # each from the one before it, which has fewer frames
        if progress is not None:
            progress("page sizes", index, len(question.page_sizes))
        coarse = coarse.coarsen(size // coarse.frame_size)
        summaries.append(summarize(coarse))
    result = ScanResult(
        guests=_guests(sources, question.domains),
        page_sizes=summaries,
        per_guest=summarize_guests(smallest),
        most_shared=most_shared(smallest, _MOST_SHARED),
        work=free.work._asdict(),
        ksm=predict_ksm(pages, volatile=watch.volatile(pages) if watch.looks else None),
        large_pages=huge_page_cost(bounded.coarsen(_KSM_PAGE // frame_size)),
        isolation=isolation_cost(free, question.domains) if len(sources) > 1 else None,
        numa=_numa(sources, pages),
        volatile=watch.volatility(),
        lifetime=watch.lifetime() if question.repeat > 1 else None,
        regions=_regions(sources, smallest),
        explanation=explanation,
    )
    return Examined(result, smallest, digests)


def _numa(sources: Sequence[Source], pages: Duplicates) -> NumaSaving | None:
    """None where there is only one node, or no source is live."""
    if len(memory_nodes()) < 2 or not any(isinstance(source, LiveSource) for source in sources):
        return None
    nodes = np.full(pages.n_frames, -1, np.int16)
    addresses = pages.addresses
    for guest, source in enumerate(sources):
        if isinstance(source, LiveSource):
            own = slice(*pages.guest_offsets[guest : guest + 2])
            nodes[own] = page_nodes(source.pid, source.in_process(addresses[own]))
    return split_by_node(pages, nodes)


def _regions(sources: Sequence[Source], duplicates: Duplicates) -> list[RegionSummary]:
    layouts = [source.layout for source in sources if isinstance(source, LayoutSource)]
    if layouts:
        return summarize_layout_regions(duplicates, layouts)
    if not any(isinstance(source, LiveSource) for source in sources):
        return []
    return summarize_regions(
        duplicates, [source.regions if isinstance(source, LiveSource) else [] for source in sources]
    )


def _guests(sources: Sequence[Source], domains: Sequence[str] | None) -> list[ScannedGuest]:
    return [
        ScannedGuest(
            source.name,
            source.text,
            source.kind,
            source.detail,
            source.size,
            domains[index] if domains else None,
            source.apart,
        )
        for index, source in enumerate(sources)
    ]
