"""The HTML report in a real browser: what it shows, to whom, and that it asks nobody for anything."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from pagedup.report.page import write_html
from tests.chromium import A4, CONTRASTS, DESK, PHONE, SCHEMES, Visit, contrast, luminance
from tests.scans import mixed, pages, scan

pytestmark = pytest.mark.chromium

REPORTS = {
    "five": scan(mixed(5), domains=["red"] * 5),
    "many": scan(mixed(40), [f"a guest with quite a long name, number {guest}" * 3 for guest in range(40)]),
    "hostile": scan(mixed(3), ["<script>alert(1)</script>", "$x$\x1b", "日本"]),
    "none": scan([pages([])]),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    for name, found in REPORTS.items():
        write_html(str(folder / f"{name}.html"), found.html())
    return {name: folder / f"{name}.html" for name in REPORTS}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", REPORTS)
def test_it_opens_without_a_complaint_or_a_request(
    browser: Browser, reports: dict[str, Path], name: str, scheme: str
) -> None:
    with Visit(browser, reports[name], scheme=scheme) as visit:
        visit.page.wait_for_load_state("networkidle")
        assert visit.complaints == []
        # Images in the page itself are told of as requests, too.
        assert [url for url in visit.requests if not url.startswith("data:")] == [reports[name].as_uri()]
        assert visit.page.title()
        assert visit.page.locator("h1").is_visible()


def test_what_the_page_may_not_load_is_noticed(browser: Browser, reports: dict[str, Path], tmp_path: Path) -> None:
    """The listeners hear, and the page's own policy refuses, what somebody slips into it."""
    text = reports["five"].read_text()
    (tmp_path / "other.png").write_bytes(b"")
    for planted in (f'<img src="{(tmp_path / "other.png").as_uri()}">', "<script>document.title = 'taken'</script>"):
        (tmp_path / "planted.html").write_text(text.replace("</main>", f"{planted}</main>"))
        with Visit(browser, tmp_path / "planted.html") as visit:
            assert any("Content Security Policy" in complaint for complaint in visit.complaints)
            assert visit.page.title() != "taken"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_light_or_dark_as_the_reader_wants(browser: Browser, reports: dict[str, Path], scheme: str) -> None:
    with Visit(browser, reports["five"], scheme=scheme) as visit:
        page, ink = visit.colours("page", "ink")
        style = "getComputedStyle(document.body)"
        assert visit.page.evaluate(f"{style}.backgroundColor") == f"rgb({page[0]}, {page[1]}, {page[2]})"
        assert visit.page.evaluate(f"{style}.color") == f"rgb({ink[0]}, {ink[1]}, {ink[2]})"
        assert (luminance(page) > 0.9, luminance(page) < 0.02) == (scheme == "light", scheme == "dark")
        label = "getComputedStyle([...document.querySelectorAll('svg text')].find(t => t.textContent == '4K')).fill"
        assert visit.page.evaluate(label) == f"rgb({ink[0]}, {ink[1]}, {ink[2]})"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["five", "many"])
