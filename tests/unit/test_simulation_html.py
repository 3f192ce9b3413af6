"""The page of a simulation as text: its structure, what it escapes, its pictures and what they say."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from pagedup.host.result import Simulation
from pagedup.host.trade import Trade
from pagedup.report.simulation.html import simulation_html
from tests.html_pages import HOSTILE, Page
from tests.scans import provenance
from tests.simulations import ESXI, GIB, HYPERV, KVM, NOT_STARTED, TRADES, WHOLE, all_ways, sample, simulation, trade_of

FOUND = {
    "whole": WHOLE,
    "all ways": simulation(*all_ways(ESXI, KVM, HYPERV)),
    "one": simulation(ESXI),
    "nobody": simulation(NOT_STARTED),
    "no samples": simulation(replace(ESXI, samples=[], victims=[])),
}


def html(found: Simulation, trades: Sequence[Trade] = ()) -> str:
    return simulation_html(found, provenance(["vdi-50"]), trades)


@cache
def page(name: str) -> str:
    return html(WHOLE, TRADES) if name == "trades" else html(FOUND[name])


@pytest.mark.parametrize("name", [*FOUND, "trades"])
def test_structure(name):
    found = Page(page(name))
    assert len(found.all("h1")) == len(found.all("main")) == len(found.all("title")) == 1
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    ids = Counter(found.ids())
    assert set(ids.values()) == {1}
    for _, attributes in found.elements:
        for reference in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(reference, "title") in ids
    assert len(found.all("table")) == len(found.all("caption"))
    assert len(found.all("figure")) == len(found.all("svg"))
    for picture in found.all("svg"):
        assert picture["role"] == "img" and picture["aria-label"]
        assert picture["aria-describedby"].endswith("-words")
    assert not found.all("script", "iframe", "object", "form", "base")


@pytest.mark.parametrize("name", [*FOUND, "trades"])
def test_nothing_comes_from_elsewhere(name):
    assert "://" not in page(name) and "@import" not in page(name) and "url(" not in page(name)


@pytest.mark.parametrize("name", [*FOUND, "trades"])
def test_every_colour_of_the_pictures_is_the_pages(name):
    text = page(name)
    for picture in re.findall(r"<svg.*?</svg>", text, re.S):
        assert not re.search(r"(?<!&)#[0-9a-fA-F]{3}", picture), "a colour of its own"
        used = set(re.findall(r"var\(--(\w+)\)", picture))
        assert used and used <= set(re.findall(r"--(\w+):", text))
        assert not re.search(r"(fill|stroke):(?! ?(?:var\(--|none))", picture)


def test_answer_first():
    found = Page(page("whole"))
    assert found.within("dd")[:6] == ["63", "slowdown 1.04", "60", "slowdown 1.04", "24", "slowdown 1.01"]
    assert found.within("dt")[:3] == ["fit under ESXi, salting 0", "fit under KVM", "fit under Hyper-V"]
    assert any(text.startswith("A host of 96.0 GiB has room for 63") for text in found.within("p"))
    text = page("whole")
    places = [text.index(part) for part in ("<h1", 'class="figures"', 'class="verdict"', "<table", "<svg", "Kernel")]
    assert places == sorted(places)


def test_a_picture_for_each_run():
    assert Page(page("whole")).within("h3") == ["ESXi, salting 0", "KVM", "Hyper-V"]
    assert Page(page("no samples")).within("h3") == []
    assert len(Page(page("all ways")).within("h3")) == 12


def svg(text, number=1):
    part = re.search(rf'<svg[^>]*aria-describedby="run-{number}-words".*?</svg>', text, re.S)
    assert part
    return part[0]


def words(text, number=1):
    part = re.search(rf'<p class="words" id="run-{number}-words">(.*?)</p>', text, re.S)
    assert part
    return part[1]


def labels(text, number=1):
    return re.findall(r">([^<>]+)</text>", svg(text, number))


def areas(text, fill, number=1):
    """The outlines of what is filled with a colour, as arrays (n, 2)."""
    paths = re.findall(rf'<path d="([^"]*)" style="fill: var\(--{fill}\)[^"]*"', svg(text, number))
    return [np.array([list(map(float, point)) for point in re.findall(r"[ML] (\S+) (\S+)", path)]) for path in paths]


def layer(text, fill, number=1):
    """Tops and bottoms of a layer, a point a column; it lies left of the legend."""
    (outline,) = [outline for outline in areas(text, fill, number) if outline[:, 0].max() <= 690]
    columns = len(outline) // 2
    return outline[:columns, 1], outline[columns:, 1][::-1]


FILLS = ("unique", "zero", "across", "within", "compressed", "swapped")


def test_a_picture_says_in_words_what_it_shows():
    said = words(page("whole")).split("; ")
    assert len(said) == 5
    assert said[-1] == (
        "after 8.0 h: in the host&#39;s frames 92.0 GiB, saved: zero pages 10.0 GiB, saved: equal pages 20.0 GiB,"
        " in balloons 30.0 GiB, compressed 2.00 GiB, swapped 21.0 GiB, slowdown 1.44, at worst 43.1, state hard."
    )
    assert words(page("nobody")) == "after 0 ms: slowdown 1.00, at worst 1.00."
    assert "state" not in words(page("whole"), 3) and "balloons" in words(page("whole"), 3)


def test_layers_lie_upon_each_other_as_high_as_what_they_stand_for():
    samples = [sample(minute) for minute in (70, 110)]
    text = html(simulation(replace(ESXI, samples=samples, capacity=94 * GIB)))
    lines = r'<path d="M 70 (\S+) L 690 \1" style="fill: none; stroke'
    marks = [float(y) for y in re.findall(rf"{lines}: var\(--line\)", text)]
    assert labels(text)[3:9] == ["0", "32.0 GiB", "64.0 GiB", "96.0 GiB", "128 GiB", "160 GiB"]
    per_gib = (marks[0] - marks[5]) / 160
    floor = np.array([marks[0]] * 2)
    for fill, pages in zip(
        FILLS,
        ("held", "saved_zero", "saved_equal", "ballooned", "compressed", "swapped"),
        strict=True,
    ):
        tops, bottoms = layer(text, fill)
        assert bottoms == pytest.approx(floor, abs=0.11), fill
        sizes = np.array([getattr(each, pages) for each in samples]) / GIB
        assert bottoms - tops == pytest.approx(sizes * per_gib, abs=0.11), fill
        floor = tops
    # The dashed line is as high as the memory of the host.
    (dashed,) = re.findall(f"{lines}-dasharray", text)
    assert marks[0] - float(dashed) == pytest.approx(94 * per_gib, abs=0.11)


def test_pictures_have_one_scale():
    """So that they can be compared: the same memory is as high in all of them."""
    low = replace(HYPERV, samples=[sample(1, swapped=0)])
    high = replace(ESXI, samples=[sample(1, swapped=400 * GIB)])
    text = html(simulation(low, high))
    assert [label for label in labels(text, 1) if label.endswith("iB")][:4] == [
        label for label in labels(text, 2) if label.endswith("iB")
    ][:4]
    assert layer(text, "unique", 1)[0].tolist() == layer(text, "unique", 2)[0].tolist()
    assert layer(text, "swapped", 2)[0].min() >= 30  # where the picture of memory begins


def test_what_is_not_there_is_not_drawn():
    text = html(simulation(replace(HYPERV, samples=HYPERV.samples[:40])))
    assert [fill for fill in FILLS if len(areas(text, fill)) == 2] == ["unique"]
    assert "state" not in labels(text)
    assert html(simulation(NOT_STARTED)).count("<svg") == 1


def test_one_sample_is_seen():
    tops, bottoms = layer(html(simulation(replace(ESXI, samples=[sample(60)]))), "unique")
    assert len(tops) == 2 and (bottoms - tops > 10).all()


@pytest.mark.parametrize(
    ("minutes", "first", "last"),
    [(5, "0 min", "5 min"), (60, "0 min", "60 min"), (480, "0 h", "8 h"), (60 * 24 * 7, "0 h", "168 h")],
)
def test_time_is_marked_so_that_it_can_be_read(minutes, first, last):
    samples = [sample(60), sample(minutes)] if minutes > 60 else [sample(1), sample(minutes)]
    text = html(simulation(replace(ESXI, samples=samples)))
    found = [label for label in labels(text) if label.endswith((" min", " h"))]
    assert (found[0], found[-1]) == (first, last)
    assert 3 <= len(found) <= 9


def test_states_are_written_where_there_is_room():
    samples = [sample(minute, state="soft" if minute == 100 else "high") for minute in range(1, 481)]
    found = labels(html(simulation(replace(ESXI, samples=samples))))
    assert found.count("high") == 2 and "soft" not in found
    assert labels(page("whole"))[1:4] == ["high", "soft", "hard"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_are_only_text(hostile):
    def named(name):
        victims = [replace(ESXI.victims[0], region=name)]
        samples = [sample(60, state=name)]
        run = replace(
            ESXI, name=name, worst_guest=name, slowdown=2.0, victims=victims, lost=[name], samples=samples
        )
        return html(simulation(run, scenario=name))

    text = named(hostile)
    text.encode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    assert [tag for tag, _ in Page(text).elements] == [tag for tag, _ in Page(named("plain")).elements]
    assert not Page(text).all("script")


def test_a_page_is_small_whatever_was_simulated():
    """Noise in every column of every picture, more runs than are drawn, and long names."""
    random = np.random.default_rng(1)
    samples = [
        sample(
            minute, state=str(minute), held=int(random.integers(90 * GIB)), swapped=int(random.integers(90 * GIB)),
            saved_zero=int(random.integers(90 * GIB)), saved_equal=int(random.integers(90 * GIB)),
            ballooned=int(random.integers(90 * GIB)), compressed=int(random.integers(90 * GIB)),
            slowdown=1 + random.random(), worst=2 + 100 * random.random(),
        )
        for minute in range(1, 2881)
    ]  # fmt: skip
    runs = [replace(ESXI, name=f"{number}{'<' * 5000}", samples=samples) for number in range(18)]
    text = html(simulation(*runs))
    assert 500_000 < len(text.encode()) < 2_000_000
    assert text.count("<svg") == 16 and " 2 more runs are not drawn." in text


def test_what_is_not_drawn_is_told():
    runs = [replace(ESXI, name=str(number), samples=[sample(60)]) for number in range(17)]
    assert " 1 more run is not drawn." in html(simulation(*runs))
    assert "not drawn" not in html(simulation(*runs[:16]))


def test_equal_input_gives_equal_text():
    assert html(WHOLE) == page("whole")


def test_large_pages_against_sharing():
    text = page("trades")
    assert "Large pages against sharing" in text and "Large pages against sharing" not in page("whole")
    assert text.count("<svg") == page("whole").count("<svg") + len(TRADES)
    assert "ESXi: windows-7-x64" in text and "while memory is enough" in text and "when memory is short" in text
    # 2 s - 5 s^2 is highest at s = 0.2, where it is 0.2; all broken, 8 GiB are saved and 4 % lost.
    assert "the best point is 80 % in large pages, coldest first, which is worth +0.2 guests" in text
    assert "8.00 GiB are saved, and guests lose 4.0 % of their time" in text
    assert "with 50 % in large pages 4.00 GiB saved, 1.0 % of time lost, net -0.2" in text


def test_pictures_of_large_pages_are_not_too_many():
    trades = [trade_of(f"host {number}") for number in range(20)]
    assert html(WHOLE, trades).count("<svg") == page("whole").count("<svg") + 16
    assert len(html(WHOLE, trades)) < 2_000_000


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_of_hypervisors_are_only_text(hostile):
    plain, found = html(WHOLE, [trade_of("plain")]), html(WHOLE, [trade_of(hostile, (hostile, 0.5))])
    assert len(Page(found).elements) <= len(Page(plain).elements) + 20
    assert "<script" not in found
