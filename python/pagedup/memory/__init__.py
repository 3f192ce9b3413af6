"""Where bytes come from: raw images and live processes, each a guest made of extents."""

from pagedup.memory.extent import AnyExtent, Extent, NamedExtent, Region, ZeroExtent
from pagedup.memory.live.dirty_log import DirtyLog
from pagedup.memory.live.live_source import LiveSource
from pagedup.memory.live.take import LiveOptions
from pagedup.memory.opening import list_sources, name_sources, open_sources
from pagedup.memory.source import Apart, Progress, Source, SourceTextError

__all__ = [
    "AnyExtent",
    "Apart",
    "DirtyLog",
    "Extent",
    "LiveOptions",
    "LiveSource",
    "NamedExtent",
    "Progress",
    "Region",
    "Source",
    "SourceTextError",
    "ZeroExtent",
    "list_sources",
    "name_sources",
    "open_sources",
]
