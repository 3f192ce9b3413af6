"""pagedup: what storing every identical memory page once really buys, and what it costs."""

from pagedup.memory import Extent, Source, ZeroExtent, open_sources
from pagedup.sharing import (
    Duplicates,
    GuestSummary,
    SharedContent,
    Summary,
    find_duplicates,
    most_shared,
    summarize,
    summarize_guests,
)

__all__ = [
    "Duplicates",
    "Extent",
    "GuestSummary",
    "SharedContent",
    "Source",
    "Summary",
    "ZeroExtent",
    "find_duplicates",
    "most_shared",
    "open_sources",
    "summarize",
    "summarize_guests",
]
