"""What KSM would show, by its rules counted out page by page."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pagedup
from pagedup.sharing import KsmCounters, ksm, predict_ksm

PAGE, ENTRY = 4096, 64


def memory(names: list[int]) -> np.ndarray:
    """Pages of these contents; 0 is the zero page."""
    pages = np.zeros((len(names), PAGE // 8), np.uint64)
    pages[:, 100] = names
    return pages


def classes(*copies: int) -> list[int]:
    """Names of contents with so many copies each."""
    return [name for name, n in enumerate(copies, 1) for _ in range(n)]


def by_hand(names: list[int], volatile: list[bool], limit: float, zero_pages: bool) -> KsmCounters:
    """Page by page: a page joins a copy that has room, or waits for a second one of its content."""
    sites: dict[int, list[int]] = {}
    waiting: Counter[int] = Counter()
    zeros = 0
    for name, changes in zip(names, volatile, strict=True):
        copies = sites.setdefault(name, [])
        if changes:
            continue
        if zero_pages and name == 0:
            zeros += 1
        elif copies and copies[-1] < limit:
            copies[-1] += 1
        elif waiting[name]:
            waiting[name] = 0
            copies.append(2)
        else:
            waiting[name] = 1
    shared = sum(map(len, sites.values()))
    sharing = sum(map(sum, sites.values())) - shared
    profit = (sharing + zeros) * PAGE - (len(names) - zeros) * ENTRY
    return KsmCounters(shared, sharing, sum(waiting.values()), sum(volatile), zeros, profit)


def check(names: list[int], volatile: list[bool] | None = None) -> None:
    found = predict_ksm(
        pagedup.find_duplicates(memory(names).view(np.uint8)),
        volatile=None if volatile is None else np.array(volatile, bool),
    )
    changes = volatile or [False] * len(names)
    assert found.pages == len(names)
    assert found.as_shipped == by_hand(names, changes, 256, False)
    assert found.zero_pages == by_hand(names, changes, math.inf, True)


@pytest.mark.parametrize("copies", [1, 2, 3, 255, 256, 257, 258, 511, 512, 513, 514, 1000])
def test_at_the_limit_of_sharing(copies: int) -> None:
    check(classes(copies))
    check([0] * copies)


def test_a_thousand_zero_pages_need_four_copies() -> None:
    found = predict_ksm(pagedup.find_duplicates(bytes(1000 * PAGE)))
    assert (found.as_shipped.pages_shared, found.as_shipped.pages_sharing) == (4, 996)
    assert found.as_shipped.general_profit == 996 * PAGE - 1000 * ENTRY
    assert (found.zero_pages.ksm_zero_pages, found.zero_pages.general_profit) == (1000, 1000 * PAGE)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 300)), max_size=5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, 0.0, 0.3, 1.0]),
)
def test_any_mixture(contents: list[tuple[int, int]], seed: int, share: float | None) -> None:
    rng = np.random.default_rng(seed)
    names = rng.permutation([name for name, n in contents for _ in range(n)]).astype(int).tolist()
    check(names, None if share is None else (rng.random(len(names)) < share).tolist())


def test_break_even_is_one_page_in_sixty_four() -> None:
    even = predict_ksm(pagedup.find_duplicates(memory(classes(2, *[1] * 62)).view(np.uint8)))
    assert even.as_shipped.general_profit == 0
    worse = predict_ksm(pagedup.find_duplicates(memory(classes(2, *[1] * 63)).view(np.uint8)))
    assert worse.as_shipped.general_profit < 0


def test_domains_are_not_mixed() -> None:
    guests = [memory([0, 0, 1]).view(np.uint8), memory([0, 1, 1]).view(np.uint8)]
    found = predict_ksm(pagedup.find_duplicates(guests, domains="ab"))
    assert found.zero_pages.ksm_zero_pages == 3
    assert (found.as_shipped.pages_shared, found.as_shipped.pages_sharing) == (2, 2)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="frames are of 8 bytes; KSM merges pages of 4,096 bytes"):
        predict_ksm(pagedup.find_duplicates(bytes(64), frame_size=8))
    with pytest.raises(ValueError, match=r"volatile has the shape \(1,\) for 2 frames; it must be \(2,\)"):
        predict_ksm(pagedup.find_duplicates(bytes(2 * PAGE)), volatile=np.zeros(1, bool))


def test_default_pace() -> None:
    """1 GiB takes at least 52 s a scan, as 100 pages every 20 ms are at most 19.5 MiB a second."""
    pace = ksm._pace(1 << 18, 100)
    assert 2 * 52.4 < pace.seconds < 2 * 54
    assert pace.cpu == pytest.approx(100 * ksm.SCAN_COST / (0.02 + 100 * ksm.SCAN_COST), rel=1e-3)


@pytest.mark.parametrize(
    ("pages", "pages_to_scan"),
    [(0, 500), (1, 500), (4_500_000, 500), (5_500_000, 609), (10_000_000, 1213), (1 << 31, 13333)],
)
def test_advised_pace(pages: int, pages_to_scan: int) -> None:
    assert ksm._advised_pages(pages) == pages_to_scan


def test_advised_pace_keeps_its_bounds() -> None:
    for pages in (5_500_000, 20_000_000):
        pace = ksm._pace(pages, ksm._advised_pages(pages))
        assert pace.seconds / 2 == pytest.approx(200, rel=0.01)
    assert ksm._pace(1 << 31, ksm._advised_pages(1 << 31)).cpu == pytest.approx(0.7, rel=1e-3)
    assert ksm._pace(0, 500) == ksm.KsmPace(500, 0.0, 0.0)
