"""How long sharing would last: what changed while it was looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Volatility:
    """Pages that were looked at twice, at most `seconds` apart, and how many of them had changed meanwhile.

    changed_zero pages were zero at the first look, changed_nonzero were not; changed is their sum.
    """

    seconds: float
    pages: int
    changed: int
    changed_zero: int
    changed_nonzero: int


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long shared pages stay as they are.

    unchanged: after so many seconds so many pages were still as at the first look, ascending; the first is (0, all).
    half_life: seconds after which half of them have changed, or None if that cannot be told; `method` says in words
    how it was obtained. writes_per_page_hour: how often a shared page is written, in an hour.
    """

    unchanged: tuple[tuple[float, int], ...]
    half_life: float | None
    method: str
    writes_per_page_hour: float | None
