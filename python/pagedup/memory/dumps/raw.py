"""A raw memory image: a file whose byte n is the guest's byte n."""

from __future__ import annotations

from pagedup.memory.dumps.image_file import ImageFile
from pagedup.memory.dumps.mapped_source import MappedSource


class RawSource(MappedSource):
    """A mapped image file. What a sparse file does not store is known to be zero and is not read."""

    kind = "raw"

    def __init__(self, name: str, file: ImageFile, frame_size: int) -> None:
        super().__init__(name, file, frame_size)
        if file.size % frame_size:
            raise OSError(
                f"{file.path}: {file.size:,} bytes is no multiple of {frame_size:,}: {file.size % frame_size:,} bytes"
                " too many (not a raw memory image, or truncated?)"
            )
        self._add(0, 0, file.size)
