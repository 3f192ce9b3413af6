"""Taking live memory for a scan: every page is read as it streams by, and each content that repeats is kept once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pagedup.memory.live.live_source import LiveSource
from pagedup.memory.live.naming import Naming
from pagedup.memory.live.room import allocate, available_memory
from pagedup.memory.source import Progress

# Bytes a frame beside what is kept: 28 for grouping (see find_duplicates), as many again for what is told of the
# classes, and 24 for hashes and names; and 16 MiB.
_BESIDE, _FIXED = 80, 16 << 20


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How live memory is taken.

    mergeable: only what is marked MADV_MERGEABLE, which is all that the kernel's own sharing looks at.
    pause: freeze all processes while they are read, so that what is read is of one instant.
    spool: a folder for the pages that must be kept, where they do not fit in memory.
    """

    mergeable: bool = False
    pause: bool = False
    spool: str | None = None


DEFAULT = LiveOptions()


def take(
    sources: Sequence[LiveSource],
    options: LiveOptions,
    *,
    frame_size: int,
    alone: bool,
    progress: Progress | None = None,
) -> None:
    """Read the sources, and give them their extents.

    Pages are named by their contents, of which only those that repeat are kept, once each. Not so where other memory is
    scanned with them, so that they are not `alone`, or where frames are smaller than pages: then all bytes are kept.

    Raises OSError when a process ends, or when what must be kept does not fit in memory.
    """
    with ExitStack() as pauses:
        if options.pause:
            from pagedup.memory.live.pause import paused  # only here, as few scans need it

            for source in sources:
                pauses.enter_context(paused(source.pid))
        for source in sources:
            source.survey(mergeable=options.mergeable)
        whole = not alone or frame_size < os.sysconf("SC_PAGE_SIZE")
        # Both early, since reading it all takes its time.
        if options.spool is None:
            _refuse_too_large(sources, frame_size, sum(source.size for source in sources) if whole else 0)
        else:
            allocate(1, options.spool)
        for source in sources:
            if whole:
                source.copy(spool=options.spool, progress=progress)
            else:
                source.hash(progress)
        if not whole:
            naming = Naming(sources)
            if options.spool is None:
                _refuse_too_large(sources, frame_size, naming.kept_bytes)
            naming.run(lambda size: allocate(size, options.spool), frozen=options.pause, progress=progress)


def _refuse_too_large(sources: Sequence[LiveSource], frame_size: int, kept: int) -> None:
    """`kept`: bytes of the pages to keep, as far as that is known."""
    size = sum(source.size for source in sources)
    needed, available = kept + size // frame_size * _BESIDE + _FIXED, available_memory()
    if size and needed > available:
        names = ", ".join(source.name for source in sources[:3]) + (", ..." if len(sources) > 3 else "")
        spool = f"give --spool DIR, a folder with {kept:,} bytes free, or " if kept else ""
        raise OSError(
            f"{names}: scanning takes {needed:,} bytes of memory, and {available:,} are available; {spool}scan fewer"
            " at once"
        )
