"""Reports of simulations are pure functions: from results made by hand to numbers, tables, the verdict and JSON."""

import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from rich.console import Console

from pagedup.host.costs import Operation
from pagedup.host.net_benefit import net_benefit
from pagedup.host.pictures import Band, Layer, timeline
from pagedup.report.simulation import simulation_json, simulation_verdict
from pagedup.report.simulation.naming import OPERATIONS, cores, in_guests, run_label, times
from pagedup.report.simulation.tables import simulation_tables
from pagedup.report.simulation.terminal import simulation_text
from pagedup.report.terminal import MIN_WIDTH
from tests.simulations import ESXI, GIB, HYPERV, KVM, NOT_STARTED, WHOLE, all_ways, sample, simulation

PAGE = 4096


# --- what sharing was worth


def test_net_benefit_is_what_the_documentation_says():
    found = net_benefit(WHOLE, ESXI)
    last, seconds = ESXI.samples[-1], 8 * 3600
    assert found.saved == 30 << 30
    # Without sharing fifty guests hold 120 GiB in memory, 2 compressed and 21 in swap.
    assert found.guests_more == pytest.approx(50 * 30 / (120 + 2 + 21))
    assert (found.scan_cores, found.tlb_cores) == (2880 / seconds, 5000 / seconds)
    assert found.cow_cores == 25.1 / seconds
    assert found.cores == pytest.approx((2880 + 25.1 + 5000) / seconds)
    assert found.guests_less == pytest.approx(found.cores * last.guests / 16)
    assert found.net == found.guests_more - found.guests_less > 0


def test_sharing_can_cost_more_than_it_saves():
    dear = replace(ESXI, scan_seconds=8 * 3600.0 * 16)  # all cores, all the time: as much as all guests
    assert net_benefit(WHOLE, dear).guests_less > 50
    assert net_benefit(WHOLE, dear).net < -39


def test_who_does_not_share_neither_gains_nor_loses():
    assert asdict(net_benefit(WHOLE, HYPERV)) == dict.fromkeys(asdict(net_benefit(WHOLE, HYPERV)), 0)
    in_vain = replace(HYPERV, scan_seconds=2880.0)
    assert net_benefit(WHOLE, in_vain).net == -net_benefit(WHOLE, in_vain).guests_less < 0
    for run in (NOT_STARTED, replace(ESXI, samples=[])):
        assert net_benefit(WHOLE, run).net == 0


# --- a run in columns


@pytest.mark.parametrize("count", [1, 2, 299, 300, 301, 480, 1000])
def test_columns_hold_all_samples(count):
    run = replace(ESXI, samples=[sample(minute) for minute in range(1, count + 1)])
    found = timeline(run)
    columns = min(count, 300)
    assert len(found.times) == len(found.slowdown) == len(found.worst) == columns
    assert found.layers.shape == (columns, len(Layer))
    assert found.times[-1] == 60.0 * count and (np.diff(found.times) > 0).all()
    assert found.worst.max() == max(each.worst for each in run.samples)
    assert [band.first for band in found.bands[1:]] == [band.last + 1 for band in found.bands[:-1]]
    assert (found.bands[0].first, found.bands[-1].last) == (0, columns - 1)
    assert all(one.state != other.state for one, other in zip(found.bands, found.bands[1:], strict=False))


