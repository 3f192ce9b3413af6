"""The simulation as a page of HTML."""

from __future__ import annotations

from collections.abc import Sequence

from pagedup.host.result import Run, Simulation
from pagedup.host.trade import Trade
from pagedup.report.page import Figure, Page, Section, how_it_was_made, page_html, shown
from pagedup.report.provenance import Provenance
from pagedup.report.simulation.naming import guests_label, run_label, times
from pagedup.report.simulation.tables import simulation_tables
from pagedup.report.simulation.verdict import best_run, simulation_verdict
from pagedup.report.units import human_size, human_time, printable

_MOST_FIGURES = 6


def simulation_html(simulation: Simulation, provenance: Provenance, trades: Sequence[Trade] = ()) -> str:
    """The page, below 2 MB whatever was simulated. The same input gives the same text."""
    from pagedup.report.simulation.plot_trade import trade_pictures
    from pagedup.report.simulation.plots import simulation_pictures

    return page_html(
        Page(
            question="How many guests fit on a host, and what they feel",
            scope=_scope(simulation),
            figures=_figures(simulation),
            verdict=simulation_verdict(simulation),
            sections=[
                Section("In numbers", tables=[shown(table) for table in simulation_tables(simulation)]),
                Section("As time passed", pictures=simulation_pictures(simulation)),
                *([Section("Large pages against sharing", pictures=trade_pictures(trades))] if trades else []),
                how_it_was_made(
                    "How it was made",
                    provenance,
                    ("Simulated", f"{human_time(simulation.hours * 3600)} of each, seed {simulation.seed}"),
                    "The scenario",
                ),
            ],
            provenance=provenance,
        )
    )


def _scope(simulation: Simulation) -> str:
    return printable(
        f"{simulation.scenario}: {guests_label(simulation.guests)}, {human_size(simulation.promised)} on a host of"
        f" {human_size(simulation.memory)}"
    )


def _figures(simulation: Simulation) -> list[Figure]:
    """Guests that fit, the run with most of them first."""
    best = best_run(simulation)
    others = [run for run in simulation.runs if run is not best]
    return [_figure(simulation, run) for run in [best, *others][:_MOST_FIGURES]]


def _figure(simulation: Simulation, run: Run) -> Figure:
    return Figure(f"fit under {run_label(simulation, run)}", f"{run.fits:,}", f"slowdown {times(run.slowdown)}")
