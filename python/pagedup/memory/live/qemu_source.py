"""A live QEMU guest: its RAM, wherever QEMU has mapped it."""

from __future__ import annotations

from pagedup.memory.live.live_source import LiveSource, Place
from pagedup.memory.live.qemu import QemuGuest, ram_blocks
from pagedup.memory.live.smaps import Mapping

_ALIGNED = 1 << 30  # bytes; the next block's address, so that large pages lie in the guest as they do in QEMU


class QemuSource(LiveSource):
    """The RAM blocks of a guest, each at the next multiple of 1 GiB, the first one at 0.

    Addresses count within the blocks, not as the guest's CPU does, for which a part may lie above 4 GiB.
    """

    kind = "qemu"

    def __init__(self, name: str, text: str, guest: QemuGuest) -> None:
        super().__init__(name, text, guest.pid)
        self.detail = f"pid {guest.pid}"
        self._guest = guest

    def places(self, mappings: list[Mapping]) -> list[Place]:
        """The mappings of the blocks, or the parts of them that are a block's."""
        found = []
        base = 0
        for block in ram_blocks(self._guest, mappings):
            shift = base - block.start
            for mapping in mappings:
                start, end = max(mapping.start, block.start), min(mapping.end, block.end)
                if start < end:
                    found.append(Place(mapping, start, end, shift, block.name))
            base += -((block.start - block.end) // _ALIGNED) * _ALIGNED
        return found
