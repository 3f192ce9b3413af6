"""A host with too little memory for its guests: their pages move between memory, a compressed cache and swap."""

from pagedup.host.pager import Pager
from pagedup.host.paging import Lost, PagedIn, PagedOut, PageLost, PagingCounts

__all__ = ["Lost", "PageLost", "PagedIn", "PagedOut", "Pager", "PagingCounts"]
