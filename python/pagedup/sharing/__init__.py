"""Snapshot analysis: which frames of guests are equal, and what storing each content once saves."""

from pagedup.sharing.duplicates import Duplicates
from pagedup.sharing.find import find_duplicates
from pagedup.sharing.summary import GuestSummary, SharedContent, Summary, most_shared, summarize, summarize_guests

__all__ = [
    "Duplicates",
    "GuestSummary",
    "SharedContent",
    "Summary",
    "find_duplicates",
    "most_shared",
    "summarize",
    "summarize_guests",
]
