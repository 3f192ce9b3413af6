"""Where bytes come from: raw images and live processes, each a guest made of extents."""

from pagedup.memory.extent import Extent, ZeroExtent
from pagedup.memory.opening import name_sources, open_sources
from pagedup.memory.source import Apart, Progress, Source, SourceTextError

__all__ = ["Apart", "Extent", "Progress", "Source", "SourceTextError", "ZeroExtent", "name_sources", "open_sources"]
