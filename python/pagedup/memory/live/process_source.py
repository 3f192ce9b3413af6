"""A live process: the private anonymous memory that it alone holds, at its virtual addresses."""

from __future__ import annotations

from pagedup.memory.live.live_source import LiveSource, Place
from pagedup.memory.live.smaps import Mapping


class ProcessSource(LiveSource):
    """All mappings of one process."""

    kind = "process"

    def __init__(self, name: str, text: str, pid: int) -> None:
        super().__init__(name, text, pid)
        self.detail = self._files.command

    def places(self, mappings: list[Mapping]) -> list[Place]:
        """Each mapping where it is."""
        return [Place(mapping, mapping.start, mapping.end, 0, mapping.name) for mapping in mappings]
