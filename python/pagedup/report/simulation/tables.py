"""The tables of a simulation."""

from __future__ import annotations

from pagedup.host.net_benefit import net_benefit
from pagedup.host.result import Run, Simulation
from pagedup.memory.layouts import PAGE
from pagedup.report.simulation.naming import OPERATIONS, cores, in_guests, page_label, run_label, share_of_time, times
from pagedup.report.table import Table
from pagedup.report.units import human_size, human_time, percent, printable

_SHOWN = 24  # rows of a table that has several for each run, of which each has two at least; the JSON has them all


def simulation_tables(simulation: Simulation) -> list[Table]:
    """All tables that have something to say, the most important one first."""
    tables = [
        _runs(simulation),
        _sharing(simulation),
        _victims(simulation),
        _waits(simulation),
        _lost(simulation),
    ]
    return [table for table in tables if table.rows]


def _runs(simulation: Simulation) -> Table:
    memory = human_size(simulation.memory)
    return Table(
        f"{simulation.guests:,} guests promised {human_size(simulation.promised)}, on a host of {memory},"
        f" {simulation.cores:,} cores, after {human_time(simulation.hours * 3600)}",
        (
            "hypervisor", "pages", "ASLR", "guests", "shared", "balloon", "compressed", "swap", "slowdown",
            "caught\nup", "net",
        ),
        [_run_row(simulation, run) for run in simulation.runs],
        "guests: that ran / such guests that would fit in memory as it was at the end; shared: saved by sharing;"
        " balloon: taken back from guests; swap: the hypervisor's, all four at the end; slowdown: time that guests took"
        " / would have taken, the mean and the slowest guest's worst minute; caught up: when sharing had saved 95 % of"
        " the most that it ever saved; net: what sharing was worth, in guests (next table)",
    )  # fmt: skip


def _run_row(simulation: Simulation, run: Run) -> tuple[str, ...]:
    benefit = net_benefit(simulation, run)
    last = run.samples[-1] if run.samples else None
    sizes = (last.saved, last.ballooned, last.compressed, last.swapped) if last else (0, 0, 0, 0)
    return (
        printable(run.name),
        page_label(run),
        "on" if run.aslr else "off",
        f"{run.started:,} / {run.fits:,}",
        *(human_size(pages * PAGE) for pages in sizes),
        f"{times(run.slowdown)} / {times(run.worst)}",
        "" if run.caught_up is None else human_time(run.caught_up),
        in_guests(benefit.net) if run.most_saved or run.scan_seconds else "",
    )


def _sharing(simulation: Simulation) -> Table:
    rows = []
    for run in simulation.runs:
        benefit = net_benefit(simulation, run)
        if not run.samples or not (run.most_saved or run.scan_seconds):
            continue
        last = run.samples[-1]
        rows.append(
            (
                run_label(simulation, run),
                human_size(last.saved_zero * PAGE),
                human_size(last.saved_equal * PAGE),
                in_guests(benefit.guests_more),
                cores(benefit.scan_cores),
                cores(benefit.cow_cores),
                cores(benefit.tlb_cores),
                in_guests(-benefit.guests_less),
                in_guests(benefit.net),
                human_size(round(benefit.saved / benefit.cores)) if benefit.cores and benefit.saved else "",
            )
        )
    return Table(
        "What sharing was worth",
        ("run", "zero pages", "equal pages", "in guests", "scanner", "COW", "TLB", "in guests", "net", "saved a core"),
        rows,
        "zero, equal pages: saved at the end, and how many guests' memory that is; scanner, COW, TLB: cores of the host"
        " that it took to scan, to break sharing at writes, and for what small pages lose of the TLB's reach, and how"
        " many guests these would have served; net: guests more less guests less; saved a core: of all that it took",
    )


def _victims(simulation: Simulation) -> Table:
    rows = []
    for run in simulation.runs:
        whole = sum(victims.paged_out for victims in run.victims)
        most = sorted(run.victims, key=lambda victims: (-victims.seconds, -victims.paged_out))
        rows += [
            (
                f"{run_label(simulation, run)}: {printable(victims.region)}",
                "hot" if victims.hot else "cold",
                f"{victims.paged_out:,}",
                percent(victims.paged_out, whole),
                f"{victims.paged_in:,}",
                human_time(victims.seconds),
                human_time(victims.seconds / victims.paged_out) if victims.paged_out else "",
            )
            for victims in most[: _shown(simulation)]
        ]
    return Table(
        "What the hypervisor paged out, compressed or swapped: what cost guests most",
        ("run: region", "then", "pages out", "of all", "came back", "guests waited", "a page"),
        rows,
        "then: whether it was in its guest's working set, as it was paged out; a page: waited for each page paged out",
    )


def _waits(simulation: Simulation) -> Table:
    rows = []
    for run in simulation.runs:
        whole = sum(run.guest_seconds.values())
        most = sorted(run.guest_seconds.items(), key=lambda item: -item[1])
        rows += [
            (
                f"{run_label(simulation, run)}: {OPERATIONS[what]}",
                f"{run.counts.get(what, 0):,}",
                human_time(seconds),
                share_of_time(seconds, whole),
            )
            for what, seconds in most[: _shown(simulation)]
            if seconds
        ]
    return Table(
        "What guests waited for",
        ("run: operation", "times", "all guests waited", "of all waits"),
        rows,
        "beside these, small pages cost them what the TLB then misses (above)",
    )


def _shown(simulation: Simulation) -> int:
    """Rows for each run."""
    return max(2, _SHOWN // len(simulation.runs))


def _lost(simulation: Simulation) -> Table:
    rows = [(f"{run_label(simulation, run)}: {printable(what)}",) for run in simulation.runs for what in run.lost]
    return Table("Pages that could not be read back", ("run: guest, page: why",), rows)
