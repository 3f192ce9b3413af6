"""Where pages go when memory is short: a swap file, a compressed cache before it, and which pages go."""

from pagedup.swap.compressed_cache import CompressedCache
from pagedup.swap.compressed_names import CompressedNames
from pagedup.swap.compressed_pages import NO_ENTRY, Compressed, CompressedPages
from pagedup.swap.errors import SwapCorrupt, SwapUnreadable
from pagedup.swap.swap_file import SwapFile
from pagedup.swap.swap_names import SwapNames
from pagedup.swap.swap_space import Put, SwapCounts, SwapSpace
from pagedup.swap.victims import Victims, oldest_victims, random_victims

__all__ = [
    "NO_ENTRY",
    "Compressed",
    "CompressedCache",
    "CompressedNames",
    "CompressedPages",
    "Put",
    "SwapCorrupt",
    "SwapCounts",
    "SwapFile",
    "SwapNames",
    "SwapSpace",
    "SwapUnreadable",
    "Victims",
    "oldest_victims",
    "random_victims",
]
