"""What can go wrong when a page is asked back."""

from __future__ import annotations

from collections.abc import Sequence


class SwapCorrupt(ValueError):
    """What is there is not what was stored, by its checksum. `slots`: which of those asked for, once each.

    Or `entries` of a compressed cache: then these are in `slots`. All others of the batch are in its `out`; theirs are
    zero bytes.
    """

    def __init__(self, slots: Sequence[int], what: str = "slot") -> None:
        self.slots = tuple(slots)
        super().__init__(f"{_named(what, self.slots)} did not keep what was stored: the checksum differs")


class SwapUnreadable(OSError):
    """The system could not read slots; perhaps it can later. `slots`: which of those asked for, once each.

    All others of the batch are in its `out`; theirs are zero bytes. If some were read whose checksums differ, these are
    among them: the next try will tell.
    """

    def __init__(self, slots: Sequence[int], error: OSError) -> None:
        self.slots = tuple(slots)
        super().__init__(error.errno, f"{_named('slot', self.slots)} of the swap: {error.strerror}")


def _named(what: str, slots: Sequence[int]) -> str:
    more = f" and {len(slots) - 1:,} more" if len(slots) > 1 else ""
    return f"{what} {slots[0]}{more}"
