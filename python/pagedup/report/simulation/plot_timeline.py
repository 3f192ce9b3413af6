"""Where the memory of one run's guests was as time passed, and how much they were slowed down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagedup.host.pictures import Layer, Timeline
from pagedup.host.result import Run, Simulation
from pagedup.memory.layouts import PAGE
from pagedup.report.canvas import Canvas, Colour
from pagedup.report.picture import WIDTH, Picture, listed, words_id
from pagedup.report.simulation.naming import guests_label, run_label, times
from pagedup.report.units import human_size, human_time, printable

_LAYERS: dict[Layer, tuple[Colour, str]] = {
    Layer.HELD: ("unique", "in the host's frames"),
    Layer.ZERO: ("zero", "saved: zero pages"),
    Layer.EQUAL: ("across", "saved: equal pages"),
    Layer.BALLOONED: ("within", "in balloons"),
    Layer.COMPRESSED: ("compressed", "compressed"),
    Layer.SWAPPED: ("swapped", "swapped"),
}
_LEFT, _RIGHT = 70.0, 690.0  # where time begins and ends; right of it is the legend
_LEGEND = 712.0
_STATES = 16.0  # the height of the row of states
_MEMORY = (30.0, 210.0)  # the upper end of the picture of memory, and its height
_SLOWDOWN = (272.0, 56.0)
_HEIGHT = 352.0
_CHARACTER = 6.5  # the width that a letter of a state takes, roughly
_MOST_TICKS = 8
_TIME_STEPS = tuple(60 * minutes for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440))
_TOLD = 5  # times of which the words tell


@dataclass(frozen=True, slots=True)
class _Scale:
    """From numbers to units of the drawing: those from `low` to `high` go from `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, number: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.begin + (number - self.low) / (self.high - self.low) * (self.end - self.begin)

    def at(self, number: float) -> float:
        return float(self(np.array(number)))


def draw_timeline(simulation: Simulation, run: Run, found: Timeline, number: int, most: float) -> Picture:
    """The picture of a run; `most` is how many bytes high it is, so that all on a page can be compared."""
    identifier, title = f"run-{number}", run_label(simulation, run)
    canvas = Canvas(WIDTH, _HEIGHT)
    time = _Scale(0.0, max(float(found.times[-1]), 1.0), _LEFT, _RIGHT)
    _draw_states(canvas, found, time)
    _draw_memory(canvas, found, run.capacity * PAGE, most, time)
    _draw_slowdown(canvas, found, time)
    _draw_hours(canvas, time)
    _draw_legend(canvas, found, run.capacity * PAGE)
    return Picture(
        identifier,
        title,
        canvas.svg(title, words_id(identifier)),
        _caption(run),
        "From bottom to top: guests' memory that lies in frames of the host, and where the rest is, which sharing"
        " saved or the hypervisor took back; the dashed line is the memory that the host has for guests. Above, the"
        " hypervisor's word for how short memory is; below, by how much guests took longer than they would have."
        " Numbers beside the picture are of its end.",
        listed(_in_words(found, column) for column in _told(len(found.times))),
    )


def _draw_states(canvas: Canvas, found: Timeline, time: _Scale) -> None:
    if not any(band.state for band in found.bands):
        return
    canvas.text(0, 12, "state", size=11.5, colour="muted")
    for band in found.bands:
        begin = time.at(float(found.times[band.first - 1])) if band.first else _LEFT
        width = time.at(float(found.times[band.last])) - begin
        canvas.box(begin, 0.5, width, _STATES, None, "muted")
        state = printable(band.state)
        if state and width > _CHARACTER * len(state) + 6:
            canvas.text(begin + width / 2, 12, state, size=11, align="center")


def _draw_memory(canvas: Canvas, found: Timeline, capacity: int, most: float, time: _Scale) -> None:
    top, height = _MEMORY
    ends = np.cumsum(found.layers, axis=1)
    step = _step(most)
    marks = math.ceil(most / step)
    bytes_ = _Scale(0.0, marks * step, top + height, top)
    xs = _across(found, time)
    for mark in range(marks + 1):
        y = bytes_.at(mark * step)
        canvas.line(np.array([_LEFT, _RIGHT]), np.array([y, y]), "line")
        canvas.text(
            _LEFT - 8, y + 4, human_size(mark * step) if mark else "0", size=11.5, colour="muted", align="right"
        )
    bottoms = np.zeros(len(found.times))
    for layer, (fill, _) in _LAYERS.items():
        tops = ends[:, layer]
        if found.layers[:, layer].any():
            canvas.area(xs, _spread(bytes_(tops)), _spread(bytes_(bottoms)), fill)
            if fill == "zero":  # which is close to the colour of the page
                canvas.line(xs, _spread(bytes_(tops)), "muted")
        bottoms = tops
    y = bytes_.at(capacity)
    canvas.line(np.array([_LEFT, _RIGHT]), np.array([y, y]), "ink", width=1.5, dashed=True)


def _draw_slowdown(canvas: Canvas, found: Timeline, time: _Scale) -> None:
    """On a logarithmic scale, since a guest that waits for a disk is a hundred times slower."""
    top, height = _SLOWDOWN
    most = max(2.0, float(found.worst.max()))
    scale = _Scale(0.0, math.log(most), top + height, top)
    for mark in (1.0, most):
        y = scale.at(math.log(mark))
        canvas.line(np.array([_LEFT, _RIGHT]), np.array([y, y]), "line")
        canvas.text(_LEFT - 8, y + 4, times(mark), size=11.5, colour="muted", align="right")
    xs = _across(found, time)
    for colour, _, slowdown in _slowdowns(found):
        canvas.line(xs, _spread(scale(np.log(np.maximum(slowdown, 1.0)))), colour, width=1.5)


def _slowdowns(found: Timeline) -> tuple[tuple[Colour, str, NDArray[np.float64]], ...]:
    return (("swapped", "slowdown, the worst", found.worst), ("ink", "slowdown, all guests", found.slowdown))


def _draw_hours(canvas: Canvas, time: _Scale) -> None:
    bottom = _SLOWDOWN[0] + _SLOWDOWN[1]
    days = max(1, math.ceil(time.high / (_TIME_STEPS[-1] * _MOST_TICKS)))
    steps = (*_TIME_STEPS, days * _TIME_STEPS[-1])
    step = next(step for step in steps if time.high / step <= _MOST_TICKS)
    at = [mark * step for mark in range(int(time.high // step) + 1)]
    canvas.ticks([time.at(seconds) for seconds in at], bottom, 5, "muted")
    unit, length = ("min", 60) if step < 3600 else ("h", 3600)
    for seconds in at:
        canvas.text(
            time.at(seconds), bottom + 20, f"{seconds // length} {unit}", size=11.5, colour="muted", align="center"
        )


def _draw_legend(canvas: Canvas, found: Timeline, capacity: int) -> None:
    y = _MEMORY[0] + 10
    canvas.line(np.array([_LEGEND - 4, _LEGEND + 13]), np.array([y - 4, y - 4]), "ink", width=1.5, dashed=True)
    _draw_entry(canvas, y, "host's memory for guests", human_size(capacity))
    for layer, (fill, name) in reversed(_LAYERS.items()):
        y += 26
        canvas.box(_LEGEND, y - 9, 9, 9, fill, "muted" if fill == "zero" else None)
        _draw_entry(canvas, y, name, human_size(round(float(found.layers[-1, layer]))))
    y = _SLOWDOWN[0] + 14
    for colour, name, slowdown in _slowdowns(found):
        canvas.line(np.array([_LEGEND - 4, _LEGEND + 13]), np.array([y - 4, y - 4]), colour, width=1.5)
        _draw_entry(canvas, y, name, times(float(slowdown[-1])))
        y += 26


def _draw_entry(canvas: Canvas, y: float, name: str, value: str) -> None:
    canvas.text(_LEGEND + 20, y, name, size=11.5, colour="muted")
    canvas.text(WIDTH, y, value, align="right")


def _across(found: Timeline, time: _Scale) -> NDArray[np.float64]:
    """Where the columns lie; a single one from begin to end, since a point would not be seen."""
    return time(found.times) if len(found.times) > 1 else np.array([_LEFT, _RIGHT])


def _spread(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """A number a column, for what `_across` says of a single one."""
    return numbers if len(numbers) > 1 else np.repeat(numbers, 2)


def _step(most: float) -> int:
    """Bytes from one mark of memory to the next: a power of two, of which four to eight make up the most."""
    return 1 << max(math.ceil(math.log2(most)) - 3, 0)


def _told(columns: int) -> Sequence[int]:
    """Columns of which the words tell: evenly spread, the last one among them."""
    return sorted({round((columns - 1) * part / (_TOLD - 1)) for part in range(_TOLD)})


def _in_words(found: Timeline, column: int) -> str:
    layers = [(name, round(float(found.layers[column, layer]))) for layer, (_, name) in _LAYERS.items()]
    state = next(band.state for band in found.bands if band.first <= column <= band.last)
    said = [f"{name} {human_size(size)}" for name, size in layers if size]
    said.append(f"slowdown {times(float(found.slowdown[column]))}, at worst {times(float(found.worst[column]))}")
    if state:
        said.append(f"state {printable(state)}")
    return f"after {human_time(float(found.times[column]))}: {', '.join(said)}"


def _caption(run: Run) -> str:
    last = run.samples[-1]
    refused = f", {run.refused:,} more did not start" if run.refused else ""
    return (
        f"{guests_label(last.guests)} ran{refused}, and {run.fits:,} such guests would fit. At the end sharing saved"
        f" {human_size(last.saved * PAGE)}; the slowdown was {times(run.slowdown)} on average."
    )
