"""Reports are pure functions: from results made by hand to JSON, tables and the verdict."""

import dataclasses
import io
import json
import re

import pytest
from rich.console import Console

from pagedup.memory import Apart
from pagedup.report import ScannedGuest, ScanResult, scan_json, verdict
from pagedup.report.table import Table
from pagedup.report.tables import REASONS, scan_tables
from pagedup.report.terminal import MIN_WIDTH, scan_text
from pagedup.report.units import human_size, human_time, page_size_label, percent, printable
from pagedup.sharing import (
    BreakStep,
    Explanation,
    FileShare,
    GuestSummary,
    Isolation,
    KsmCounters,
    KsmPace,
    KsmPrediction,
    LargePageCost,
    Lifetime,
    NumaSaving,
    RegionSummary,
    SharedContent,
    Summary,
    Volatility,
)
from tests.processes import ROOT

ROW_KEYS = {
    "page_size",
    "frames",
    "zero",
    "nonzero",
    "distinct",
    "saved_zero",
    "saved_nonzero",
    "saved_within_guests",
    "saved_across_guests",
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "excluded_bytes",
}


def row(page_size: int, frames: int, zero: int, distinct: int, within: int, excluded: int = 0) -> Summary:
    nonzero = frames - zero
    return Summary(
        page_size=page_size,
        frames=frames,
        zero=zero,
        nonzero=nonzero,
        distinct=distinct,
        saved_zero=zero,
        saved_nonzero=nonzero - distinct,
        saved_within_guests=within,
        saved_across_guests=nonzero - distinct - within,
        pages_shared=min(distinct, nonzero - distinct),
        pages_sharing=nonzero - distinct,
        pages_unshared=distinct - min(distinct, nonzero - distinct),
        excluded_bytes=excluded,
    )


