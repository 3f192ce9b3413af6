"""pagedup: what storing every identical memory page once really buys, and what it costs."""

TYPE_CHECKING = False  # as that of typing, which takes its time to import

if TYPE_CHECKING:
    from pagedup.memory import DirtyLog, Extent, Source, ZeroExtent, open_sources
    from pagedup.sharing import (
        Dirty,
        Duplicates,
        Esx,
        FramePool,
        GuestSummary,
        InPlace,
        Ksm,
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
    "Dirty",
    "DirtyLog",
    "Duplicates",
    "Esx",
    "Extent",
    "FramePool",
    "GuestSummary",
    "InPlace",
    "Ksm",
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


def __getattr__(name: str) -> object:
    """At the first use of one of these all are imported: the command must first be able to catch an interrupt."""
    if name not in __all__:
        raise AttributeError(f"module 'pagedup' has no attribute '{name}'")
    from pagedup import memory, sharing

    for each in __all__:
        globals()[each] = getattr(memory if hasattr(memory, each) else sharing, each)
    return globals()[name]
