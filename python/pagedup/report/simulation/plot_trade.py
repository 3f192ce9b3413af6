"""Large pages against sharing: what is saved and lost as ever fewer large pages are left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pagedup.host.trade import Curve, Trade
from pagedup.report.canvas import Canvas, Colour, plain_settings
from pagedup.report.picture import WIDTH, Picture, listed, words_id
from pagedup.report.simulation.naming import guests_label, in_guests
from pagedup.report.units import LONGEST_TEXT, human_size, printable, shortened

_COLOURS: tuple[Colour, ...] = ("across", "within", "unique")  # of the orders
_LEFT, _RIGHT = 90.0, 690.0
_LEGEND = 712.0
_PANELS = (  # name, upper end, height
    ("saved", 34.0, 96.0),
    ("time lost", 156.0, 56.0),
    ("net, guests", 238.0, 96.0),
)
_HEIGHT = 376.0
_MARK = 7.0  # the side of the square at the best point
_TOLD = (0, 2, 5, 8, 10)  # points of which the words tell
_MOST = 16  # pictures; more would make the page too large


def trade_pictures(trades: Sequence[Trade]) -> list[Picture]:
    """One for each of the first ones."""
    with plain_settings():
        return [_draw(trade, number) for number, trade in enumerate(trades[:_MOST], 1)]


def _draw(trade: Trade, number: int) -> Picture:
    identifier, title = f"trade-{number}", shortened(printable(f"{trade.hypervisor}: {trade.layout}"), LONGEST_TEXT)
    canvas = Canvas(WIDTH, _HEIGHT)
    for (name, top, height), of in zip(_PANELS, ("saved", "lost", "net"), strict=True):
        _draw_panel(canvas, trade, name, of, top, height)
    _draw_policy(canvas, trade)
    _draw_axis(canvas)
    _draw_legend(canvas, trade)
    return Picture(
        identifier,
        title,
        canvas.svg(title, words_id(identifier)),
        _caption(trade),
        "From left to right large pages of the host are broken, in three orders. What sharing of the small ones saves;"
        " what share of their time guests lose in translation, beside large pages alone; and the net: guests whose"
        " memory is saved, less guests for whom the lost cores would have been. The squares are the best points, dashed"
        " lines what the hypervisor does.",
        listed(f"{curve.order}: {_in_words(curve)}" for curve in trade.curves),
    )


def _x(large: NDArray[np.float64]) -> NDArray[np.float64]:
    return _LEFT + (1 - large) * (_RIGHT - _LEFT)


def _draw_panel(canvas: Canvas, trade: Trade, name: str, of: str, top: float, height: float) -> None:
    numbers = [getattr(curve, of) for curve in trade.curves]
    low, high = min(0.0, *(float(each.min()) for each in numbers)), max(float(each.max()) for each in numbers)
    canvas.text(0, top + 4, name, size=11.5, colour="muted")
    canvas.text(_LEFT - 8, top + height, _label(of, low), size=11.5, colour="muted", align="right")
    if high > low:
        canvas.text(_LEFT - 8, top + 18, _label(of, high), size=11.5, colour="muted", align="right")
    else:
        high = low + 1.0  # all are 0, and lie on the lower end
    for number in (low, 0.0, high):
        y = top + height * (high - number) / (high - low)
        canvas.line(np.array([_LEFT, _RIGHT]), np.array([y, y]), "line")
    for colour, curve in zip(_COLOURS, trade.curves, strict=True):
        ys = top + height * (high - getattr(curve, of)) / (high - low)
        canvas.line(_x(curve.large), ys, colour, width=1.5)
        if of == "net":
            x, y = float(_x(curve.large)[curve.best]), float(ys[curve.best])
            canvas.box(x - _MARK / 2, y - _MARK / 2, _MARK, _MARK, colour)


def _label(of: str, number: float) -> str:
    if of == "saved":
        return human_size(round(number))
    return f"{100 * number:.1f} %" if of == "lost" else in_guests(number)


def _draw_policy(canvas: Canvas, trade: Trade) -> None:
    top, bottom = _PANELS[0][1] - 8, _PANELS[-1][1] + _PANELS[-1][2]
    for when, share in trade.policy:
        x = float(_x(np.array([share]))[0])
        canvas.line(np.array([x, x]), np.array([top, bottom]), "ink", dashed=True)
        canvas.text(x, top - 6, printable(when), size=11, align="left" if share > 0.5 else "right")


def _draw_axis(canvas: Canvas) -> None:
    y = _PANELS[-1][1] + _PANELS[-1][2]
    shares = np.linspace(1, 0, 6)
    canvas.ticks(_x(shares).tolist(), y, 5, "muted")
    for share, x in zip(shares, _x(shares), strict=True):
        canvas.text(float(x), y + 18, f"{100 * share:.0f} %", size=11.5, colour="muted", align="center")
    canvas.text((_LEFT + _RIGHT) / 2, y + 36, "of memory in large pages", size=11.5, colour="muted", align="center")


def _draw_legend(canvas: Canvas, trade: Trade) -> None:
    y = _PANELS[0][1] + 10
    canvas.text(_LEGEND, y, "broken, and the best point", size=11.5, colour="muted")
    canvas.text(WIDTH, y, "net", size=11.5, colour="muted", align="right")
    for colour, curve in zip(_COLOURS, trade.curves, strict=True):
        y += 26
        canvas.line(np.array([_LEGEND - 4, _LEGEND + 13]), np.array([y - 4, y - 4]), colour, width=1.5)
        canvas.text(
            _LEGEND + 20, y, f"{curve.order}: {100 * curve.large[curve.best]:.0f} % large", size=11.5, colour="muted"
        )
        canvas.text(WIDTH, y, in_guests(float(curve.net[curve.best])), align="right")


def _in_words(curve: Curve) -> str:
    return ", ".join(
        f"with {100 * curve.large[point]:.0f} % in large pages {human_size(round(float(curve.saved[point])))} saved,"
        f" {100 * curve.lost[point]:.1f} % of time lost, net {in_guests(float(curve.net[point]))}"
        for point in _TOLD
    )


def _caption(trade: Trade) -> str:
    best = trade.best
    at = best.best
    return (
        f"{guests_label(trade.guests)}, {human_size(trade.memory)}: the best point is {100 * best.large[at]:.0f} % in"
        f" large pages, {best.order}, which is worth {in_guests(float(best.net[at]))} guests. All of them broken,"
        f" {human_size(round(float(best.saved[-1])))} are saved, and guests lose"
        f" {100 * best.lost[-1]:.1f} % of their time."
    )