def test_every_text_has_contrast(browser: Browser, reports: dict[str, Path], name: str, scheme: str) -> None:
    with Visit(browser, reports[name], scheme=scheme) as visit:
        found = visit.page.evaluate(CONTRASTS)
        assert len(found) > 200
        assert [text for ratio, text in found if ratio < 4.5] == []
        page, ink, across, within, unique = visit.colours("page", "ink", "across", "within", "unique")
        # Numbers of the matrix stand on the strongest blue that plot_guest_matrix.py draws.
        strongest = [0.6 * colour + 0.4 * ground for colour, ground in zip(across, page, strict=True)]
        assert contrast(ink, strongest) >= 4.5
        # WCAG 1.4.11: what is no text needs 3.
        assert min(contrast(colour, page) for colour in (across, within, unique)) >= 3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_memory_map_is_drawn_in_its_colours(browser: Browser, reports: dict[str, Path], scheme: str) -> None:
    with Visit(browser, reports["five"], scheme=scheme) as visit:
        shot = visit.page.locator("svg").first.screenshot()
        pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).reshape(-1, 3)
        for name, colour in zip(
            ("zero", "across", "within", "unique"), visit.colours("zero", "across", "within", "unique"), strict=True
        ):
            share = (np.abs(pixels.astype(int) - colour).max(axis=1) <= 2).mean()
            # The strips take about a quarter of the drawing; a guest's zero pages are 25 % of it, the rarest 8 %.
            assert share > 0.01, name


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_everything_that_may_scroll_is_reached_by_keyboard(
    browser: Browser, reports: dict[str, Path], width: int
) -> None:
    with Visit(browser, reports["five"], width=width) as visit:
        regions = visit.page.locator(".scroll").count()
        assert regions == 3 + 4
        visit.page.keyboard.press("Tab")
        skip = visit.page.locator(":focus")
        assert skip.inner_text() == "Skip to the answer"
        box = skip.bounding_box()
        assert box is not None and box["x"] >= 0 and box["y"] >= 0
        for number in range(regions):
            visit.page.keyboard.press("Tab")
            assert visit.page.evaluate("n => document.activeElement == document.querySelectorAll('.scroll')[n]", number)
            assert visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_keyboard_scrolls(browser: Browser, reports: dict[str, Path]) -> None:
    with Visit(browser, reports["five"], width=PHONE) as visit:
        first = visit.page.locator(".scroll").first
        first.focus()
        visit.page.keyboard.press("ArrowRight")
        for _ in range(100):  # wait_for_function would need what the page's policy forbids
            if first.evaluate("region => region.scrollLeft"):
                break
            visit.page.wait_for_timeout(20)
        assert first.evaluate("region => region.scrollLeft") > 0


def test_the_skip_link_leads_to_the_answer(browser: Browser, reports: dict[str, Path]) -> None:
    with Visit(browser, reports["five"]) as visit:
        visit.page.keyboard.press("Tab")
        visit.page.keyboard.press("Enter")
        assert visit.page.evaluate("document.activeElement.tagName") == "MAIN"


@pytest.mark.parametrize("name", ["five", "many"])
def test_a_screen_reader_is_told_the_names_of_all(browser: Browser, reports: dict[str, Path], name: str) -> None:
    with Visit(browser, reports[name]) as visit:
        tree = visit.tree()
        roles = [item["role"] for item in tree]
        assert {"banner", "main", "contentinfo"} <= set(roles)
        for role, count in (("image", 3), ("table", 4), ("figure", 3), ("region", 4 + 7), ("heading", 1 + 3 + 3)):
            names = [item["name"] for item in tree if item["role"] in (role, {"image": "img"}.get(role))]
            assert len(names) == count, (role, names)
            assert all(names), role
        for item in tree:
            if item["role"] in ("image", "img"):
                description = item["node"].get("description", {}).get("value", "")
                assert re.search(r"\d", description) and len(description) > 100
        headers = [item["name"] for item in tree if item["role"] in ("columnheader", "rowheader")]
        assert headers and all(headers)


@pytest.mark.parametrize("name", REPORTS)
def test_it_prints(browser: Browser, reports: dict[str, Path], name: str) -> None:
    with Visit(browser, reports[name], scheme="dark") as visit:
        pdf = visit.page.pdf(prefer_css_page_size=True)
        assert pdf.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", pdf)) > 0


@pytest.mark.parametrize("name", REPORTS)
def test_paper_is_white_and_cuts_nothing_off(browser: Browser, reports: dict[str, Path], name: str) -> None:
    with Visit(browser, reports[name], width=A4, scheme="dark") as visit:
        visit.page.emulate_media(media="print", color_scheme="dark")
        assert visit.colours("page") == [(255, 255, 255)]
        ends = "[...document.querySelectorAll('body *')].map(e => [e.getBoundingClientRect().right, e.outerHTML])"
        beyond = [html[:200] for right, html in visit.page.evaluate(ends) if right > A4 + 0.5]
        assert beyond == []


@pytest.mark.parametrize("name", REPORTS)
def test_only_what_may_scrolls_sideways(browser: Browser, reports: dict[str, Path], name: str) -> None:
    with Visit(browser, reports[name]) as visit:
        for width in (320, PHONE, 768, DESK):
            visit.page.set_viewport_size({"width": width, "height": 800})
            assert visit.page.evaluate("document.scrollingElement.scrollWidth") <= width
            caption = visit.page.locator("caption span").last.bounding_box()
            assert caption is not None and caption["x"] + caption["width"] <= width
