"""The answer in a few sentences: who fits most guests, what they feel, and what sharing was worth."""

from __future__ import annotations

from collections.abc import Iterator

from pagedup.host.net_benefit import net_benefit
from pagedup.host.result import Run, Simulation
from pagedup.memory.layouts import PAGE
from pagedup.report.simulation.naming import OPERATIONS, cores, guests_label, run_label, share_of_time, times
from pagedup.report.units import human_size, human_time, percent

_MOST_SENTENCES = 8
_FELT = 1.05  # a slowdown that is worth a sentence


def simulation_verdict(simulation: Simulation) -> list[str]:
    """The answer, and the few things that whoever plans a host should know; the most important first."""
    return [sentence for _, sentence in zip(range(_MOST_SENTENCES), _sentences(simulation), strict=False)]


def best_run(simulation: Simulation) -> Run:
    """The run in which most guests fit; of several the one that slows them down least."""
    return max(simulation.runs, key=lambda run: (run.fits, -run.slowdown))


def _sentences(simulation: Simulation) -> Iterator[str]:
    yield _answer(simulation)
    yield from _lost(simulation)
    yield from _refused(simulation)
    yield from _sharing(simulation)
    yield from _felt(simulation)
    yield from _last_resort(simulation)
    yield from _aslr(simulation)


def _answer(simulation: Simulation) -> str:
    best = best_run(simulation)
    first = (
        f"A host of {human_size(simulation.memory)} has room for {best.fits:,} guests such as these"
        f" {simulation.guests:,}, which were promised {human_size(simulation.promised)}, under"
        f" {run_label(simulation, best)}{_slowdown(best)}"
    )
    least = min(simulation.runs, key=lambda run: (run.fits, -run.slowdown))
    if len(simulation.runs) == 1:
        return f"{first}."
    if least.fits == best.fits:
        return f"{first}, and for as many under each of the others."
    return f"{first}, and for {least.fits:,} under {run_label(simulation, least)}{_slowdown(least)}."


def _slowdown(run: Run) -> str:
    if run.worst <= 1:
        return " (nobody was slowed down)"
    return f" (slowdown {times(run.slowdown)}, at worst {times(run.worst)})"


def _lost(simulation: Simulation) -> Iterator[str]:
    for run in simulation.runs:
        if run.lost:
            pages = "a page" if len(run.lost) == 1 else f"{len(run.lost):,} pages"
            yield f"Under {run_label(simulation, run)}, guests lost {pages} that could not be read back."


def _refused(simulation: Simulation) -> Iterator[str]:
    refusing = [run for run in simulation.runs if run.refused]
    if refusing:
        most = max(refusing, key=lambda run: run.refused)
        others = len(refusing) - 1
        also = f"; {others:,} more {'run' if others == 1 else 'runs'} did not start all, either" if others else ""
        yield (
            f"{run_label(simulation, most)} did not start {most.refused:,} of {guests_label(simulation.guests)} for"
            f" want of memory{also}."
        )


def _sharing(simulation: Simulation) -> Iterator[str]:
    sharing = [run for run in simulation.runs if run.most_saved and run.samples]
    if not sharing:
        return
    run = max(sharing, key=lambda run: run.samples[-1].saved)
    last, benefit = run.samples[-1], net_benefit(simulation, run)
    caught = f"; it had caught up after {human_time(run.caught_up)}" if run.caught_up is not None else ""
    yield (
        f"Sharing saved most under {run_label(simulation, run)}: {human_size(last.saved * PAGE)}, of these"
        f" {human_size(last.saved_zero * PAGE)} of zero pages{caught}. Net of the {cores(benefit.cores)} cores that it"
        f" took (scanner, COW breaks, lost TLB reach) it was worth {benefit.net:,.1f} guests."
    )


def _felt(simulation: Simulation) -> Iterator[str]:
    """What the slowest run's guests waited for."""
    run = max(simulation.runs, key=lambda run: run.slowdown)
    if run.slowdown < _FELT or not any(run.guest_seconds.values()):
        return
    what, seconds = max(run.guest_seconds.items(), key=lambda item: item[1])
    share = share_of_time(seconds, sum(run.guest_seconds.values()))
    worst = f", most of all {run.worst_guest}" if run.worst_guest else ""
    yield (
        f"Guests were slowed down most under {run_label(simulation, run)}, {times(run.slowdown)} times{worst};"
        f" {share} of their waits were for: {OPERATIONS[what]}."
    )


def _last_resort(simulation: Simulation) -> Iterator[str]:
    """What the run that paged out most took away from its guests while they used it."""
    run = max(simulation.runs, key=_paged_out)
    hot, whole = sum(victims.paged_out for victims in run.victims if victims.hot), _paged_out(run)
    if hot:
        yield (
            f"Of the {human_size(whole * PAGE)} that {run_label(simulation, run)} paged out, {percent(hot, whole)} were"
            " in their guests' working sets at that time."
        )


def _paged_out(run: Run) -> int:
    return sum(victims.paged_out for victims in run.victims)


def _aslr(simulation: Simulation) -> Iterator[str]:
    """What ASLR costs the run that saves most with it."""
    pairs = [
        (on, off)
        for on in simulation.runs
        for off in simulation.runs
        if on.aslr and not off.aslr and (on.name, on.large_pages) == (off.name, off.large_pages)
        if on.samples and off.samples and off.samples[-1].saved
    ]
    if pairs:
        on, off = max(pairs, key=lambda pair: pair[1].samples[-1].saved)
        saved, without = (human_size(run.samples[-1].saved * PAGE) for run in (on, off))
        compared = "as much as" if saved == without else f"and {without}"
        yield f"With ASLR, {run_label(simulation, on)} saved {saved} by sharing, {compared} without it."
