"""Pointer chases beside the model: what it says of tiny ones, told by hand, and how the two are compared."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import beside_model, chase_picture, host_pages, pointer_chase
from benchmarks.beside_model import Compared, compare, described, is_near, table, verdict
from benchmarks.l3_lifetime import lifetime
from benchmarks.page_sizes import LARGE, SMALL, NotGiven
from benchmarks.pointer_chase import Chase
from benchmarks.predicted import Prediction, Setting, predict, with_latencies
from pagedup.report.canvas import plain_settings
from pagedup.tlb import Cache, Geometry, microarchitecture

ONE = Cache(1)
NO_TLB = Geometry(
    name="none",
    caches={},
    l1={},
    data=(ONE, ONE, ONE),
    l2_cycles=7,
    data_cycles=(4, 14, 50),
    memory_ns=100,
    ghz=2,
)
LARGE_TLB = replace(NO_TLB, caches={"tlb": Cache(1024)}, l1={SMALL: "tlb", LARGE: "tlb"})
ZEN = microarchitecture("Zen 4")


def cycle(pages):
    """A line of each page of 4 KiB, all lines of different sets as long as there are no more than 64."""
    return np.arange(pages, dtype=np.uint64) * np.uint64(SMALL + 64)


@pytest.mark.parametrize("page_size", [SMALL, LARGE])
@pytest.mark.parametrize("host", [None, SMALL, LARGE])
def test_what_the_first_level_holds_costs_a_load_from_l1(page_size, host):
    found = predict(Setting(ZEN, host, 1e-3), cycle(32), page_size)
    assert found.cycles == ZEN.data_cycles[0] and found.found.accesses >= 2000


@pytest.mark.parametrize(
    ("page_size", "host", "references"),
    [(SMALL, None, 4), (LARGE, None, 3), (SMALL, SMALL, 24), (SMALL, LARGE, 4 * 5 - 1), (LARGE, LARGE, 3 * 4 + 3)],
)
def test_without_any_cache_all_comes_from_memory(page_size, host, references):
    found = predict(Setting(NO_TLB, host, 0.0), cycle(5), page_size)
    assert found.cycles == 7 + (references + 1) * 200
    assert found.a_load(found.found.references + found.found.host_references) == references


@pytest.mark.parametrize(
    ("microseconds", "cycles"),
    [
        (0, 200),
        (6.3, 200),  # 64 loads from memory take 6.4: the first line is gone when it is wanted again
        (6.5, 50),
        (math.inf, 50),
    ],
)
def test_l3_holds_what_is_used_within_the_lifetime_of_a_line(microseconds, cycles):
    geometry = replace(LARGE_TLB, data=(ONE, ONE, Cache(64)))
    assert predict(Setting(geometry, None, microseconds * 1e-6), cycle(64), SMALL).cycles == cycles


def test_a_part_of_l3_is_left_where_others_fill_the_rest():
    """32 lines fit in what we use of L3 in 3.3 microseconds; so they stay, and then there is room for 132."""
    geometry = replace(LARGE_TLB, data=(ONE, ONE, Cache(1 << 10)))
    for pages, cycles in ((32, 50), (100, 200)):
        assert predict(Setting(geometry, None, 3.3e-6), cycle(pages), SMALL).cycles == cycles


def test_latencies_are_those_measured():
    found = {"L1d": (1.0, 3.0), "L2": (4.0, 12.0), "L3": (14.0, 42.0), "memory": (90.0, 270.0)}
    assert with_latencies(ZEN, found).latencies == (3.0, 12.0, 42.0, 270.0)
    assert with_latencies(ZEN, found).caches == ZEN.caches


# --- the machine


def test_the_lifetime_is_where_the_cost_is_halfway():
    assert lifetime(lambda seconds: 10 if seconds < 1e-3 else 110, 10, 110) == pytest.approx(0.75e-3)
    assert lifetime(lambda seconds: 10 + seconds * 20e3, 10, 110) == pytest.approx(2.5e-3)
    assert lifetime(lambda _: 110, 10, 110) == 0.0
    assert lifetime(lambda _: 12, 10, 110) == math.inf


def test_the_lifetime_is_a_median_and_the_ladder_is_climbed_no_further_than_needed():
    asked, starts = [], iter((0.25e-3, 8e-3, 1e-3, 1e-3, 1e-3))
    gone = [0.0]

    def after(seconds):
        if seconds == 0:
            gone[0] = next(starts)
        asked.append(seconds)
        return 110 if seconds >= gone[0] else 10

    assert lifetime(after, 10, 110) == pytest.approx(0.75e-3)
    assert asked[:5] == [0.0, 0.125e-3, 0.25e-3, 0.0, 0.125e-3] and max(asked) == 8e-3


def test_host_pages_are_told_by_what_the_tlb_holds(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(host_pages, "_CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("model name\t: some\nflags\t\t: fpu vme\n")
    assert host_pages.host_page_size(ZEN) is None
    (tmp_path / "cpuinfo").write_text("model name\t: some\nflags\t\t: fpu hypervisor vme\n")
    for many, size in ((5.0, LARGE), (11.0, SMALL)):
        cycles = {36: 4.0, 108: many}
        monkeypatch.setattr(host_pages, "_cycles", cycles.__getitem__)
        assert host_pages.host_page_size(ZEN) == size

    def refuse(pages):
        raise NotGiven("no large pages")

    monkeypatch.setattr(host_pages, "_cycles", refuse)
    assert host_pages.host_page_size(ZEN) == SMALL
    assert "taken to be of 4 KiB" in capsys.readouterr().err


# --- the comparison


def test_a_quarter_of_what_was_measured_is_near():
    assert is_near(75, 100) and is_near(125, 100) and not is_near(74, 100) and not is_near(126, 100)


def test_what_agrees_needs_no_reason():
    found = compare(Setting(ZEN, None, math.inf), cycle(16), SMALL, 4.5)
    assert (found.size, found.page_size, found.reasons, found.agrees) == (16 * SMALL, SMALL, (), True)
    assert found.ratio == pytest.approx(4 / 4.5)


@pytest.mark.parametrize(
    ("pages", "measured", "geometry", "reasons"),
    [
        (64, 11, ZEN, (beside_model._EDGE,)),  # of 72
        (16, 40, ZEN, (beside_model._UNKNOWN,)),
        (4096, 200, ZEN, (beside_model._WALK,)),  # misses of the second level, 3072; entries are in L1 and L2
        (64, 100, replace(LARGE_TLB, data=(ONE, ONE, Cache(64))), (beside_model._L3,)),
    ],
)
def test_reasons(pages, measured, geometry, reasons):
    assert compare(Setting(geometry, None, 6e-6), cycle(pages), SMALL, measured).reasons == reasons


def rows():
    found = predict(Setting(ZEN, None, math.inf), cycle(16), SMALL).found
    return [
        Compared(64 << 10, SMALL, 4.0, Prediction(4.0, found), ()),
        Compared(64 << 10, LARGE, 4.0, Prediction(5.0, found), ()),
        Compared(1 << 30, SMALL, 1000.0, Prediction(1251.0, found), (beside_model._EDGE,)),
    ]


def test_table_and_verdict():
    assert list(table(rows())) == [
        "| working set | lines | 4K: measured | model | ratio | 2M: measured | model | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 64 KiB | 1 KiB | 4 | 4 | 1.00 | 4 | 5 | 1.25 |",
        "| 1 GiB | 16 MiB | 1000 | 1251 | **1.25** | not given |  |  |",
    ]
    lines = list(verdict(rows()))
    assert lines[0] == "2 of 3 within 25%." and lines[2].startswith("- 1 GiB in 4K (1.25): a TLB or cache is about")
    assert len(lines) == 3 and list(verdict(rows()[:2])) == ["2 of 2 within 25%."]


def test_the_setting_is_told():
    shared, alone = list(described(Setting(ZEN, SMALL, 1.5e-3))), list(described(Setting(ZEN, None, math.inf)))
    assert "Zen 4" in shared[0] and "count as 4K" in shared[1] and "1.5 ms" in shared[2]
    assert "none" in alone[1] and "keeps" in alone[2]


# --- the picture


@pytest.mark.parametrize(
    ("geometry", "host", "marks"),
    [
        (ZEN, SMALL, {"L1d", "L2", "L1 TLB", "L2 TLB"}),
        (ZEN, None, {"L1d", "L2", "L1 TLB 4K", "L2 TLB 4K", "L1 TLB 2M"}),
    ],
)
def test_the_picture_has_its_lines(geometry, host, marks):
    with plain_settings():
        figure = chase_picture.figure_of(Setting(geometry, host, 1e-3), rows(), "title")
    (axes,) = figure.axes
    drawn = {str(line.get_label()): line for line in axes.get_lines()}
    for name, xs, ys in (
        ("4K: measured", [1 << 16, 1 << 30], [4.0, 1000.0]),
        ("4K: model", [1 << 16, 1 << 30], [4.0, 1251.0]),
        ("2M: measured", [1 << 16], [4.0]),
        ("2M: model", [1 << 16], [5.0]),
    ):
        assert np.asarray(drawn[name].get_xdata()).tolist() == xs
        assert np.asarray(drawn[name].get_ydata()).tolist() == ys
    assert {text.get_text() for text in axes.texts} == marks
    assert len(axes.get_lines()) == 4 + len(marks)


def test_the_picture_is_the_same_each_time(tmp_path):
    for name in ("one.svg", "other.svg"):
        chase_picture.draw(Setting(ZEN, SMALL, 1e-3), rows(), "some CPU", tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "other.svg").read_text() and "some CPU" in text and "4K: model" in text


# --- all together


@pytest.fixture
def quick(monkeypatch):
    """A machine of one working set that is measured at once."""
    costs = {"L1d": (1.0, 4.0), "L2": (3.5, 14.0), "L3": (12.5, 50.0), "memory": (100.0, 400.0)}
    monkeypatch.setattr(pointer_chase, "cache_sizes", lambda: {"L1d": 32 << 10, "L2": 1 << 20, "L3": 32 << 20})
    monkeypatch.setattr(pointer_chase, "latencies", lambda caches: costs)
    monkeypatch.setattr(pointer_chase, "l3_after", lambda caches: lambda seconds: 12.5)
    monkeypatch.setattr(pointer_chase, "host_page_size", lambda geometry: None)
    monkeypatch.setattr(pointer_chase, "working_sets", lambda: [64 << 10])
    monkeypatch.setattr(pointer_chase, "measure", lambda sizes, rounds: [Chase(16, SMALL, 1.0, 4.0)])
    monkeypatch.setattr(pointer_chase, "this_cpu", lambda: ZEN)


def test_both_are_printed_and_drawn(quick, monkeypatch, capsys, tmp_path):
    picture = tmp_path / "chases.svg"
    monkeypatch.setattr(sys, "argv", ["pointer_chase", str(picture)])
    pointer_chase.main()
    told = capsys.readouterr().out
    assert "| 64 KiB | 1 KiB | 4 | 4 | 1.00 | not given |  |  |" in told and "1 of 1 within 25%." in told
    assert Path(picture).read_text().startswith("<?xml")


def test_without_a_geometry_only_the_measurement_is_printed(quick, monkeypatch, capsys, tmp_path):
    def unknown():
        raise LookupError("model 1 is none of these")

    monkeypatch.setattr(pointer_chase, "this_cpu", unknown)
    monkeypatch.setattr(sys, "argv", ["pointer_chase", str(tmp_path / "chases.svg")])
    pointer_chase.main()
    told = capsys.readouterr().out
    assert "no model: model 1 is none of these\n" in told and "within" not in told
    assert "| 64 KiB | 1 KiB | 1.0 | 4 | not given |" in told and list(tmp_path.iterdir()) == []
