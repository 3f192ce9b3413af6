"""What the sources have in common that are files: a mapping, and ranges of it that are a guest's memory."""

from __future__ import annotations

from pagedup.memory.dumps.image_file import ImageFile
from pagedup.memory.extent import Extent, ZeroExtent
from pagedup.memory.source import Apart, Source


class MappedSource(Source):
    """The memory in a file, which the source owns from now on. A subclass says where in it the guest's memory lies."""

    def __init__(self, name: str, file: ImageFile, frame_size: int) -> None:
        super().__init__(name, file.path, 0)
        self.file = file
        self.identity = file.identity
        self._frame_size = frame_size

    def contents(self) -> list[memoryview]:
        """The file, all of it."""
        return [self.file.content]

    def check(self) -> None:
        """Raise OSError when the file shrank since it was opened."""
        self.file.check()

    def close(self) -> None:
        """Close the file and its mapping."""
        self.extents = []
        self.file.close()

    def _add(self, address: int, offset: int, size: int) -> None:
        """Scan the whole frames in `size` bytes, which lie in the guest at `address` and in the file at `offset`."""
        begin = min(-address % self._frame_size, size)
        end = size - (size - begin) % self._frame_size
        self._set_apart(Apart.PARTIAL_PAGE, begin + size - end)
        self.size += end - begin
        for start, stop, stored in self.file.stretches(offset + begin, offset + end):
            place = address + start - offset
            self.extents.append(
                Extent(place, self.file.view(start, stop)) if stored else ZeroExtent(place, stop - start)
            )

    def _set_apart(self, reason: Apart, size: int) -> None:
        if size:
            self.apart[reason] = self.apart.get(reason, 0) + size
