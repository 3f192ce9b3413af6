"""Scenarios that come with pagedup, one TOML file each; every value in them has its source beside it."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from pagedup.guests.own_files import own_names, read_own
from pagedup.host.scenario import Scenario, read_scenario


def scenario_names() -> list[str]:
    """What `scenario_preset` knows."""
    return own_names(__name__)


def scenario_preset(name: str) -> Scenario:
    """The scenario of that name; SpecError, which lists them all, if there is none."""
    return read_own(__name__, name, "scenario", read_scenario)


def scenario_file(name: str) -> Traversable:
    """The file of the scenario of that name."""
    return files(__name__) / f"{name}.toml"
