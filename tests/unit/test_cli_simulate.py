"""`pagedup simulate` as a program."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pagedup.host.scenarios import scenario_names
from tests.processes import assert_fails, run_python

SPEC = """
system = "linux"
memory = "32 MiB"
guests = 3
kernel = { data = "2 MiB", content = { zero = 0.1, common = 0.2, repeated = 0.1 } }
file_cache = { size = "4 MiB", growth = "8 MiB", files = "64 MiB", hot = 0.5 }
free = { zero = 1.0 }
[[processes]]
name = "office"
heap = "8 MiB"
content = { zero = 0.1, common = 0.1, repeated = 0.1 }
"""
SCENARIO = """
name = "small"
hours = 0.25
seed = 3
[host]
memory = "80 MiB"
cores = 2
swap = "64 MiB"
[[guests]]
layout = "guest.toml"
every = 60
dynamic_memory = { startup = "24 MiB", minimum = "16 MiB" }
[[guests.phases]]
touches = 300
[[hypervisors]]
kind = "kvm"
name = "as it ships"
[[hypervisors]]
kind = "hyperv"
"""


def pagedup(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pagedup", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def answer(*arguments: str | Path) -> dict[str, Any]:
    done = pagedup("simulate", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    data: dict[str, Any] = json.loads(done.stdout)
    return data


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    (tmp_path / "guest.toml").write_text(SPEC)
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO)
    return path


# --- what it says -------------------------------------------------------------------------------------------------


def test_json(scenario: Path) -> None:
    data = answer(scenario)
    assert (data["schema"], data["scenario"], data["seed"], data["hours"]) == ("pagedup.simulate/1", "small", 3, 0.25)
    assert (data["guests"], data["memory"], data["promised"], data["cores"]) == (3, 80 << 20, 96 << 20, 2)
    assert [(run["hypervisor"], run["name"]) for run in data["runs"]] == [("kvm", "as it ships"), ("hyperv", "hyperv")]
    for run in data["runs"]:
        assert run["started"] + run["refused"] == 3
        assert run["samples"][-1]["time"] == 900
        assert all(sample["held"] <= run["capacity"] == (80 << 20) // 4096 for sample in run["samples"])
        for sample in run["samples"]:
            assert sample["present"] - sample["in_use"] == sample["saved_zero"] + sample["saved_equal"]


def test_the_same_seed_gives_the_same(scenario: Path) -> None:
    one, again, other = (answer(scenario, "--seed", seed, "--hypervisor", "kvm") for seed in ("1", "1", "2"))
    for data in (one, again, other):
        for run in data["runs"]:
            del run["seconds"]
    assert one == again and one["runs"] != other["runs"]


def test_tables_and_page(scenario: Path, tmp_path: Path) -> None:
    done = pagedup("simulate", scenario, "--html", tmp_path / "report.html", "--hours", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("3 guests promised 96.0 MiB", "as it ships", "hyperv", "A host of 80.0 MiB has room for"):
        assert part in done.stdout
    assert "\x1b" not in done.stdout
    text = (tmp_path / "report.html").read_text()
    assert text.count("<svg") == 4 and "Large pages against sharing" in text and text.rstrip().endswith("</html>")
    for part in ("pagedup simulate", "as it ships", "6.0 min of each, seed 3", "small.toml", "blake3"):
        assert part in text


def test_hypervisors_are_those_of_the_scenario_or_as_shipped(scenario: Path) -> None:
    def names(*kinds: str) -> list[tuple[str, str]]:
        options = [word for kind in kinds for word in ("--hypervisor", kind)]
        return [(run["hypervisor"], run["name"]) for run in answer(scenario, "--hours", "0.02", *options)["runs"]]

    assert names("hyperv") == [("hyperv", "hyperv")]
    assert names("hyperv", "kvm", "kvm") == [("hyperv", "hyperv"), ("kvm", "as it ships")]
    assert names("esxi") == [("esxi", "esxi")]


def test_paths_are_relative_to_the_scenario(scenario: Path) -> None:
    done = pagedup("simulate", "--json", "--hours", "0.02", scenario.name, cwd=scenario.parent)
    assert (done.returncode, done.stderr) == (0, "")
    (scenario.parent / "deep").mkdir()
    scenario.rename(scenario.parent / "deep" / "small.toml")
    done = pagedup("simulate", "--json", "deep/small.toml", cwd=scenario.parent)
    assert_fails(done, 1, "guests[0].layout", "guest.toml", "No such file")


# --- what it refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["SCENARIO", "--help"]),
        (["vdi-51"], ["there is no scenario 'vdi-51'", ", ".join(scenario_names()), "no such file"]),
        (["./missing"], ["there is no scenario './missing'"]),
        (["{scenario}", "{scenario}"], ["unrecognized arguments"]),
        (["{scenario}", "--hypervisor", "xen"], ["--hypervisor xen: there are esxi, kvm, hyperv"]),
        (["{scenario}", "--hypervisor", ""], ["--hypervisor : there are esxi, kvm, hyperv"]),
        (["{scenario}", "--hypervisor", "as it ships"], ["there are esxi, kvm, hyperv"]),
        (["{scenario}", "--hours", "0"], ["--hours 0: more than 0 is needed"]),
        (["{scenario}", "--hours", "-1"], ["--hours -1"]),
        (["{scenario}", "--hours", "nan"], ["--hours nan"]),
        (["{scenario}", "--hours", "inf"], ["--hours inf"]),
        (["{scenario}", "--hours", "1000001"], ["--hours 1e+06: more than 0 is needed, and at most 1,000,000"]),
        (["{scenario}", "--hours", "x"], ["--hours"]),
        (["{scenario}", "--seed", "-1"], ["--seed -1: from 0 to 2^63 - 1"]),
        (["{scenario}", "--seed", str(1 << 63)], ["--seed 9223372036854775808"]),
        (["{scenario}", "--seed", "0.5"], ["--seed"]),
        (["{scenario}", "--guests", "4"], ["--guests"]),
    ],
)
def test_wrong_usage(scenario: Path, tmp_path: Path, arguments: Sequence[str], parts: Sequence[str]) -> None:
    done = pagedup("simulate", *(text.replace("{scenario}", str(scenario)) for text in arguments))
    assert_fails(done, 2, *parts)
    assert sorted(os.listdir(tmp_path)) == ["guest.toml", "small.toml"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (f"nonsense = 1\n{SCENARIO}", ["small.toml: ", "unknown field `nonsense`"]),
        (SCENARIO.replace("touches", "touch"), ["unknown field `touch`", "`$.guests[0].phases[0]`"]),
        (SCENARIO.replace("80 MiB", "80 MB"), ["memory: '80 MB' is no size", "`$.host`"]),
        (SCENARIO.replace('kind = "kvm"', 'kind = "xen"'), ["`$.hypervisors[0].kind`"]),
        ("[[", ["small.toml"]),
        (None, ["small.toml: No such file or directory"]),
    ],
)
def test_bad_scenarios(scenario: Path, tmp_path: Path, text: str | None, parts: Sequence[str]) -> None:
    """A failure, as bad specifications are: the command line is right. Nothing is written."""
    if text is None:
        scenario.unlink()
    else:
        scenario.write_text(text)
    assert_fails(pagedup("simulate", scenario, "--html", tmp_path / "report.html"), 1, *parts)
    assert "report.html" not in os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("spec", "scenario_text", "parts"),
    [
        (SPEC.replace('"32 MiB"', '"1 MiB"'), SCENARIO, ["left"]),
        (SPEC.replace('"linux"', '"dos"'), SCENARIO, ["guests[0].layout: ", "guest.toml", "'dos'"]),
        (SPEC, SCENARIO.replace("guest.toml", "windows-95"), ["guests[0].layout: there is no preset 'windows-95'"]),
        (SPEC, SCENARIO.replace('"80 MiB"', '"80 MiB"\nkept = "80 MiB"'), ["host.kept", "memory"]),
        (SPEC, SCENARIO.replace('"80 MiB"', "0"), ["host"]),
    ],
)
def test_scenarios_that_cannot_start(
    scenario: Path, tmp_path: Path, spec: str, scenario_text: str, parts: Sequence[str]
) -> None:
    (tmp_path / "guest.toml").write_text(spec)
    scenario.write_text(scenario_text)
    assert_fails(pagedup("simulate", scenario), 1, *parts)


def test_a_page_that_cannot_be_written_is_told_at_once(scenario: Path, tmp_path: Path) -> None:
    scenario.write_text(SCENARIO.replace("hours = 0.25", "hours = 100000"))
    done = pagedup("simulate", scenario, "--html", tmp_path / "no" / "report.html")
    assert_fails(done, 1, "report.html: the report cannot be written: there is no folder")
    assert_fails(pagedup("simulate", scenario, "--html", tmp_path), 1, "is a folder; give the report's file name")


INTERRUPTED = """
import signal, sys, threading
from pagedup.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is begun without it
later = threading.Timer(1.5, signal.raise_signal, [signal.SIGINT])
later.daemon = True
later.start()
sys.exit(main(["simulate", sys.argv[1]]))
"""


def test_an_interrupt_ends_it(scenario: Path) -> None:
    """Wherever it comes, while layouts are generated or later; nobody waits for the end of so long a time."""
    scenario.write_text(SCENARIO.replace("hours = 0.25", "hours = 100000"))
    done = run_python(INTERRUPTED, scenario)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "pagedup: interrupted\n")


def test_help() -> None:
    done = pagedup("simulate", "--help")
    assert done.returncode == 0 and ", ".join(scenario_names()) in done.stdout
    assert "pagedup.simulate/1" in done.stdout
    assert "simulate" in pagedup("--help").stdout
