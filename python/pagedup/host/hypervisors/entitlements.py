"""How ESX divides memory that is short: by shares, with a tax on what is idle. (Waldspurger, OSDI 2002, section 5.)"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def price(shares: float, pages: float, active: float, tax: float) -> float:
    """Shares that a guest pays for each of its pages: rho = S / (P * (f + k * (1 - f))), with k = 1 / (1 - tax).

    active: f, the share of its pages that it uses. tax: the share of idle pages that is taken from it if others need
    them; at 0.75 an idle page costs what 4 used ones do. Memory is taken from who pays least.
    """
    return shares / (pages * (active + (1 - active) / (1 - tax)))


def entitlements(
    shares: Sequence[float],
    lower: Sequence[int],
    upper: Sequence[int],
    total: int,
    *,
    active: Sequence[float],
    tax: float,
) -> list[int]:
    """Pages of each guest so that all pay one price, as far as the bounds let them.

    lower, upper: the least and the most pages that each can have. total: pages that they have together; within the sums
    of the bounds it is met exactly. active: pages that each uses, which are those it keeps first: of fewer pages than
    these all are active, f = 1. shares: more than 0.
    """
    s, least, most, used = (np.asarray(each, np.float64) for each in (shares, lower, upper, active))
    goal = min(max(total, sum(lower)), sum(upper))
    k = 1 / (1 - tax)

    def pages(at: float) -> NDArray[np.float64]:
        """Of each guest where a page costs 1 / at shares: the inverse of `price`."""
        paid = s * at
        return np.clip(np.where(paid <= used, paid, (paid + (k - 1) * used) / k), least, most)

    # The sum of the pages rises with `at`, and is straight between the points where some guest comes to a bound or to
    # the end of what it uses.
    def reaches(held: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(held <= used, held, k * held - (k - 1) * used) / s

    bends = np.unique(np.concatenate([reaches(least), reaches(used), reaches(most)]))
    right = bisect_left(range(len(bends)), goal, key=lambda i: int(np.floor(pages(float(bends[i])).sum() + 1e-6)))
    if right == 0 or right == len(bends):
        held = pages(float(bends[min(right, len(bends) - 1)])) if len(bends) else s
    else:
        a, b = pages(float(bends[right - 1])), pages(float(bends[right]))
        rise = b.sum() - a.sum()
        held = a + (b - a) * ((goal - a.sum()) / rise if rise else 0.0)
    return _whole(held, lower, upper, goal)


def _whole(held: NDArray[np.float64], lower: Sequence[int], upper: Sequence[int], total: int) -> list[int]:
    """Whole pages that add up: rounded down, and the largest fractions up."""
    pages = [min(max(int(n), low), high) for n, low, high in zip(held, lower, upper, strict=True)]
    missing = total - sum(pages)
    step = 1 if missing > 0 else -1  # that a sum of floats is too large by a page is possible, too
    order = np.argsort(pages - held, kind="stable")[::step]
    while missing:
        for guest in order.tolist():
            if missing and lower[guest] <= pages[guest] + step <= upper[guest]:
                pages[guest] += step
                missing -= step
    return pages