def test_a_column_is_the_mean_of_its_samples():
    samples = [sample(minute) for minute in range(60, 70)]
    found = timeline(replace(ESXI, samples=samples), columns=3)  # of 3, 3 and 4 samples
    assert found.times.tolist() == [60.0 * minute for minute in (62, 65, 69)]
    parts = (samples[:3], samples[3:6], samples[6:])
    for column, part in enumerate(parts):
        layers = found.layers[column]
        assert layers[Layer.HELD] == pytest.approx(np.mean([each.held for each in part]) * PAGE)
        assert layers[Layer.ZERO] == pytest.approx(np.mean([each.saved_zero for each in part]) * PAGE)
        assert layers[Layer.EQUAL] == pytest.approx(np.mean([each.saved_equal for each in part]) * PAGE)
        assert layers[Layer.BALLOONED] == pytest.approx(np.mean([each.ballooned for each in part]) * PAGE)
        assert layers[Layer.COMPRESSED] == pytest.approx(np.mean([each.compressed for each in part]) * PAGE)
        assert layers[Layer.SWAPPED] == pytest.approx(np.mean([each.swapped for each in part]) * PAGE)
        assert found.slowdown[column] == pytest.approx(np.mean([each.slowdown for each in part]))
        assert found.worst[column] == max(each.worst for each in part)


@pytest.mark.parametrize(
    ("states", "columns", "bands"),
    [
        ("aabb", 4, [("a", 0, 1), ("b", 2, 3)]),
        ("aaaa", 2, [("a", 0, 1)]),
        ("ab", 1, [("b", 0, 0)]),
        ("aab", 1, [("a", 0, 0)]),
        ("abbaab", 2, [("b", 0, 0), ("a", 1, 1)]),
    ],
)
def test_the_state_of_a_column_is_that_of_most_samples(states, columns, bands):
    samples = [sample(minute, state=state) for minute, state in enumerate(states)]
    found = timeline(replace(ESXI, samples=samples), columns=columns)
    assert [(band.state, band.first, band.last) for band in found.bands] == bands
    assert all(isinstance(band, Band) for band in found.bands)


# --- words


def test_labels_tell_runs_apart_and_no_more():
    assert run_label(WHOLE, ESXI) == "ESXi, salting 0"
    runs = all_ways(HYPERV)
    both = simulation(*runs)
    assert [run_label(both, run) for run in runs] == [
        "Hyper-V, 2M", "Hyper-V, 2M, no ASLR", "Hyper-V, 4K", "Hyper-V, 4K, no ASLR",
    ]  # fmt: skip
    assert run_label(WHOLE, replace(ESXI, name="\x1b[31m" + "x" * 200)).startswith("\\x1b[31mxxx")


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.0, "1.00"), (1.0001, "<1.01"), (1.00499, "<1.01"), (1.0051, "1.01"), (1.04, "1.04"), (9.99, "9.99"),
        (9.995, "10.0"), (99.94, "99.9"), (99.95, "100"), (12_345.6, "12,346"),
    ],
)  # fmt: skip
def test_slowdowns(ratio, text):
    assert times(ratio) == text


def test_other_numbers():
    assert [in_guests(number) for number in (0.04, -0.04, 0.05, -3.25, 12.0)] == ["0.0", "0.0", "+0.1", "-3.2", "+12.0"]
    assert [cores(number) for number in (0.0, 0.0009, 0.001, 0.25, 1.0, 12.34)] == [
        "0.000", "<0.001", "0.001", "0.250", "1.0", "12.3",
    ]  # fmt: skip


def test_every_operation_has_words():
    assert {str(operation) for operation in Operation} <= set(OPERATIONS)


# --- tables


def tables(found=WHOLE):
    return {table.title: table for table in simulation_tables(found)}


def test_every_table_is_whole():
    assert len(tables()) == 5
    for table in tables().values():
        assert table.rows and all(len(row) == len(table.headers) for row in table.rows), table.title


