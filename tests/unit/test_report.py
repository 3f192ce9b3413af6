"""Reports are pure functions: from results made by hand to JSON, tables and the verdict."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from pagedup.report import ScannedGuest, ScanResult, scan_json, verdict
from pagedup.report.terminal import MIN_WIDTH, scan_text
from pagedup.report.units import human_size, page_size_label, percent, printable
from pagedup.sharing import GuestSummary, SharedContent, Summary

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
    assert verdict(result(row(4096, 1000, 200, 500, 60))) == (
        "Storing every identical 4K page once would save 1.95 MiB of 3.91 MiB (50.0 %):"
        " 800 KiB of zero pages and 1.17 MiB of equal non-zero pages, 960 KiB of these across guests."
    )


def test_verdict_tells_of_2m_pages_first() -> None:
    gig = row(1 << 30, 1, 0, 1, 0)
    rows = (
        row(4096, 1 << 19, 1 << 18, 1 << 17, 0),
        row(65536, 1 << 15, 0, 1 << 15, 0),
        row(2 << 20, 1024, 10, 1000, 0),
    )
    assert verdict(result(*rows, gig)).endswith("; with 2M pages it would save 48.0 MiB (2.3 %).")
    assert verdict(result(rows[0], rows[1], row(1 << 30, 0, 0, 0, 0))).endswith(
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
    sentence = verdict(found)
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
    ],
)
def test_human_size(size: int, text: str) -> None:
    assert human_size(size) == text


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
