"""`pagedup simulate`: what a host's memory holds as time passes, under each hypervisor."""

from __future__ import annotations

import math
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pagedup.cli.answer import Answer, add_answer_options, answer
from pagedup.cli.command import Parser, UsageError
from pagedup.cli.progress import progress_display

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from rich.console import RenderableType

    from pagedup.host.hypervisors import AnyHypervisor
    from pagedup.host.result import Simulation
    from pagedup.host.scenario import Scenario
    from pagedup.report.provenance import Provenance, SourceDigest

_DESCRIPTION = """\
Run guests on a simulated host that has less memory than they were promised, under each hypervisor of the scenario, and
tell how many fit, how their memory was found (sharing, balloon, compression, swap), and how much that slowed them down.

A SCENARIO is
  PRESET          {presets}
  SCENARIO.toml   a host, its guests, what they do, and the hypervisors to compare (docs/simulate.md)
"""

_EPILOG = """\
examples:
  pagedup simulate vdi-50                     fifty desktops on one server, under each hypervisor
  pagedup simulate vdi-50 --hypervisor esxi --hypervisor hyperv
                                              only under these
  pagedup simulate office.toml --hours 2 --html report.html
                                              memory over time as pictures, too

exit codes: 0 done, 1 the scenario is wrong or something could not be written, 2 wrong usage, 130 interrupted
"""

_LONGEST = 1e6  # hours, as a scenario may say, too


class SimulateCommand:
    """Reads the scenario, runs it under each hypervisor, and shows what was found."""

    summary = "how many guests fit on a simulated host under each hypervisor, and what they feel"

    def run(self, argv: Sequence[str]) -> int:
        """Simulate; 0, since every failure is raised."""
        options = _parser().parse_intermixed_args(argv)
        _refuse_nonsense(options)
        chosen = _choose(options)
        answer(options, ["simulate", *argv], lambda: _simulate(chosen))
        return 0


def _parser() -> Parser:
    from pagedup.host.scenarios import scenario_names
    from pagedup.report.simulation import SIMULATE_SCHEMA

    parser = Parser("pagedup simulate", _DESCRIPTION.format(presets=", ".join(scenario_names())), _EPILOG)
    parser.add_argument("scenario", metavar="SCENARIO", help="a preset, or a scenario in a TOML file")
    parser.add_argument(
        "--hypervisor",
        metavar="KIND",
        action="append",
        help=f"only under this one ({', '.join(_kinds())}), as the scenario sets it, or else as it is shipped; may be"
        " repeated",
    )
    parser.add_argument("--hours", metavar="H", type=float, help="of simulated time (default: as the scenario says)")
    parser.add_argument("--seed", metavar="S", type=int, help="another case of the same kind (default: the scenario's)")
    add_answer_options(parser, SIMULATE_SCHEMA)
    return parser


def _kinds() -> dict[str, type[AnyHypervisor]]:
    """Hypervisors that there are, as scenarios call them."""
    from pagedup.host.hypervisors import AnyHypervisor

    return {str(each.__struct_config__.tag): each for each in get_args(AnyHypervisor)}


def _refuse_nonsense(options: Namespace) -> None:
    known = _kinds()
    for kind in options.hypervisor or ():
        if kind not in known:
            raise UsageError(f"--hypervisor {kind}: there are {', '.join(known)}")
    if options.hours is not None and not (math.isfinite(options.hours) and 0 < options.hours <= _LONGEST):
        raise UsageError(f"--hours {options.hours:g}: more than 0 is needed, and at most {_LONGEST:,.0f}")
    if options.seed is not None and not 0 <= options.seed < 1 << 63:
        raise UsageError(f"--seed {options.seed}: from 0 to 2^63 - 1 are possible")


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The scenario with what the command line changes of it, its file, and the text that asked for it."""

    scenario: Scenario
    file: Traversable
    text: str

    @property
    def folder(self) -> str:
        """What paths in the scenario are relative to. One that comes with pagedup names presets only."""
        return str(self.file.parent) if isinstance(self.file, Path) else "."


def _choose(options: Namespace) -> _Chosen:
    from msgspec.structs import replace

    chosen = _read(options.scenario)
    scenario = chosen.scenario
    if options.hypervisor:
        scenario = replace(scenario, hypervisors=_selected(scenario, options.hypervisor))
    if options.hours is not None:
        scenario = replace(scenario, hours=options.hours)
    if options.seed is not None:
        scenario = replace(scenario, seed=options.seed)
    return _Chosen(scenario, chosen.file, chosen.text)


def _read(text: str) -> _Chosen:
    from pagedup.guests import SpecError
    from pagedup.host.scenario import read_scenario
    from pagedup.host.scenarios import scenario_file, scenario_names, scenario_preset

    if text not in scenario_names() and (text.endswith(".toml") or os.path.exists(text)):
        return _Chosen(read_scenario(text), Path(text), text)
    try:
        return _Chosen(scenario_preset(text), scenario_file(text), text)
    except SpecError as error:  # a word of the command line is wrong
        raise UsageError(f"{error}, and no such file") from None


def _selected(scenario: Scenario, kinds: Sequence[str]) -> tuple[AnyHypervisor, ...]:
    """Hypervisors of these kinds: those of the scenario, or one with its defaults where it has none."""
    own = {kind: [each for each in scenario.hypervisors if each.kind == kind] or [_kinds()[kind]()] for kind in kinds}
    return tuple(each for hypervisors in own.values() for each in hypervisors)


@dataclass(frozen=True, slots=True)
class _Simulated(Answer):
    """What was found, and what of."""

    simulation: Simulation
    chosen: _Chosen

    def data(self) -> dict[str, Any]:
        """In schema pagedup.simulate/1."""
        from pagedup.report.simulation import simulation_json

        return simulation_json(self.simulation)

    def text(self) -> RenderableType:
        """The tables, and the verdict."""
        from pagedup.report.simulation.terminal import simulation_text

        return simulation_text(self.simulation)

    def sources(self) -> Sequence[SourceDigest]:
        """The scenario."""
        from blake3 import blake3

        from pagedup.report.provenance import SourceDigest

        file = self.chosen.file.read_bytes()
        return [SourceDigest(self.chosen.text, "scenario", len(file), blake3(file).hexdigest())]

    def html(self, provenance: Provenance) -> str:
        """With pictures."""
        from pagedup.host.trade import trades
        from pagedup.report.simulation.html import simulation_html

        with progress_display() as progress:
            found = trades(self.chosen.scenario, folder=self.chosen.folder, progress=progress)
        return simulation_html(self.simulation, provenance, found)


def _simulate(chosen: _Chosen) -> _Simulated:
    from dedupcore import available_threads
    from pagedup.host.simulate import simulate

    with progress_display() as progress:
        found = simulate(chosen.scenario, folder=chosen.folder, processes=available_threads(), progress=progress)
        return _Simulated(found, chosen)