def result(*rows: Summary, names: tuple[str, ...] = ("vm1", "vm2"), domains: tuple[str | None, ...] = ()) -> ScanResult:
    size = rows[0].frames * rows[0].page_size + rows[0].excluded_bytes
    domains = domains or (None,) * len(names)
    return ScanResult(
        guests=[
            ScannedGuest(name, f"{name}.img", "raw", "", size // len(names), domain)
            for name, domain in zip(names, domains, strict=True)
        ],
        page_sizes=rows,
        per_guest=[
            GuestSummary(frames=500, zero=100, nonzero=400, distinct=300, saved_within=100, shared_across=50)
            for _ in names
        ],
        most_shared=[SharedContent(frame=7, guest=0, address=0x7F00001000, copies=1234, n_guests=2)],
        work={"frames_signed": 1000},
    )


LARGE = row(2 << 20, 268_435_456, 123_456_789, 100_000_000, 11_222_333)
USUAL = (row(4096, 1000, 200, 500, 60), row(2 << 20, 1, 0, 1, 0, 1000 * 4096 - (2 << 20)))


def test_json_has_every_key_of_the_schema() -> None:
    data = json.loads(json.dumps(scan_json(result(*USUAL))))
    assert data["schema"] == "pagedup.scan/1"
    assert data["guests"][0] == {"name": "vm1", "source": "vm1.img", "bytes": 2_048_000, "kind": "raw"}
    assert [set(row) for row in data["page_sizes"]] == [ROW_KEYS, ROW_KEYS]
    assert data["page_sizes"][0] == dataclasses.asdict(USUAL[0])
    assert [guest["name"] for guest in data["per_guest"]] == ["vm1", "vm2"]
    assert data["most_shared"] == [
        {"page_size": 4096, "guest": "vm1", "address": 0x7F00001000, "copies": 1234, "guests": 2}
    ]
    assert data["work"] == {"frames_signed": 1000}


def test_json_tells_domains_and_details() -> None:
    found = result(*USUAL, domains=("red", "blue"))
    found = dataclasses.replace(found, guests=[dataclasses.replace(found.guests[0], detail="python3"), found.guests[1]])
    first, second = scan_json(found)["guests"]
    assert (first["domain"], first["detail"]) == ("red", "python3")
    assert second["domain"] == "blue" and "detail" not in second


SHIPPED = KsmCounters(1000, 9000, 4000, 100, 0, 9000 * 4096 - 14_100 * 64)
KSM = KsmPrediction(
    14_100,
    SHIPPED,
    dataclasses.replace(SHIPPED, ksm_zero_pages=1000, general_profit=SHIPPED.general_profit + 1000 * 4096),
    KsmPace(100, 5.7, 0.017),
    KsmPace(500, 1.2, 0.08),
)
LARGE_PAGES = LargePageCost(
    page_size=2 << 20,
    small_page_size=4096,
    pages=100,
    with_saving=60,
    whole=20,
    to_break=40,
    broken_by_ksm=67,
    saved=20_000,
    saved_unbroken=12_000,
    steps=(
        BreakStep(50, 0, 12_000),
        BreakStep(80, 9, 16_500),
        BreakStep(95, 21, 19_001),
        BreakStep(100, 40, 20_000),
    ),
)
VOLATILE = Volatility(2.5, 10_000, 150, 50, 100)
LIFETIME = Lifetime(((0.0, 1000), (10.0, 900), (20.0, 820)), 69.3, "from a straight line through the logarithms", 36.0)
REGIONS = [RegionSummary(f"[heap {i}]", 2, 1000, 100, 200, 300, 400 - i) for i in range(12)]
EXPLANATION = Explanation(
    root="/srv/root",
    files=900,
    bytes=1 << 30,
    unreadable=3,
    contents=5000,
    explained_contents=4000,
    in_several_files=12,
    saved_bytes=80 << 20,
    explained_bytes=60 << 20,
    by_file=[FileShare(f"usr/lib/lib{i}.so", 10, 50, (40 - i) * 4096) for i in range(12)],
    by_directory=[FileShare("usr/lib", 120, 600, 480 * 4096)],
)


def whole_result() -> ScanResult:
    """With everything that a scan may find."""
    found = result(*USUAL)
    first, second = found.guests
    apart = {Apart.SHARED_MAPPING: 512 << 20, Apart.ALREADY_SHARED: 90 << 20, Apart.PARTIAL_PAGE: 10, Apart.ABSENT: 0}
    return dataclasses.replace(
        found,
        guests=[dataclasses.replace(first, apart=apart), dataclasses.replace(second, apart={Apart.HUGETLB: 1 << 20})],
        ksm=KSM,
        large_pages=LARGE_PAGES,
        isolation=Isolation(4096, 2, 1000, 250),
        numa=NumaSaving(4096, 2, 5, 900, 450),
        volatile=VOLATILE,
        lifetime=LIFETIME,
        regions=REGIONS,
        explanation=EXPLANATION,
    )


def test_json_tells_all() -> None:
    data = json.loads(json.dumps(scan_json(whole_result())))
    assert data["guests"][0]["apart"] == {
        "shared_mapping": 512 << 20,
        "already_shared": 90 << 20,
        "partial_page": 10,
        "absent": 0,
    }
    assert data["ksm"]["as_shipped"]["general_profit"] == SHIPPED.general_profit
    assert data["ksm"]["advised_pace"] == {"pages_to_scan": 500, "seconds": 1.2, "cpu": 0.08}
    assert data["large_pages"]["steps"][1] == {"percent": 80, "broken": 9, "saved": 16_500}
    assert data["isolation"] == {"page_size": 4096, "domains": 2, "saved_together": 1000, "saved_apart": 250}
    assert data["numa"]["saved_within_nodes"] == 450
    assert data["volatile"] == dataclasses.asdict(VOLATILE)
    assert data["lifetime"]["unchanged"][2] == {"seconds": 20.0, "pages": 820}
    assert data["lifetime"]["half_life"] == 69.3
    assert len(data["regions"]) == 12 and data["regions"][0]["name"] == "[heap 0]"
    assert data["regions"][0]["page_size"] == 4096
    assert len(data["explanation"]["by_file"]) == 12
    assert data["explanation"]["by_directory"] == [
        {"path": "usr/lib", "contents": 120, "copies": 600, "saved_bytes": 480 * 4096}
    ]


def test_json_leaves_out_what_was_not_asked_for() -> None:
    assert list(scan_json(result(*USUAL))) == ["schema", "guests", "page_sizes", "per_guest", "most_shared", "work"]


def documented() -> set[str]:
    text = (ROOT / "docs" / "scan-json.md").read_text()
    return set(re.findall(r"`([a-z_]+)`", text))


def keys_of(data: object) -> set[str]:
    if isinstance(data, dict):
        return set(data).union(*map(keys_of, data.values())) if data else set()
    return set().union(*map(keys_of, data)) if isinstance(data, list) else set()


def test_every_key_is_documented() -> None:
    assert keys_of(scan_json(whole_result())) - documented() == {"schema", "frames_signed"}  # in the text, not a table
    assert {str(reason) for reason in Apart} <= documented()


def tables() -> dict[str, Table]:
    return {table.title: table for table in scan_tables(whole_result())}


def test_every_table_is_whole() -> None:
    for table in tables().values():
        assert table.rows and all(len(row) == len(table.headers) for row in table.rows), table.title


def test_only_what_there_is_has_a_table() -> None:
    assert len(scan_tables(result(*USUAL))) == 3
    assert len(tables()) == 13


def test_tables_of_the_answer() -> None:
    found = tables()
    assert found["Not scanned, of 607 MiB"].rows == [
        ("files and shared mappings", "512 MiB (84.4 %)", "1"),
        ("shared already, since a fork or merged", "90.0 MiB (14.8 %)", "1"),
        ("hugetlb pages", "1.00 MiB (0.2 %)", "1"),
        ("ends that fill no page", "10 B (<0.1 %)", "1"),
    ]
    assert [row[-1] for row in found["What Linux KSM would show"].rows] == ["34.3 MiB", "38.2 MiB"]
    assert found["How soon KSM would be done"].rows[1] == ("as its advisor aims at", "500", "1.2 s", "8.0 %")
    large = found["What sharing 4K pages does to 2M pages"]
    assert large.rows[3] == ("must be broken", "40", "40.0 %", "78.1 MiB (100.0 %)")
    assert large.rows[-1] == ("fewest to break for 95 % of the saving", "21", "21.0 %", "74.2 MiB (95.0 %)")
    assert [row[2] for row in found["What keeping memory apart leaves of the non-zero saving"].rows] == [
        "100.0 %",
        "25.0 %",
        "100.0 %",
        "50.0 %",
    ]
    assert found["What changed while it was scanned, in pages"].rows == [
        ("2.5 s later", "10,000", "150", "1.5 %", "50", "100")
    ]
    assert found["How long shared pages stay as they are"].rows[-1] == ("20 s", "820", "82.0 %")
    assert len(found["By region, in 4K pages"].rows) == 10
    assert len(found["Files whose pages are shared, in /srv/root"].rows) == 10
    assert found["Directories whose pages are shared, in /srv/root"].rows == [("usr/lib", "120", "600", "1.88 MiB")]


def test_every_reason_has_a_name() -> None:
    assert REASONS.keys() == set(Apart)


def test_the_whole_is_shown_in_the_room_there_is() -> None:
    found = dataclasses.replace(
        whole_result(),
        regions=[RegionSummary("x" * 300, *[1 << 40] * 6)],
        explanation=dataclasses.replace(
            EXPLANATION, by_file=[FileShare("y" * 300 + "\x1b", 1 << 40, 1 << 50, 1 << 60)]
        ),
    )
    text = rendered(found)
    assert "…" not in text and "\x1b" not in text
    assert max(map(len, text.splitlines())) <= MIN_WIDTH
    assert all(sentence.split(" ")[0] in text for sentence in verdict(found))


def test_verdict_of_all() -> None:
    first, *rest = verdict(whole_result())
    assert first.startswith("Storing every identical 4K page once")
    assert rest == [
        "Linux KSM as it ships would free 34.3 MiB net of its bookkeeping, with use_zero_pages=1 and a high"
        " max_page_sharing 38.2 MiB; it takes 5.7 s at its default pace, and with pages_to_scan=500 1.2 s (8 % of a"
        " CPU).",
        "A further 512 MiB is in files and shared mappings, which KSM cannot merge; only private anonymous memory can"
        " be shared (for QEMU: no share=on, and no memory in files).",
        "A further 90.0 MiB is shared already, since a fork or merged: no new saving.",
        "Of the pages looked at again after 2.5 s, 1.5 % had changed; these are not worth sharing.",
        "Half of the shared pages stay as they are for 69 s (from a straight line through the logarithms).",
        "Without breaking a 2M page 60.0 % of the saving is left; the whole of it breaks 40 of 100, the best 21 of"
        " them for 95 % of the saving; KSM, which shares none whole, breaks 67.",
        "Where no guest shares with another, 0.98 MiB of the 3.91 MiB of equal non-zero pages are saved (25.0 %).",
    ]


def test_verdict_where_there_is_less_to_say() -> None:
    found = dataclasses.replace(
        result(*USUAL),
        isolation=Isolation(4096, 1, 1000, 250),
        numa=NumaSaving(4096, 2, 5, 900, 450),
        lifetime=dataclasses.replace(LIFETIME, half_life=None),
        explanation=EXPLANATION,
    )
    assert verdict(found)[1:] == [
        "After 20 s, 82.0 % of the shared pages were as before.",
        "Where only domains share, 0.98 MiB of the 3.91 MiB of equal non-zero pages are saved (25.0 %).",
        "With merge_across_nodes=0, KSM saves 1.76 MiB of these 3.52 MiB (50.0 %).",
        "Of the saving of non-zero pages 75.0 % are pages of files in /srv/root, most in usr/lib.",
    ]


@pytest.mark.parametrize(
    ("shipped", "zero_pages", "parts"),
    [
        (-1, -1, ["would take more memory for its bookkeeping than it frees (general_profit -1 B)", "Leave it off."]),
        (0, 0, ["Leave it off."]),
        (-1, 1, ["would free -1 B net of its bookkeeping, with use_zero_pages=1"]),
        (1, 1, ["would free 1 B net of its bookkeeping; it takes"]),
        (100_000, 105_000, ["would free 97.7 KiB net of its bookkeeping; it takes"]),
        (100_000, 105_001, ["would free 97.7 KiB net of its bookkeeping, with use_zero_pages=1"]),
    ],
)
def test_verdict_on_ksm(shipped: int, zero_pages: int, parts: list[str]) -> None:
    ksm = dataclasses.replace(
        KSM,
        as_shipped=dataclasses.replace(SHIPPED, general_profit=shipped),
        zero_pages=dataclasses.replace(SHIPPED, general_profit=zero_pages),
    )
    sentence = verdict(dataclasses.replace(result(*USUAL), ksm=ksm))[1]
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(("absent", "said"), [(5, True), (4, False)])
def test_verdict_tells_of_memory_apart_only_where_it_matters(absent: int, said: bool) -> None:
    """From a twentieth of all memory on."""
    found = result(row(4096, 95, 0, 95, 0), names=("only",))
    guest = dataclasses.replace(found.guests[0], apart={Apart.ABSENT: absent * 4096})
    sentences = verdict(dataclasses.replace(found, guests=[guest]))
    assert any("was never given memory" in sentence for sentence in sentences) is said


def rendered(found: ScanResult, width: int = MIN_WIDTH, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding, write_through=True), width=width)
    console.print(scan_text(found))
    return raw.getvalue().decode(encoding)


