"""A picture of pointer chases: what a load costs by working set, measured and by the model; what the caches hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.beside_model import NAMES, Compared, size_name
from benchmarks.page_sizes import LARGE, SMALL
from benchmarks.predicted import Setting
from pagedup.report.canvas import COLOURS, plain_settings
from pagedup.tlb import reach

_COLOUR = {SMALL: f"#{COLOURS['across'].hex()}", LARGE: f"#{COLOURS['within'].hex()}"}
_GREY = f"#{COLOURS['unique'].hex()}"
_ROWS = (1.07, 1.02)  # how high names of caches, and of TLBs, stand: in heights of the axes


def draw(setting: Setting, rows: Sequence[Compared], title: str, path: Path) -> None:
    """Write it as SVG; the same for the same numbers."""
    with plain_settings():
        figure = figure_of(setting, rows, title)
        figure.savefig(path, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))


def figure_of(setting: Setting, rows: Sequence[Compared], title: str) -> Figure:
    """The figure; nothing outside of it keeps it alive."""
    figure = Figure((9.6, 6.0))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.075, 0.1, 0.905, 0.77))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for page_size, name in NAMES.items():
        of_size = sorted((each for each in rows if each.page_size == page_size), key=lambda each: each.size)
        sizes, colour = [each.size for each in of_size], _COLOUR[page_size]
        if of_size:
            axes.plot(sizes, [each.measured for each in of_size], "o-", color=colour, label=f"{name}: measured")
            axes.plot(sizes, [each.model.cycles for each in of_size], "--", color=colour, label=f"{name}: model")
    _label(axes, rows)
    _mark(axes, setting)
    figure.text(0.075, 0.955, title, fontsize=10)
    axes.legend(loc="upper left")
    return figure


def _label(axes: Axes, rows: Sequence[Compared]) -> None:
    sizes = sorted({each.size for each in rows})
    axes.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
    axes.set_xticks(sizes[:: 2 if len(sizes) > 9 else 1])
    axes.set_xticklabels([size_name(size) for size in sizes[:: 2 if len(sizes) > 9 else 1]], fontsize=8.5)
    axes.minorticks_off()
    ticks = [3 * 10**n if three else 10**n for n in range(6) for three in (False, True)]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    costs = [cost for each in rows for cost in (each.measured, each.model.cycles)]
    axes.set_ylim(min(costs) / 1.3, max(costs) * 1.3)
    axes.set_xlabel("working set: memory of which one line in each 4 KiB is visited, in random order")
    axes.set_ylabel("cycles of a load")
    axes.grid(visible=True, color="#e4e6e9", linewidth=0.6)


def _mark(axes: Axes, setting: Setting) -> None:
    """Where each TLB and cache is full: a vertical line, and its name above the picture."""
    for number, marks in enumerate((list(_caches(setting)), list(_tlbs(setting)))):
        for name, size, colour in marks:
            if not axes.get_xlim()[0] < size < axes.get_xlim()[1]:
                continue
            axes.axvline(size, color=colour, linewidth=0.8, linestyle=":" if number == 0 else "-.")
            axes.annotate(
                name,
                (size, _ROWS[number]),
                xycoords=("data", "axes fraction"),
                ha="center",
                fontsize=8.5,
                color=colour,
                annotation_clip=False,
            )


def _caches(setting: Setting) -> Iterator[tuple[str, float, str]]:
    """Of each 4 KiB one line is in them."""
    for name, cache in zip(("L1d", "L2", "L3"), setting.geometry.data, strict=True):
        yield name, cache.entries * SMALL, _GREY


def _tlbs(setting: Setting) -> Iterator[tuple[str, float, str]]:
    """Under a host with small pages all entries are small, and so the TLBs reach as far for either page size."""
    entry_sizes = {page_size: min(page_size, setting.host_page_size or page_size) for page_size in NAMES}
    for page_size, entry in entry_sizes.items():
        same = len(set(entry_sizes.values())) == 1
        if same and page_size != SMALL:
            continue
        for level, size in zip(("L1", "L2"), reach(setting.geometry, entry), strict=True):
            if size:
                yield f"{level} TLB" + f" {NAMES[page_size]}" * (not same), size, _GREY if same else _COLOUR[page_size]
