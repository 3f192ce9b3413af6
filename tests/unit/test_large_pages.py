"""Which large pages sharing small ones would break, counted out page by page."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import pagedup
from pagedup.sharing import huge_page_cost, large_pages
from tests.property.memories import Case, cases

SMALL, FACTOR = 8, 4


@pytest.fixture(autouse=True, scope="module")
def _small_large_pages() -> Any:
    """Large pages of 32 bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_pages, "_LARGE", SMALL * FACTOR)
        yield


def check(extents: list[list[tuple[int, bytes]]], found: pagedup.Duplicates) -> None:
    frames = [
        (guest, address + at, content[at : at + SMALL])
        for guest, parts in enumerate(extents)
        for address, content in parts
        for at in range(0, len(content), SMALL)
    ]
    contents = [content for _, _, content in frames]
    seen: set[bytes] = set()
    saved = []
    for content in contents:
        saved.append(not any(content) or content in seen)
        seen.add(content)
    by_address = {(guest, address): index for index, (guest, address, _) in enumerate(frames)}
    pages = []
    for guest, address, _ in frames:
        parts = [by_address.get((guest, address + at)) for at in range(0, SMALL * FACTOR, SMALL)]
        if address % (SMALL * FACTOR) == 0 and None not in parts:
            pages.append([part for part in parts if part is not None])
    earlier: set[bytes] = set()
    whole, broken, touched = 0, [], 0
    for page in pages:
        bytes_ = b"".join(contents[part] for part in page)
        gain = sum(saved[part] for part in page)
        touched += any(contents.count(contents[part]) > 1 or not any(contents[part]) for part in page)
        if bytes_ in earlier or not any(bytes_):
            whole += 1
        elif gain:
            broken.append(gain)
        earlier.add(bytes_)
    cost = huge_page_cost(found)
    assert (cost.page_size, cost.small_page_size, cost.pages) == (SMALL * FACTOR, SMALL, len(pages))
    assert (cost.whole, cost.to_break, cost.broken_by_ksm) == (whole, len(broken), touched)
    assert cost.with_saving == whole + len(broken)
    assert (cost.saved, cost.saved_unbroken) == (sum(saved), sum(saved) - sum(broken))
    broken.sort(reverse=True)
    assert [step.percent for step in cost.steps] == [50, 80, 95, 100]
    for step in cost.steps:
        assert step.saved == cost.saved_unbroken + sum(broken[: step.broken])
        assert step.saved * 100 >= step.percent * cost.saved
        fewer = cost.saved_unbroken + sum(broken[: step.broken - 1])
        assert step.broken == 0 or fewer * 100 < step.percent * cost.saved


@given(cases([SMALL], max_frames=40, max_guests=3))
def test_page_by_page(case: Case) -> None:
    check([guest.extents for guest in case.guests], pagedup.find_duplicates(case.memory(), frame_size=SMALL))


@given(st.lists(st.sampled_from([0, 0, 1, 2, 3, 4, 5]), max_size=120))
@example([*range(1, 9), 1, 9, 10, 11])  # pages that lend, that are alone, and that are saved in part
def test_names(names: list[int]) -> None:
    memory = np.array(names, np.uint64)
    check([[(0, memory.tobytes())]], pagedup.find_duplicates(memory, frame_size=SMALL))


def test_frames_must_be_smaller() -> None:
    with pytest.raises(ValueError, match="frames are of 32 bytes; they must be smaller than 32"):
        huge_page_cost(pagedup.find_duplicates(bytes(64), frame_size=32))
