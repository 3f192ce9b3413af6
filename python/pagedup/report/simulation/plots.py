"""The pictures of a simulation; imported only when they are drawn, since matplotlib is slow to import."""

from __future__ import annotations

from dataclasses import replace

from pagedup.host.pictures import timeline
from pagedup.host.result import Simulation
from pagedup.memory.layouts import PAGE
from pagedup.report.canvas import plain_settings
from pagedup.report.picture import Picture
from pagedup.report.simulation.plot_timeline import draw_timeline

_MOST = 16  # pictures; more would make the page too large


def simulation_pictures(simulation: Simulation) -> list[Picture]:
    """One a run, of the first ones."""
    runs = [run for run in simulation.runs if run.samples]
    drawn = [(run, timeline(run)) for run in runs[:_MOST]]
    most = max((max(found.layers.sum(axis=1).max(), run.capacity * PAGE) for run, found in drawn), default=0)
    with plain_settings():
        pictures = [
            draw_timeline(simulation, run, found, number, float(most)) for number, (run, found) in enumerate(drawn, 1)
        ]
    if len(runs) > _MOST:
        more = len(runs) - _MOST
        left_out = f" {more:,} more {'run is' if more == 1 else 'runs are'} not drawn."
        pictures[-1] = replace(pictures[-1], note=pictures[-1].note + left_out)
    return pictures
