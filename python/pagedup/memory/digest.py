"""Which bytes were read: BLAKE3 of a source, as `b3sum FILE` prints it of a file."""

from __future__ import annotations

from pagedup.memory.dumps.mapped_source import MappedSource
from pagedup.memory.source import Progress


def digest(source: MappedSource, progress: Progress | None = None) -> str:
    """BLAKE3 of all bytes of the source's file, in hexadecimal."""
    from blake3 import blake3  # only here: most scans need none

    hasher = blake3(max_threads=blake3.AUTO)
    contents = source.contents()
    total, done = sum(map(len, contents)), 0
    for part in contents:
        for begin in range(0, len(part), _STEP):
            hasher.update(part[begin : begin + _STEP])
            done += min(_STEP, len(part) - begin)
            if progress is not None:
                progress(f"digest of {source.name}", done, total)
    return hasher.hexdigest()


_STEP = 64 << 20  # bytes, so that progress moves
