"""A simulated host: guests, sharing, balloon, compression and swap, states, cost and time."""

from pagedup.host.pager import Pager
from pagedup.host.paging import Lost, PagedIn, PagedOut, PageLost, PagingCounts

__all__ = ["Lost", "PageLost", "PagedIn", "PagedOut", "Pager", "PagingCounts"]
