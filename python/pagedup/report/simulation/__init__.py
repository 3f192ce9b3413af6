"""What a simulation found, as people and programs read it: pure functions, which neither compute nor print.

What a terminal shows is in `pagedup.report.simulation.terminal`, which needs rich and is imported only for that.
"""

from pagedup.report.simulation.json import SIMULATE_SCHEMA, simulation_json
from pagedup.report.simulation.verdict import simulation_verdict

__all__ = ["SIMULATE_SCHEMA", "simulation_json", "simulation_verdict"]
