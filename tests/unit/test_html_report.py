"""The HTML report as text: its structure, what it escapes, what it leaves out, and how it is written."""

import dataclasses
import io
import os
import re
import stat
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagedup.report.canvas import COLOURS
from pagedup.report.html import scan_html
from pagedup.report.page import require, write_html
from pagedup.report.units import shortened
from tests.html_pages import HOSTILE, Page
from tests.processes import run_python
from tests.scans import PAGE, Scan, mixed, pages, scan

SCANS = {
    "five": scan(mixed(5)),
    "one": scan(mixed(1)),
    "domains": scan(mixed(4), domains=["red", "blue", "red", "blue"]),
    "many": scan(mixed(40)),
    "a guest without frames": scan([pages([]), pages([1, 1, 0])]),
    "no frames": scan([pages([])]),
    "all zero": scan([pages([0] * 9)] * 3),
    "nothing shared": scan([pages(range(1, 9)), pages(range(11, 19))]),
    "no page of the size": scan([pages([0] * 9)], sizes=(1 << 30,)),
}


@cache
def html(name: str) -> str:
    return SCANS[name].html()


@pytest.mark.parametrize("name", SCANS)
def test_structure(name: str) -> None:
    page = Page(html(name))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    ids = Counter(page.ids())
    assert set(ids.values()) == {1}
    for _, attributes in page.elements:
        for reference in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(reference, "title") in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    assert not page.all("script", "iframe", "object", "form", "base")
    regions = [attributes for _, attributes in page.elements if "scroll" in attributes.get("class", "").split()]
    assert len(regions) == len(page.all("table")) + len(page.all("svg"))
    for region in regions:
        assert (region["role"], region["tabindex"]) == ("region", "0")
        assert region.get("aria-label") or region["aria-labelledby"] in ids
    assert len(page.all("figure")) == len(page.all("svg"))
    for picture in page.all("svg"):
        assert picture["role"] == "img" and picture["aria-label"]
        assert picture["aria-describedby"].endswith("-words")