def test_tables_cut_nothing_off() -> None:
    text = rendered(result(LARGE, names=("a" * 30, "b" * 300)))
    assert "…" not in text
    for number in ("268,435,456", "123,456,789", "100,000,000", "1,234", "0x7f00001000"):
        assert number in text
    assert text.replace("\n", "").replace(" ", "").count("b") >= 300
    assert max(map(len, text.splitlines())) <= MIN_WIDTH


def test_tables_show_domains_only_when_there_are_some() -> None:
    assert "domain" not in rendered(result(*USUAL))
    text = rendered(result(*USUAL, domains=("red", "blue")))
    assert "domain" in text and "blue" in text


def test_tables_are_not_fooled_by_names() -> None:
    text = rendered(result(*USUAL, names=("[red]vm[/red]", "evil\x1b[31m\nname\udcff")))
    assert "[red]vm[/red]" in text
    assert "evil\\x1b[31m\\nname\\udcff" in text
    assert "\x1b" not in text


def test_tables_fit_a_plain_terminal() -> None:
    rendered(result(*USUAL), encoding="ascii")


def test_verdict() -> None:
    assert verdict(result(row(4096, 1000, 200, 500, 60))) == [
        "Storing every identical 4K page once would save 1.95 MiB of 3.91 MiB (50.0 %):"
        " 800 KiB of zero pages and 1.17 MiB of equal non-zero pages, 960 KiB of these across guests."
    ]


