"""The simulation for a person at a terminal; imported only when it is printed, since rich is slow to import."""

from __future__ import annotations

from rich.console import RenderableType

from pagedup.host.result import Simulation
from pagedup.report.simulation.tables import simulation_tables
from pagedup.report.simulation.verdict import simulation_verdict
from pagedup.report.terminal import answer_text


def simulation_text(simulation: Simulation) -> RenderableType:
    """All that `pagedup simulate` shows: the tables, and the verdict."""
    return answer_text(simulation_tables(simulation), simulation_verdict(simulation))
