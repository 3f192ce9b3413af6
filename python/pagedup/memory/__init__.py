"""Where bytes come from: raw images and live processes, each a guest made of extents."""

from pagedup.memory.extent import Extent, ZeroExtent
from pagedup.memory.opening import open_sources
from pagedup.memory.source import Progress, Source, SourceTextError

__all__ = ["Extent", "Progress", "Source", "SourceTextError", "ZeroExtent", "open_sources"]
