"""Sharing by region, counted out page by page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pagedup
from pagedup.memory import Region
from pagedup.sharing import RegionSummary, summarize_regions
from pagedup.sharing.regions import OUTSIDE
from tests.property.memories import Case, cases


def counted(case: Case, regions: list[list[Region]]) -> list[RegionSummary]:
    contents = [
        (guest, address + at, content[at : at + case.frame_size])
        for guest, part in enumerate(case.guests)
        for address, content in part.extents
        for at in range(0, len(content), case.frame_size)
    ]
    rows: dict[str, list[int]] = {}
    holders: dict[str, set[int]] = {}
    seen: set[bytes] = set()
    seen_here: set[tuple[int, bytes]] = set()
    copies = [content for _, _, content in contents]
    for guest, address, content in contents:
        name = next((own.name for own in regions[guest] if own.start <= address < own.end), OUTSIDE)
        row = rows.setdefault(name, [0] * 5)
        holders.setdefault(name, set()).add(guest)
        row[0] += 1
        if not any(content):
            row[1] += 1
        elif copies.count(content) == 1:
            row[2] += 1
        elif (guest, content) in seen_here:
            row[3] += 1
        elif content in seen:
            row[4] += 1
        seen.add(content)
        seen_here.add((guest, content))
    found = [RegionSummary(name, len(holders[name]), *row) for name, row in rows.items()]
    return sorted(found, key=lambda row: (-row.saved_within - row.saved_across, -row.zero, -row.pages, row.name))


@given(cases([8, 512], max_frames=16, max_guests=3), st.data())
def test_page_by_page(case: Case, data: st.DataObject) -> None:
    regions = []
    for guest in case.guests:
        base = guest.extents[0][0] if guest.extents else 0
        places = st.integers(0, 20 * case.frame_size) if base < 1 << 40 else st.just(0)
        cuts = sorted(data.draw(st.lists(places, max_size=6)))
        names = [data.draw(st.sampled_from(["heap", "stack", "ram"])) for _ in cuts]
        regions.append(
            [
                Region(base + start, base + end, name)
                for start, end, name in zip(cuts[::2], cuts[1::2], names, strict=False)
            ]
        )
    found = pagedup.find_duplicates(case.memory(), frame_size=case.frame_size)
    rows = summarize_regions(found, regions)
    assert rows == counted(case, regions)
    summary = pagedup.summarize(found)
    assert sum(row.pages for row in rows) == summary.frames
    assert sum(row.zero for row in rows) == summary.zero
    assert sum(row.saved_within for row in rows) == summary.saved_within_guests
    assert sum(row.saved_across for row in rows) == summary.saved_across_guests
    assert sum(row.unique for row in rows) == summary.pages_unshared


def test_up_to_the_end_of_the_addresses() -> None:
    found = pagedup.find_duplicates([pagedup.Extent((1 << 64) - 16, b"a" * 8 + b"b" * 8)], frame_size=8)
    (row,) = summarize_regions(found, [[Region(0, 1 << 64, "all")]])
    assert row == RegionSummary("all", 1, 2, 0, 2, 0, 0)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([], "regions has 0 lists for 1 guests"),
        ([[Region(0, 16, "a"), Region(8, 24, "b")]], "guest 0: the region at 0x8 overlaps the one at 0x0"),
        ([[Region(16, 24, "a"), Region(0, 8, "b")]], "guest 0: the region at 0x0 overlaps the one at 0x10"),
        ([[Region(8, 0, "a")]], "guest 0: the region at 0x8"),
        ([[Region(-8, 8, "a")]], "guest 0: the region at -0x8"),
        ([[Region(8, (1 << 64) + 1, "a")]], "guest 0: the region at 0x8 ends beyond"),
    ],
)
def test_wrong_regions(regions: list[list[Region]], message: str) -> None:
    found = pagedup.find_duplicates(bytes(32), frame_size=8)
    with pytest.raises(ValueError, match=message):
        summarize_regions(found, regions)