def test_tables_of_the_answer():
    first, sharing, victims, waits, lost = tables().values()
    assert first.title == "50 guests promised 200 GiB, on a host of 96.0 GiB, 16 cores, after 8.0 h"
    assert first.rows == [
        ("ESXi, salting 0", "2M", "on", "50 / 63", "30.0 GiB", "30.0 GiB", "2.00 GiB", "21.0 GiB", "1.04 / 13.1",
         "54 min", "+9.6"),
        ("KVM", "2M", "on", "50 / 60", "30.0 GiB", "30.0 GiB", "2.00 GiB", "21.0 GiB", "1.04 / 13.1", "54 min", "+9.6"),
        ("Hyper-V", "2M", "on", "24 / 24", "0 B", "30.0 GiB", "0 B", "0 B", "1.01 / 1.01", "", ""),
    ]  # fmt: skip
    assert sharing.rows[0] == (
        "ESXi, salting 0", "10.0 GiB", "20.0 GiB", "+10.5", "0.100", "<0.001", "0.174", "-0.9", "+9.6", "109 GiB",
    )  # fmt: skip
    assert [row[0] for row in sharing.rows] == ["ESXi, salting 0", "KVM"]
    assert victims.rows[:3] == [
        ("ESXi, salting 0: heap: office", "hot", "20,000", "19.1 %", "15,000", "2.5 min", "7.5 ms"),
        ("ESXi, salting 0: heap: office", "cold", "80,000", "76.2 %", "1,000", "10 s", "125 us"),
        ("ESXi, salting 0: kernel data", "hot", "1,000", "1.0 %", "900", "9.0 s", "9.0 ms"),
    ]
    assert len(victims.rows) == 2 * 24 // 3
    assert waits.rows[0] == ("ESXi, salting 0: first write to a page", "31,457,280", "63 s", "70.1 %")
    assert len(waits.rows) == 3 + 3 + 1  # nobody waited for compression
    assert lost.rows == [("KVM: vm3, page 17: slot 5 is corrupt",)]


def test_only_what_there_is_has_a_table():
    assert len(tables(simulation(NOT_STARTED))) == 1
    assert len(tables(simulation(replace(ESXI, samples=[], victims=[], guest_seconds={})))) == 1


@pytest.mark.parametrize(("runs", "rows"), [(1, 10), (2, 2 * 10), (4, 4 * 6), (12, 12 * 2), (40, 40 * 2)])
def test_many_runs_have_fewer_rows_each(runs, rows):
    found = simulation(*[replace(ESXI, name=str(number), victims=ESXI.victims[:10]) for number in range(runs)])
    assert len(list(tables(found).values())[2].rows) == rows


def rendered(found, width=MIN_WIDTH, encoding="utf-8"):
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding, write_through=True), width=width)
    console.print(simulation_text(found))
    return raw.getvalue().decode(encoding)


def test_tables_cut_nothing_off():
    long = replace(
        ESXI, name="n" * 100 + "\x1b", capacity=1 << 40, fits=123_456, started=100_000, slowdown=123.4, worst=98_765.4,
        victims=[replace(ESXI.victims[0], region="r" * 300, paged_out=10**12, paged_in=10**12, seconds=1e7)],
        counts={"first_touch": 10**13}, guest_seconds={"first_touch": 1e9}, lost=["[red]vm[/red], page 1: \x1b"],
    )  # fmt: skip
    text = rendered(simulation(*all_ways(long), memory=1 << 50, guests=100_000))
    assert "\x1b" not in text and "[red]vm[/red]" in text
    assert max(map(len, text.splitlines())) <= MIN_WIDTH
    for number in ("100,000 / 123,456", "123 / 98,765", "1,000,000,000,000", "10,000,000,000,000", "30.0 GiB"):
        assert number in text, number


@pytest.mark.parametrize("found", [WHOLE, simulation(NOT_STARTED), simulation(*all_ways(ESXI, KVM, HYPERV))])
def test_they_fit_a_plain_terminal(found):
    text = rendered(found, encoding="ascii")
    assert max(map(len, text.splitlines())) <= MIN_WIDTH
    assert all(sentence.split(" ")[0] in text for sentence in simulation_verdict(found))


# --- the verdict


