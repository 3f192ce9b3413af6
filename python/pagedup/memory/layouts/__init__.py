"""A guest's memory by what its pages hold: content names instead of bytes."""

from pagedup.memory.layouts.layout import Layout, LayoutRegion, RegionKind
from pagedup.memory.layouts.layout_source import LayoutSource
from pagedup.memory.layouts.names import ABSENT, PAGE, ZERO, NameKind

__all__ = ["ABSENT", "PAGE", "ZERO", "Layout", "LayoutRegion", "LayoutSource", "NameKind", "RegionKind"]
