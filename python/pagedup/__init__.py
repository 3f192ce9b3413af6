"""pagedup: what storing every identical memory page once really buys, and what it costs."""

from pagedup.memory import Extent, Source, ZeroExtent, open_sources
from pagedup.sharing import (
    Duplicates,
    GuestSummary,
    InPlace,
    Left,
    SharedContent,
    Summary,
    allocate,
    find_duplicates,
    most_shared,
    share_in_place,
    summarize,
    summarize_guests,
)

__all__ = [
    "Duplicates",
    "Extent",
    "GuestSummary",
    "InPlace",
    "Left",
    "SharedContent",
    "Source",
    "Summary",
    "ZeroExtent",
    "allocate",
    "find_duplicates",
    "most_shared",
    "open_sources",
    "share_in_place",
    "summarize",
    "summarize_guests",
]
