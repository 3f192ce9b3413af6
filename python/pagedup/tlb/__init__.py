"""What translation costs: TLBs, page-walk caches, walks of one page table or of two."""

from pagedup.tlb.geometry import PAGE_SIZES, Cache, Geometry
from pagedup.tlb.microarchitectures import microarchitecture, this_cpu
from pagedup.tlb.reach import reach
from pagedup.tlb.tlb import Tlb
from pagedup.tlb.translations import Translations

__all__ = [
    "PAGE_SIZES",
    "Cache",
    "Geometry",
    "Tlb",
    "Translations",
    "microarchitecture",
    "reach",
    "this_cpu",
]
