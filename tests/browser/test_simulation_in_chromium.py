"""The page of a simulation in a real browser: its pictures are drawn in their colours, read, heard and printed."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from pagedup.report.page import write_html
from pagedup.report.simulation.html import simulation_html
from tests.chromium import A4, CONTRASTS, PHONE, SCHEMES, Visit, contrast
from tests.scans import provenance
from tests.simulations import TRADES, WHOLE

pytestmark = pytest.mark.chromium

FILLS = ("unique", "zero", "across", "within", "compressed", "swapped")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "simulation.html"
    write_html(str(path), simulation_html(WHOLE, provenance(["vdi-50"]), TRADES))
    return path


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_opens_without_a_complaint_or_a_request(browser: Browser, report: Path, scheme: str) -> None:
    with Visit(browser, report, scheme=scheme) as visit:
        visit.page.wait_for_load_state("networkidle")
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith("data:")] == [report.as_uri()]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_has_contrast(browser: Browser, report: Path, scheme: str) -> None:
    with Visit(browser, report, scheme=scheme) as visit:
        found = visit.page.evaluate(CONTRASTS)
        assert len(found) > 200
        assert [text for ratio, text in found if ratio < 4.5] == []
        page, *colours = visit.colours("page", "ink", "muted", "unique", "across", "within", "compressed", "swapped")
        # WCAG 1.4.11: what is no text needs 3.
        assert min(contrast(colour, page) for colour in colours) >= 3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_layers_are_drawn_in_their_colours(browser: Browser, report: Path, scheme: str) -> None:
    with Visit(browser, report, scheme=scheme) as visit:
        shot = visit.page.locator("svg").first.screenshot()
        pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
        for name, colour in zip(FILLS, visit.colours(*FILLS), strict=True):
            there = np.abs(pixels - colour).max(axis=2) <= 2
            assert there[:, : int(0.72 * there.shape[1])].mean() > 0.001, name  # left of the legend


def test_layers_lie_from_bottom_to_top(browser: Browser, report: Path) -> None:
    """At the end of the first run, where all of them are."""
    with Visit(browser, report) as visit:
        shot = visit.page.locator("svg").first.screenshot()
        pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
        column = pixels[:, int(0.7 * pixels.shape[1])]
        middles = []
        for colour in visit.colours(*FILLS):
            rows = np.flatnonzero(np.abs(column - colour).max(axis=1) <= 2)
            assert len(rows)
            middles.append(float(np.median(rows[rows < 0.7 * len(column)])))
        assert middles == sorted(middles, reverse=True)


def test_a_screen_reader_is_told_what_pictures_show(browser: Browser, report: Path) -> None:
    with Visit(browser, report) as visit:
        tree = visit.tree()
        pictures = [item for item in tree if item["role"] in ("image", "img")]
        runs, trades = pictures[:3], pictures[3:]
        assert [item["name"] for item in runs] == ["ESXi, salting 0", "KVM", "Hyper-V"]
        assert [item["name"] for item in trades] == ["ESXi: windows-7-x64", "Hyper-V: windows-7-x64"]
        for items, told in (
            (runs, r"after 8\.0 h: in the host's frames 9\d\.0 GiB"),
            (trades, r"coldest first: with 100 % in large pages 0 B saved"),
        ):
            for item in items:
                assert re.search(told, item["node"].get("description", {}).get("value", ""))


def test_paper_is_white_and_cuts_nothing_off(browser: Browser, report: Path) -> None:
    with Visit(browser, report, width=A4, scheme="dark") as visit:
        visit.page.emulate_media(media="print", color_scheme="dark")
        assert visit.colours("page") == [(255, 255, 255)]
        ends = "[...document.querySelectorAll('body *')].map(e => [e.getBoundingClientRect().right, e.outerHTML])"
        assert [html[:200] for right, html in visit.page.evaluate(ends) if right > A4 + 0.5] == []


def test_only_what_may_scrolls_sideways(browser: Browser, report: Path) -> None:
    with Visit(browser, report) as visit:
        for width in (320, PHONE, 768):
            visit.page.set_viewport_size({"width": width, "height": 800})
            assert visit.page.evaluate("document.scrollingElement.scrollWidth") <= width
