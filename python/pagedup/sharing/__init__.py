"""Which pages are equal and what storing each once saves: in a snapshot, in live guests, in memory of one's own."""

from pagedup.sharing.duplicates import Duplicates
from pagedup.sharing.explain import Explanation, FileShare, explain
from pagedup.sharing.find import find_duplicates
from pagedup.sharing.find_names import find_duplicate_names
from pagedup.sharing.frame_pool import FramePool, LargeHints, PoolGuest
from pagedup.sharing.in_place import InPlace, Left, allocate, share_in_place
from pagedup.sharing.isolation import Isolation, isolation_cost
from pagedup.sharing.ksm import KsmCounters, KsmPace, KsmPrediction, predict_ksm
from pagedup.sharing.large_pages import BreakStep, LargePageCost, huge_page_cost
from pagedup.sharing.lifetime import Lifetime, Volatility
from pagedup.sharing.numa import NumaSaving, split_by_node
from pagedup.sharing.policies import Dirty, DirtyCounts, Esx, EsxCounts, Ksm, KsmScanCounts
from pagedup.sharing.regions import RegionSummary, summarize_layout_regions, summarize_regions
from pagedup.sharing.summary import GuestSummary, SharedContent, Summary, most_shared, summarize, summarize_guests

__all__ = [
    "BreakStep",
    "Dirty",
    "DirtyCounts",
    "Duplicates",
    "Esx",
    "EsxCounts",
    "Explanation",
    "FileShare",
    "FramePool",
    "GuestSummary",
    "InPlace",
    "Isolation",
    "Ksm",
    "KsmCounters",
    "KsmPace",
    "KsmPrediction",
    "KsmScanCounts",
    "LargeHints",
    "LargePageCost",
    "Left",
    "Lifetime",
    "NumaSaving",
    "PoolGuest",
    "RegionSummary",
    "SharedContent",
    "Summary",
    "Volatility",
    "allocate",
    "explain",
    "find_duplicate_names",
    "find_duplicates",
    "huge_page_cost",
    "isolation_cost",
    "most_shared",
    "predict_ksm",
    "share_in_place",
    "split_by_node",
    "summarize",
    "summarize_guests",
    "summarize_layout_regions",
    "summarize_regions",
]
