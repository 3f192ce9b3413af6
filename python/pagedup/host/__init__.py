"""A simulated host: guests, sharing, balloon, compression and swap, states, cost and time."""

from pagedup.host.costs import Costs, Operation
from pagedup.host.guest import HostGuest
from pagedup.host.host import Host
from pagedup.host.hypervisors import Esxi, HyperV, Kvm
from pagedup.host.pager import Pager
from pagedup.host.paging import Lost, PagedIn, PagedOut, PageLost, PagingCounts
from pagedup.host.result import Run, Sample, Simulation, Victims
from pagedup.host.scenario import DynamicMemory, GuestSet, Machine, Phase, Scenario, read_scenario
from pagedup.host.scenarios import scenario_names, scenario_preset
from pagedup.host.simulate import simulate
from pagedup.host.trace import Trace, save_trace
from pagedup.host.trade import Curve, Trade, trade, trades

__all__ = [
    "Costs",
    "Curve",
    "DynamicMemory",
    "Esxi",
    "GuestSet",
    "Host",
    "HostGuest",
    "HyperV",
    "Kvm",
    "Lost",
    "Machine",
    "Operation",
    "PageLost",
    "PagedIn",
    "PagedOut",
    "Pager",
    "PagingCounts",
    "Phase",
    "Run",
    "Sample",
    "Scenario",
    "Simulation",
    "Trace",
    "Trade",
    "Victims",
    "read_scenario",
    "save_trace",
    "scenario_names",
    "scenario_preset",
    "simulate",
    "trade",
    "trades",
]
