"""A layout as a source: a guest whose memory is known by names only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pagedup.memory.layouts.names import PAGE
from pagedup.memory.source import Apart, Source

if TYPE_CHECKING:
    from pagedup.memory.layouts.layout import Layout


class LayoutSource(Source):
    """A layout that was saved or generated. It has no extents: there are no bytes to read, only names to compare."""

    kind = "layout"

    def __init__(self, name: str, text: str, layout: Layout) -> None:
        present = int(np.count_nonzero(layout.present))
        super().__init__(name, text, present * PAGE)
        self.layout = layout
        if present < layout.n_pages:
            self.apart = {Apart.ABSENT: (layout.n_pages - present) * PAGE}

    def contents(self) -> list[memoryview]:
        """The names, 8 bytes a page."""
        return [np.ascontiguousarray(self.layout.names).data.cast("B")] if self.layout.n_pages else []

    def check(self) -> None:
        """Nothing to ask: a layout is read whole when it is opened."""

    def close(self) -> None:
        """Nothing is open."""