def test_verdict_tells_of_2m_pages_first() -> None:
    gig = row(1 << 30, 1, 0, 1, 0)
    rows = (
        row(4096, 1 << 19, 1 << 18, 1 << 17, 0),
        row(65536, 1 << 15, 0, 1 << 15, 0),
        row(2 << 20, 1024, 10, 1000, 0),
    )
    assert verdict(result(*rows, gig))[0].endswith("; with 2M pages it would save 48.0 MiB (2.3 %).")
    assert verdict(result(rows[0], rows[1], row(1 << 30, 0, 0, 0, 0)))[0].endswith(
        "; with 64K pages it would save nothing."
    )


@pytest.mark.parametrize(
    ("found", "parts"),
    [
        (result(row(4096, 10, 0, 10, 0)), ["save nothing of 40.0 KiB", "no page is zero and no two pages are equal"]),
        (result(row(1 << 30, 0, 0, 0, 0, 4096)), ["No whole 1G page lies in the 4.00 KiB"]),
        (result(row(4096, 10, 10, 0, 0)), ["(100.0 %): 40.0 KiB of zero pages and no equal non-zero pages."]),
        (result(row(4096, 10, 0, 4, 6)), ["24.0 KiB of equal non-zero pages and no zero pages, none of these across"]),
        (result(row(4096, 10, 0, 4, 6), names=("only",)), ["24.0 KiB of equal non-zero pages and no zero pages."]),
    ],
)
def test_verdict_at_the_edges(found: ScanResult, parts: list[str]) -> None:
    (sentence,) = verdict(found)
    assert all(part in sentence for part in parts), sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (10_240, "10.0 KiB"),
        (1024 * 1024 - 1, "1.00 MiB"),
        (999 << 20, "999 MiB"),
        (1000 << 20, "0.98 GiB"),
        (5 << 40, "5.00 TiB"),
        (-1, "-1 B"),
        (-10_240, "-10.0 KiB"),
    ],
)
def test_human_size(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.000_029_7, "30 us"),
        (0.000_999, "999 us"),
        (0.001, "1.0 ms"),
        (0.007_151_6, "7.2 ms"),
        (0.01, "10 ms"),
        (0.0994, "99 ms"),
        (0.1, "0.1 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (119, "119 s"),
        (120, "2.0 min"),
        (600, "10 min"),
        (7199, "120 min"),
        (7200, "2.0 h"),
        (172_800, "2.0 days"),
    ],
)
def test_human_time(seconds: float, text: str) -> None:
    assert human_time(seconds) == text


def test_percent_never_rounds_to_none_or_all() -> None:
    assert [percent(part, 100_000) for part in (0, 1, 50_000, 99_999, 100_000)] == [
        "0.0 %",
        "<0.1 %",
        "50.0 %",
        ">99.9 %",
        "100.0 %",
    ]
    assert percent(0, 0) == "0.0 %"


def test_page_size_label() -> None:
    assert [page_size_label(1 << shift) for shift in (3, 9, 10, 12, 16, 21, 30)] == [
        "8",
        "512",
        "1K",
        "4K",
        "64K",
        "2M",
        "1G",
    ]


def test_printable_keeps_ordinary_text() -> None:
    assert printable("Größe 日本.img") == "Größe 日本.img"