def test_verdict():
    assert simulation_verdict(WHOLE) == [
        "A host of 96.0 GiB has room for 63 guests such as these 50, which were promised 200 GiB, under ESXi, salting 0"
        " (slowdown 1.04, at worst 13.1), and for 24 under Hyper-V (slowdown 1.01, at worst 1.01).",
        "Under KVM, guests lost a page that could not be read back.",
        "Hyper-V did not start 26 of 50 guests for want of memory.",
        "Sharing saved most under ESXi, salting 0: 30.0 GiB, of these 10.0 GiB of zero pages; it had caught up after"
        " 54 min. Net of the 0.274 cores that it took (scanner, COW breaks, lost TLB reach) it was worth 9.6 guests.",
        "Of the 410 MiB that ESXi, salting 0 paged out, 20.0 % were in their guests' working sets at that time.",
    ]


def test_verdict_of_all_ways():
    slow = replace(ESXI, slowdown=2.5, guest_seconds={"swap_in": 3.0, "compress": 1.0})
    runs = [replace(run, samples=[sample(480, saved_equal=(20 if run.aslr else 25) * GIB)]) for run in all_ways(slow)]
    found = simulation_verdict(simulation(*runs, *all_ways(HYPERV)))
    assert found[1] == (
        "Hyper-V, 2M did not start 26 of 50 guests for want of memory; 3 more runs did not start all, either."
    )
    assert found[2].startswith("Sharing saved most under ESXi, salting 0, 2M, no ASLR: 35.0 GiB")
    assert found[3] == (
        "Guests were slowed down most under ESXi, salting 0, 2M, 2.50 times, most of all vdi-50-17; 75.0 % of their"
        " waits were for: the host's swap: read."
    )
    assert found[-1] == "With ASLR, ESXi, salting 0, 2M saved 30.0 GiB by sharing, and 35.0 GiB without it."


@pytest.mark.parametrize(
    ("runs", "parts"),
    [
        ([NOT_STARTED], ["room for 0 guests", "under Nothing (nobody was slowed down)."]),
        ([ESXI], ["room for 63", "under ESXi, salting 0 (slowdown 1.04, at worst 13.1)."]),
        ([ESXI, replace(ESXI, name="b")], ["and for as many under each of the others."]),
        ([replace(ESXI, slowdown=1.2), replace(ESXI, name="b")], ["under b (slowdown 1.04"]),
    ],
)
def test_the_first_sentence(runs, parts):
    sentence = simulation_verdict(simulation(*runs))[0]
    assert all(part in sentence for part in parts), sentence


# --- JSON


def test_json():
    data = json.loads(json.dumps(simulation_json(WHOLE), allow_nan=False))
    assert {key: value for key, value in data.items() if key != "runs"} == {
        "schema": "pagedup.simulate/1", "scenario": "vdi-50", "seed": 7, "hours": 8.0, "guests": 50,
        "memory": 96 << 30, "cores": 16, "promised": 200 << 30,
    }  # fmt: skip
    assert [run["name"] for run in data["runs"]] == ["ESXi, salting 0", "KVM", "Hyper-V"]
    run = data["runs"][0]
    assert run["net_benefit"]["net"] == net_benefit(WHOLE, ESXI).net
    assert run["net_benefit"]["cores"] == net_benefit(WHOLE, ESXI).cores
    assert run["samples"] == [asdict(each) for each in ESXI.samples]
    assert run["victims"][0] == {
        "region": "kernel data", "hot": True, "paged_out": 1000, "paged_in": 900, "seconds": 9.0,
    }  # fmt: skip
    assert run["counts"] == ESXI.counts and run["guest_seconds"] == ESXI.guest_seconds
    assert data["runs"][1]["lost"] == ["vm3, page 17: slot 5 is corrupt"]
    assert data["runs"][2]["caught_up"] is None
    rest = {key: value for key, value in run.items() if key not in ("net_benefit", "samples", "victims", "lost")}
    assert rest == {key: value for key, value in asdict(ESXI).items() if key in rest}