@pytest.mark.parametrize("name", SCANS)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    text = html(name)
    assert "://" not in text and "@import" not in text
    page = Page(text)
    assert page.all("meta")[1] == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    }
    for tag, attributes in page.elements:
        for name in ("href", "src", "xlink:href", "action", "srcset", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert "url(" not in text


@pytest.mark.parametrize("name", SCANS)
def test_every_colour_of_the_pictures_is_the_pages(name: str) -> None:
    text = html(name)
    for picture in re.findall(r"<svg.*?</svg>", text, re.S):
        assert not re.search(r"(?<!&)#[0-9a-fA-F]{3}", picture), "a colour of its own"
        used = set(re.findall(r"var\(--(\w+)\)", picture))
        assert used and used <= set(re.findall(r"--(\w+):", text))
        assert not re.search(r"(fill|stroke):(?! ?(?:var\(--|none))", picture)


def titles(found: Scan) -> list[str]:
    return Page(found.html()).within("h3")


def test_pictures_are_there_where_they_show_something() -> None:
    all_three = ["Memory map by kind of page", "Saving by page size", "Which guests hold the same"]
    assert titles(SCANS["five"]) == all_three
    for name in ("one", "all zero", "nothing shared", "a guest without frames"):
        assert titles(SCANS[name]) == all_three[:2]
    assert titles(SCANS["no frames"]) == titles(SCANS["no page of the size"]) == []


def test_order_is_answer_pictures_tables_measurement() -> None:
    text = SCANS["five"].html()
    places = [text.index(part) for part in ("<h1", 'class="figures"', 'class="verdict"', "<svg", "<table", "Kernel")]
    assert places == sorted(places)


def test_answer_first() -> None:
    found = scan([pages([0, 0, 1, 2]), pages([1, 1, 3, 4])])
    page = Page(found.html())
    # 2 zero pages, and content 1 three times: once more within the second guest, and once across.
    assert page.within("dd")[:8] == [
        "16.0 KiB",
        "50.0 % of all memory",
        "8.00 KiB",
        "25.0 %",
        "4.00 KiB",
        "12.5 %",
        "4.00 KiB",
        "12.5 %",
    ]
    assert any(text.startswith("Storing every identical 4K page once would save 16.0 KiB") for text in page.within("p"))


def words(found: Scan, identifier: str) -> str:
    part = re.search(rf'<p class="words" id="{identifier}-words">(.*?)</p>', found.html(), re.S)
    assert part
    return part[1]


def test_pictures_say_in_words_what_they_show() -> None:
    found = scan([pages([0, 0, 1, 2, 5, 5]), pages([1, 1, 3, 4])], ["red", "blue"])
    assert words(found, "memory-map") == (
        "red: 6 pages from 0x0 to 0x5000: 33.3 % are zero, 16.7 % stand in another guest too, 33.3 % are repeated"
        " within one guest only, and 16.7 % are unique; blue: 4 pages from 0x0 to 0x3000: 0.0 % are zero, 50.0 % stand"
        " in another guest too, 0.0 % are repeated within one guest only, and 50.0 % are unique."
    )
    assert words(found, "page-sizes") == (
        "4K pages: 20.0 KiB (50.0 %), of these zero pages 8.00 KiB, across guests 4.00 KiB, within guests 8.00 KiB;"
        " 16K pages: 0 B (0.0 %); 2M pages: no whole page; 1G pages: no whole page."
    )
    assert words(found, "guest-matrix") == (
        "The pairs with most in common: 4.00 KiB of red (25.0 % of what is not zero) stand in blue, too, and 8.00 KiB"
        " of blue (50.0 %) in red."
    )


def picture(found: Scan, identifier: str) -> str:
    part = re.search(rf'<svg[^>]*aria-describedby="{identifier}-words".*?</svg>', found.html(), re.S)
    assert part
    return part[0]


def image(svg: str, number: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    import base64

    data = re.findall(r'href="data:image/png;base64,([^"]*)"', svg)[number]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def test_strips_show_the_kinds_from_top_to_bottom() -> None:
    """Three cells: one of all four kinds, one of unique pages, one of zero pages."""
    memory_map = scan([pages([0, 1, 2, 2, 3]), pages([1])]).memory_map
    strip = memory_map.strips[0]
    whole = dataclasses.replace(strip, kinds=np.array([[6, 6, 6, 6], [0, 0, 0, 5], [7, 0, 0, 0]]))
    found = dataclasses.replace(SCANS["five"], memory_map=dataclasses.replace(memory_map, strips=(whole,)))
    drawn = image(picture(found, "memory-map"), 0)
    across, within, unique = ((*COLOURS[name], 255) for name in ("across", "within", "unique"))
    assert drawn.shape == (24, 3, 4)
    assert (drawn[:6, 0, 3] == 0).all() and (drawn[:, 2, 3] == 0).all()
    assert (drawn[6:12, 0] == across).all() and (drawn[12:18, 0] == within).all()
    assert (drawn[18:, 0] == unique).all() and (drawn[:, 1] == unique).all()


def test_matrix_is_as_strong_as_what_is_shared() -> None:
    found = scan([pages([1, 2, 3, 4]), pages([1, 2]), pages([9])])
    drawn = image(picture(found, "guest-matrix"), 0)
    assert drawn[:, :, 3].tolist() == [[0, round(0.5 * 0.6 * 255), 0], [round(0.6 * 255), 0, 0], [0, 0, 0]]
    assert (drawn[drawn[:, :, 3] > 0][:, :3] == tuple(COLOURS["across"])).all()


def test_cells_without_room_have_whole_percents() -> None:
    common = list(range(1, 200))
    guests = [pages([*common[: 3 * (guest + 1)], *range(1000 * guest, 1000 * guest + 5)]) for guest in range(1, 21)]
    labels = re.findall(r">([^<>]+)</text>", picture(scan(guests), "guest-matrix"))
    assert {label for label in labels if label.isdigit()} and "100" not in labels
    few = [pages(range(1, 1001)), pages([1, *range(2000, 2010)]), *guests[2:]]
    assert "&lt;1" in re.findall(r">([^<>]+)</text>", picture(scan(few), "guest-matrix"))


def test_holes_are_marked_while_they_are_few() -> None:
    from pagedup import Extent

    def holed(n: int) -> Scan:
        return scan([[Extent(i * 10 * PAGE, pages([i + 1]).data) for i in range(n + 1)]])

    marked = "A mark below a strip is a hole"
    assert marked not in holed(0).html()
    assert marked in holed(40).html() and "are not marked" not in holed(40).html()
    assert "More than 40 in a guest are not marked." in holed(41).html()
    assert picture(holed(40), "memory-map").count("L ") > picture(holed(41), "memory-map").count("L ")
    assert "with holes in 40 places" in words(holed(40), "memory-map")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_are_only_text(hostile: str) -> None:
    plain = scan(mixed(3), ["one", "two", "three"], ["red", "red", "red"]).html()
    text = scan(mixed(3), [hostile, "two", "three"], [hostile, hostile, hostile]).html()
    text.encode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    named, unnamed = Page(text), Page(plain)
    # Columns of the matrix may have numbers, so that texts may be more; but no element is.
    assert [tag for tag, _ in named.elements] == [tag for tag, _ in unnamed.elements]
    assert not named.all("script")
    shown = hostile if hostile.isprintable() else hostile.encode("unicode_escape").decode()
    assert any("\\udcff" in text for text in named.within("th")) if "\udcff" in hostile else shown in named.within("th")


def test_every_other_text_is_escaped() -> None:
    found = SCANS["five"]
    bad = '<script>"x"&\x1b'
    provenance = dataclasses.replace(found.provenance, command=bad, kernel=bad, cpu=bad, sources=())
    result = dataclasses.replace(
        found.result, guests=[dataclasses.replace(guest, detail=bad, source=bad) for guest in found.result.guests]
    )
    text = scan_html(result, found.memory_map, found.matrix, provenance)
    assert not Page(text).all("script") and "\x1b" not in text
    assert Page(text).within("dd").count('<script>"x"&\\x1b') == 3


def test_a_name_is_no_formula() -> None:
    found = scan(mixed(2), ["$x^2$", "b"])
    assert ">$x^2$</text>" in picture(found, "memory-map")


@pytest.mark.parametrize("name", ["a" * 10_000, "<" * 10_000, "\x1b" * 10_000, "日" * 10_000, "'\"" * 5_000])
def test_a_page_is_small_whatever_the_input(name: str) -> None:
    n = 500
    guests = [pages([1, 2, 2, 0, 10 * guest + 3, 10 * guest + 4]) for guest in range(n)]
    names = [f"{guest}{name}{guest}" for guest in range(n)]
    text = scan(guests, names, names).html()
    assert len(text.encode()) < 2_000_000
    page = Page(text)
    assert "400 more rows are left out; --json has all of them." in page.within("p")
    assert "Long texts are cut in their middle (…); --json has them whole." in page.within("p")
    assert "468 guests with no more pages are not drawn." in text
    assert len([cell for cell in page.all("th") if cell["scope"] == "row"]) <= 4 + 100 + 5 + 100


@pytest.mark.parametrize(("rows", "left_out"), [(100, ""), (101, "1 more row is left out"), (102, "2 more rows are")])
def test_tables_are_cut_at_100_rows(rows: int, left_out: str) -> None:
    text = scan([pages([guest + 1]) for guest in range(rows)]).html()
    assert ("left out" in text) == bool(left_out)
    assert left_out in text


def test_worst_strips_are_small() -> None:
    """Noise in every cell of every strip, and a hole wherever one is marked."""
    random = np.random.default_rng(1)
    guests = [pages(random.integers(0, 4000, 3000)) for _ in range(40)]
    assert len(scan(guests).html().encode()) < 1_000_000


def test_equal_input_gives_equal_text() -> None:
    text = scan(mixed(3)).html()
    assert text == scan(mixed(3)).html()
    code = "from tests.scans import mixed, scan; import sys; sys.stdout.write(scan(mixed(3)).html())"
    root = Path(__file__).parents[2]
    done = run_python(f"import sys; sys.path.insert(0, {str(root)!r}); {code}", environment={"PYTHONHASHSEED": "7"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == text


def test_the_settings_of_a_user_change_nothing(tmp_path: Path) -> None:
    settings = "savefig.dpi: 300\ntext.color: red\nfont.size: 30\npatch.linewidth: 7\npath.simplify: False\n"
    (tmp_path / "matplotlibrc").write_text(
        settings + "svg.fonttype: path\naxes.facecolor: red\nfigure.facecolor: red\n"
    )
    root = Path(__file__).parents[2]
    code = "from tests.scans import mixed, scan; import sys; sys.stdout.write(scan(mixed(3)).html())"
    done = run_python(
        f"import sys; sys.path.insert(0, {str(root)!r}); {code}",
        environment={"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == scan(mixed(3)).html()


def test_drawing_leaves_the_settings_of_others_alone() -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "path", "font.size": 33}):
        scan(mixed(2)).html()
        assert (matplotlib.rcParams["svg.fonttype"], matplotlib.rcParams["font.size"]) == ("path", 33)


@pytest.mark.parametrize("gone", ["matplotlib", "jinja2"])
def test_a_missing_extra_is_named(gone: str) -> None:
    code = f"""
        import sys
        sys.modules[{gone!r}] = None
        from pagedup.report.page import require
        try:
            require()
        except OSError as error:
            print(error)
    """
    done = run_python(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert gone in done.stdout and "pip install 'pagedup[report]'" in done.stdout


def test_the_extra_is_here() -> None:
    require()


def test_a_home_that_cannot_be_written_is_nobodys_business() -> None:
    nowhere = {"HOME": "/proc", "XDG_CACHE_HOME": "/proc/no", "XDG_CONFIG_HOME": "/proc/no", "MPLCONFIGDIR": "/proc/no"}
    done = run_python("from pagedup.report.page import require; require()", environment=nowhere)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, pagedup.report.html; print([m for m in ('matplotlib', 'jinja2', 'rich') if m in sys.modules])"
    assert run_python(code).stdout == "[]\n"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_page_is_written_as_the_umask_says(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_html(str(tmp_path / "a.html"), "ö")
    finally:
        os.umask(before)
    assert (tmp_path / "a.html").read_bytes() == "ö".encode()
    assert stat.S_IMODE((tmp_path / "a.html").stat().st_mode) == 0o666 & ~mask
    assert os.listdir(tmp_path) == ["a.html"]


def test_a_page_is_written_anew_and_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "page.html").write_text("old")
    (tmp_path / "link.html").symlink_to("there/page.html")
    write_html(str(tmp_path / "link.html"), "new")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "there" / "page.html").read_text() == "new"
    assert os.listdir(tmp_path / "there") == ["page.html"]


def fails(path: Path | str) -> str:
    with pytest.raises(OSError) as caught:
        write_html(str(path), "text")
    error = caught.value
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    assert fails(tmp_path / "no" / "a.html") == (
        f"{tmp_path}/no/a.html: the report cannot be written: No such file or directory"
    )
    (tmp_path / "folder.html").mkdir()
    assert fails(tmp_path / "folder.html") == f"{tmp_path}/folder.html: is not a regular file, so nothing is written"
    os.mkfifo(tmp_path / "pipe")
    assert fails(tmp_path / "pipe") == f"{tmp_path}/pipe: is not a regular file, so nothing is written"
    assert sorted(os.listdir(tmp_path)) == ["folder.html", "pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_what_stood_there_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.html").write_text("old")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device", str(source))

    monkeypatch.setattr("pagedup.memory.whole_file.os.replace", full)
    path = tmp_path / "a.html"
    assert fails(path) == f"{path}: the report cannot be written: No space left on device"
    assert (tmp_path / "a.html").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.html"]


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("", 3, ""),
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("abcdefghijk", 10, "abcdef…ijk"),
        ("abcdefghij", 10, "abcdefghij"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日…"),
        ("日本語日本語", 11, "日本語…本語"),
        ("a" * 10_000 + "z", 10, "aaaaaa…aaz"),
    ],
)
def test_shortened(text: str, width: int, short: str) -> None:
    assert shortened(text, width) == short
