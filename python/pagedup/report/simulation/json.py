"""The simulation as data, in schema `pagedup.simulate/1` (docs/simulate-json.md)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pagedup.host.net_benefit import net_benefit
from pagedup.host.result import Run, Simulation

SIMULATE_SCHEMA = "pagedup.simulate/1"


def simulation_json(simulation: Simulation) -> dict[str, Any]:
    """The result as what `json.dumps` takes."""
    return {
        "schema": SIMULATE_SCHEMA,
        "scenario": simulation.scenario,
        "seed": simulation.seed,
        "hours": simulation.hours,
        "guests": simulation.guests,
        "memory": simulation.memory,
        "cores": simulation.cores,
        "promised": simulation.promised,
        "runs": [_run(simulation, run) for run in simulation.runs],
    }


def _run(simulation: Simulation, run: Run) -> dict[str, Any]:
    benefit = net_benefit(simulation, run)
    fields = asdict(run)
    after = ("samples", "victims", "lost")  # the long ones, after all that fits on a screen
    return {
        **{name: value for name, value in fields.items() if name not in after},
        "net_benefit": {**asdict(benefit), "cores": benefit.cores, "net": benefit.net},
        **{name: fields[name] for name in after},
    }
