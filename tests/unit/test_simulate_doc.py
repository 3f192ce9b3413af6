"""docs/simulate.md and docs/simulate-json.md say what the code does: each field, unit default and key; the example."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from pagedup.host.costs import Costs, Operation
from pagedup.host.hypervisors import AnyHypervisor
from pagedup.host.net_benefit import NetBenefit
from pagedup.host.result import Run, Sample, Simulation, Victims
from pagedup.host.scenario import DynamicMemory, GuestSet, Machine, Phase, Scenario, read_scenario
from pagedup.host.scenarios import scenario_names
from pagedup.report.simulation import simulation_json
from tests.simulations import WHOLE

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "simulate.md").read_text()
JSON = (DOCS / "simulate-json.md").read_text()

PARTS = {
    "": Scenario,
    "host.": Machine,
    "guests.": GuestSet,
    "phases.": Phase,
    "dynamic_memory.": DynamicMemory,
    "costs.": Costs,
    **{f"{each.__struct_config__.tag}.": each for each in get_args(AnyHypervisor)},
}
TABLES = ("host", "guests", "phases", "dynamic_memory", "hypervisors", "costs")  # told of field by field


def default_of(field):
    """What the field is where nobody says it."""
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def fields():
    """Each dotted field with its default; every hypervisor's name and kind are told of once, in words."""
    for prefix, part in PARTS.items():
        for field in msgspec.structs.fields(part):
            if field.name in TABLES or (field.name == "name" and prefix and part not in (Phase,)):
                continue
            yield f"{prefix}{field.name}", None if field.required else default_of(field)


def rows(text):
    """The names in the first cell of each row of the tables, and the second cell."""
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = line.strip("| ").split(" | ")
            yield re.findall(r"`([a-z0-9_.]+)`", cells[0]), cells[1]


FIELDS = dict(fields())
TOLD = {name: cell for names, cell in rows(TEXT[TEXT.index("### The question") :]) for name in names}


def test_every_field_is_told_of_and_no_other():
    assert len(FIELDS) > 60
    assert sorted(TOLD) == sorted(FIELDS)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_defaults_are_told_as_they_are(name):
    default, cell = FIELDS[name], TOLD[name]
    if default is None:
        assert cell.endswith("required")
    elif default == {}:
        assert cell == "table"
    elif isinstance(default, bool):
        assert cell == str(default).lower()
    elif isinstance(default, tuple):
        assert cell.endswith("[true]") and default == (True,)
    elif isinstance(default, (int, float)):
        assert default in [float(number) for number in re.findall(r"-?[0-9]+(?:\.[0-9]+)?", cell)]
    else:
        assert cell.endswith(default or "none")


def test_the_example_can_be_read(tmp_path):
    match = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert match is not None
    (tmp_path / "SCENARIO.toml").write_text(match[1])
    found = read_scenario(str(tmp_path / "SCENARIO.toml"))
    assert (found.name, len(found.hypervisors), len(found.guests[0].phases)) == ("office", 2, 2)


def test_the_example_in_python_runs(capsys):
    match = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert match is not None
    exec(match[1], {})
    state, held, seconds, sample = capsys.readouterr().out.split(" ", 3)
    assert state == "high" and 0 < int(held) <= 3 << 18 and float(seconds) > 0 and sample.startswith("Sample(time=600")


def test_every_preset_and_hypervisor_is_told_of():
    assert [name for name in scenario_names() if f"| `{name}` |" not in TEXT] == []
    assert [prefix for prefix in PARTS if prefix and f"`{prefix[:-1]}`" not in TEXT and f"[{prefix[:-1]}]" not in TEXT
            and f".{prefix[:-1]}]" not in TEXT] == []  # fmt: skip


# --- the JSON


def section(title):
    """The keys that the tables under a heading tell of."""
    match = re.search(rf"^#+ {re.escape(title)}.*?$(.*?)(?=^#|\Z)", JSON, re.DOTALL | re.MULTILINE)
    assert match is not None, title
    return [name for names, _ in rows(match[1]) for name in names]


FOUND = simulation_json(WHOLE)
SECTIONS = {
    "`pagedup simulate --json`": FOUND,
    "`runs`": FOUND["runs"][0],
    "`net_benefit`": FOUND["runs"][0]["net_benefit"],
    "`samples`": FOUND["runs"][0]["samples"][0],
    "`victims`": FOUND["runs"][0]["victims"][0],
}


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_documented_and_no_other(title):
    assert sorted(section(title)) == sorted(SECTIONS[title])


@pytest.mark.parametrize(
    ("title", "kind", "more"),
    [
        ("`pagedup simulate --json`", Simulation, {"schema"}),
        ("`runs`", Run, {"net_benefit"}),
        ("`net_benefit`", NetBenefit, {"cores", "net"}),
        ("`samples`", Sample, set()),
        ("`victims`", Victims, set()),
    ],
)
def test_the_json_leaves_nothing_out(title, kind, more):
    assert set(kind.__dataclass_fields__) | more == set(SECTIONS[title])


def test_every_operation_is_documented():
    assert {str(operation) for operation in Operation} <= set(section("Operations"))


def test_the_example_of_the_json_is_one():
    match = re.search(r"```\n(\{.*?\})\n```", JSON, re.DOTALL)
    assert match is not None
    example = msgspec.json.decode(match[1].replace("[...]", "[]"))
    assert example.keys() == FOUND.keys()
    assert {key: type(value) for key, value in example.items()} == {key: type(FOUND[key]) for key in FOUND}
