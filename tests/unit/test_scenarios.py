"""Scenarios: those that come with pagedup, whose values all have sources; what is wrong in one is told by its field."""

import os
import tomllib
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from pagedup.guests import SpecError
from pagedup.host.hypervisors import Esxi, HyperV, Kvm
from pagedup.host.scenario import GuestSet, Machine, Phase, Scenario, read_scenario
from pagedup.host.scenarios import scenario_file, scenario_names, scenario_preset
from tests.sourced import KINDS, covers, fields_of

BASE = 'hours = 1\nhost = { memory = "1 GiB" }\n'
GUESTS = '[[guests]]\nlayout = "debian-server"\n'


def sources_and_fields(name):
    table = tomllib.loads(files("pagedup.host.scenarios").joinpath(f"{name}.toml").read_text())
    return table.pop("sources"), list(fields_of(table))


@pytest.mark.parametrize("name", scenario_names())
def test_every_value_has_a_source(name):
    sources, fields = sources_and_fields(name)
    assert len(fields) > 10
    assert [field for field in fields if not any(covers(source, field) for source in sources)] == []


@pytest.mark.parametrize("name", scenario_names())
def test_every_source_is_of_a_value_and_says_of_what_kind_it_is(name):
    sources, fields = sources_and_fields(name)
    assert [source for source in sources if not any(covers(source, field) for field in fields)] == []
    assert [text for text in sources.values() if not text.startswith(KINDS)] == []


def test_a_missing_source_is_noticed():
    assert list(fields_of({"guests": [{"layout": "x", "every": 3, "phases": [{"name": "a", "start": 0}]}]})) == [
        "guests.x.every",
        "guests.x.phases.a.start",
    ]
    assert list(fields_of({"aslr": [True], "hypervisors": [{"kind": "esxi", "idle_tax": 5}]})) == [
        "aslr",
        "hypervisors.esxi.idle_tax",
    ]
    assert covers("guests.*.phases.*.start", "guests.x.phases.a.start")
    assert not covers("guests.*.every", "guests.x.phases.a.start")


def test_vdi_50_is_the_question_of_the_article():
    found = scenario_preset("vdi-50")
    assert [(each.kind, each.title) for each in found.hypervisors] == [
        ("esxi", "ESXi, salting 0"),
        ("esxi", "ESXi, salting 2"),
        ("kvm", "KVM"),
        ("hyperv", "Hyper-V"),
    ]
    assert [each.share_force_salting for each in found.hypervisors if isinstance(each, Esxi)] == [0, 2]
    assert set(found.large_pages) == set(found.aslr) == {True, False}
    assert found.hours == 8
    assert [guests.layout for guests in found.guests] == ["vdi-50"]
    assert max(phase.touches for phase in found.guests[0].phases) >= 300


def test_scenarios_that_come_with_pagedup():
    assert "vdi-50" in scenario_names() == sorted(scenario_names())
    for name in ("vdi-51", "", "../scenario", "vdi-50.toml", os.devnull):
        with pytest.raises(SpecError) as caught:
            scenario_preset(name)
        assert str(caught.value) == f"there is no scenario '{name}'; there are {', '.join(scenario_names())}"
    assert scenario_file("vdi-50").read_text().startswith("#")


def read(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "office.toml"
    path.write_text(text)
    return read_scenario(str(path))


def test_what_is_left_out_has_its_default(tmp_path):
    assert read(tmp_path, BASE + GUESTS) == Scenario(
        hours=1.0, host=Machine(memory="1 GiB"), guests=(GuestSet(layout="debian-server"),)
    )
    assert Scenario(hours=1.0, host=Machine(memory=1), guests=(GuestSet(layout="x"),)).hypervisors == (
        Esxi(), Kvm(), HyperV(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "missing required field"),
        (BASE, "missing required field `guests`"),
        (f"{BASE}guests = []", "guests is empty"),
        (f"nonsense = 1\n{BASE}{GUESTS}", "unknown field `nonsense`"),
        (f"{BASE}{GUESTS}nonsense = 1", "unknown field `nonsense` - at `$.guests[0]`"),
        (f"{BASE}{GUESTS}[[guests.phases]]\nfast = 1", "unknown field `fast` - at `$.guests[0].phases[0]`"),
        (f"{BASE}{GUESTS}reservation = '1 GB'", "reservation: '1 GB' is no size"),
        (f"{BASE}{GUESTS}reservation = '1 GB'", "at `$.guests[0]`"),
        (f"{BASE}{GUESTS}dynamic_memory = {{ weight = 10_001 }}", "`$.guests[0].dynamic_memory.weight`"),
        (f"{BASE}{GUESTS}phases = []", "phases is empty"),
        (f"{BASE}{GUESTS}[[guests.phases]]\nstart = 1", "the first starts at 1 hours; it must start at 0"),
        (
            f"{BASE}{GUESTS}[[guests.phases]]\n[[guests.phases]]\nstart = 1\n[[guests.phases]]\nstart = 1",
            "each must start later than the one before it",
        ),
        (f"{BASE}{GUESTS}[[guests.phases]]\nwrites = 1.5", "`$.guests[0].phases[0].writes`"),
        (f"{BASE}{GUESTS}[[hypervisors]]\nkind = 'xen'", "`$.hypervisors[0].kind`"),
        (f"{BASE}{GUESTS}[[hypervisors]]", "missing required field `kind` - at `$.hypervisors[0]`"),
        (f"{BASE}{GUESTS}[[hypervisors]]\nkind = 'esxi'\n[[hypervisors]]\nkind = 'esxi'", "'esxi' is there twice"),
        (f"{BASE}{GUESTS}[[hypervisors]]\nkind = 'esxi'\nuse_zero_pages = true", "unknown field `use_zero_pages`"),
        (f"{BASE}{GUESTS}[costs]\nshare = -1", "`$.costs.share`"),
        (f"{BASE.replace('hours = 1', 'hours = 0')}{GUESTS}", "`$.hours`"),
        (f"{BASE.replace('hours = 1', 'hours = inf')}{GUESTS}", "`$.hours`"),
        (f"aslr = []\n{BASE}{GUESTS}", "aslr is empty"),
        (f"tick = 0\n{BASE}{GUESTS}", "`$.tick`"),
        (BASE.replace("1 GiB", "1 XB") + GUESTS, "memory: '1 XB' is no size"),
        ("x = " + "[" * 100_000, "brackets are nested too deeply"),
    ],
)
def test_bad_scenarios(tmp_path, text, part):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/office.toml: ")
    assert part in message and "\n" not in message


def test_every_field_comes_through(tmp_path):
    found = read(
        tmp_path,
        f"""name = "n"\n{BASE}{GUESTS}every = 5
        [[guests.phases]]
        [[guests.phases]]
        name = "later"
        start = 0.5
        [[hypervisors]]
        kind = "kvm"
        smart_scan = false
        """,
    )
    assert found.guests[0].phases == (Phase(), Phase(name="later", start=0.5))
    assert found.hypervisors == (Kvm(smart_scan=False),)
    assert msgspec.convert(msgspec.to_builtins(found), Scenario) == found
