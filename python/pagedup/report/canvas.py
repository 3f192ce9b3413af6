"""Drawing for a page that is light or dark: matplotlib's SVG, with its colours left to the page's style sheet."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import PathPatch, Polygon, Rectangle
from matplotlib.path import Path
from matplotlib.text import Text

if TYPE_CHECKING:
    from numpy.typing import NDArray

Colour = Literal["page", "ink", "muted", "line", "zero", "across", "within", "unique", "compressed", "swapped"]
"""A custom property of the style sheet: `ink` is drawn as `var(--ink)`."""

COLOURS: dict[Colour, bytes] = {
    "across": bytes.fromhex("2f6bb3"),
    "within": bytes.fromhex("d6771b"),
    "unique": bytes.fromhex("7d8691"),
    "compressed": bytes.fromhex("1f8f7f"),
    "swapped": bytes.fromhex("b8388a"),
}
"""Red, green and blue of what is the same on a light page and on a dark one, as what images hold must be, since a style
sheet does not reach into them: each has a contrast of at least 3 with both, and those that can lie side by side stay
apart for the colour-blind."""

_STAND_INS: dict[Colour, str] = {
    "page": "#000001",
    "ink": "#000002",
    "muted": "#000003",
    "line": "#000004",
    "zero": "#000005",
    "across": "#000006",
    "within": "#000007",
    "unique": "#000008",
    "compressed": "#000009",
    "swapped": "#00000a",
}
_PROPERTIES = {stand_in: f"var(--{name})" for name, stand_in in _STAND_INS.items()}
_UNIT = 72  # SVG units an inch: so that a length of 1 in a figure is one of them


@contextmanager
def plain_settings() -> Iterator[None]:
    """Matplotlib as it comes, whatever the user's matplotlibrc says, and so that equal input gives equal output."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rc("svg", fonttype="none", hashsalt="pagedup")
        matplotlib.rc("text", parse_math=False)  # a name may hold $
        matplotlib.rc("image", composite_image=False)
        # The reader's own fonts draw the text, and may well have what matplotlib's lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


class Canvas:
    """A picture of `width` x `height` units; x runs to the right and y down. Use it within `plain_settings`."""

    def __init__(self, width: float, height: float) -> None:
        self._size = (width, height)
        self._figure = Figure((width / _UNIT, height / _UNIT))
        FigureCanvasSVG(self._figure)
        self._axes = self._figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()
        self._order = 0

    def box(
        self, x: float, y: float, width: float, height: float, fill: Colour | None, outline: Colour | None = None
    ) -> None:
        """A rectangle from its upper left corner."""
        inside, edge = _STAND_INS[fill] if fill else "none", _STAND_INS[outline] if outline else "none"
        self._add(Rectangle((x, y), width, height, facecolor=inside, edgecolor=edge, linewidth=1))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12.5,
        colour: Colour = "ink",
        align: Literal["left", "center", "right"] = "left",
        bold: bool = False,
    ) -> None:
        """One line on the base line y. The reader's font sets it, so its width is known only roughly."""
        weight = "bold" if bold else "normal"
        shade = _STAND_INS[colour]
        self._add(Text(x, y, text, fontsize=size, color=shade, ha=align, va="baseline", fontweight=weight))

    def image(self, x: float, y: float, width: float, height: float, pixels: NDArray[np.uint8]) -> None:
        """An array (rows, columns, 4) of red, green, blue, alpha, stretched without smoothing."""
        image = AxesImage(self._axes, extent=(x, x + width, y + height, y), interpolation="none")
        image.set_data(pixels)
        self._add(image)

    def area(
        self, xs: NDArray[np.float64], tops: NDArray[np.float64], bottoms: NDArray[np.float64], fill: Colour
    ) -> None:
        """What lies between two lines over the same x, all of them arrays (n,), in steps of a tenth of a unit."""
        outline = np.concatenate([np.column_stack([xs, tops]), np.column_stack([xs, bottoms])[::-1]]).round(1)
        self._add(Polygon(outline, facecolor=_STAND_INS[fill], edgecolor="none"))

    def line(
        self,
        xs: NDArray[np.float64],
        ys: NDArray[np.float64],
        colour: Colour,
        *,
        width: float = 1,
        dashed: bool = False,
    ) -> None:
        """A line through points (n,), in steps of a tenth of a unit."""
        style = "--" if dashed else "-"
        points = Path(np.column_stack([xs, ys]).round(1))
        self._add(PathPatch(points, edgecolor=_STAND_INS[colour], facecolor="none", linewidth=width, linestyle=style))

    def ticks(self, xs: Iterable[float], y: float, length: float, colour: Colour) -> None:
        """Short lines downwards from y."""
        points = [point for x in xs for point in ((x, y), (x, y + length))]
        codes = [Path.MOVETO, Path.LINETO] * (len(points) // 2)
        if points:
            self._add(PathPatch(Path(points, codes), edgecolor=_STAND_INS[colour], facecolor="none"))

    def _add(self, artist: Artist) -> None:
        """What is drawn later lies above; matplotlib would put images below all else."""
        self._order += 1
        artist.set(zorder=self._order, clip_on=False)
        self._axes.add_artist(artist)

    def svg(self, label: str, described_by: str) -> str:
        """The picture as an element for HTML. It has no id, no style sheet and no address of its own.

        `label` names it and the element with the id `described_by` tells what it shows, to those who do not see it.
        """
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self._figure.savefig(text, format="svg", transparent=True, metadata=nothing)
        drawn = ElementTree.fromstring(text.getvalue())
        parts = [_plain(part) for part in drawn.iter(f"{_SVG}g") if part.get("id") == "axes_1"]
        width, height = self._size
        root = ElementTree.Element("svg", viewBox=f"0 0 {width:g} {height:g}", role="img")
        root.set("aria-label", label)
        root.set("aria-describedby", described_by)
        root.extend(parts)
        return ElementTree.tostring(root, encoding="unicode")


_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"font-family:[^;]*;? ?")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_SPACE = re.compile(r"\s+")


def _plain(element: ElementTree.Element) -> ElementTree.Element:
    """A copy without namespaces, ids and fonts, with the page's colours; HTML knows what `svg` holds."""
    plain = ElementTree.Element(element.tag.removeprefix(_SVG))
    for name, value in element.items():
        if name == _LINK:
            plain.set("href", "".join(value.split()))
        elif name == "style":
            style = _FONT.sub("", _COLOUR.sub(lambda colour: _PROPERTIES[colour[0]], value))
            plain.set("style", style)
        elif name != "id" and not value.startswith("rotate(-0 "):
            plain.set(name, _SPACE.sub(" ", value).strip())
    if element.tag == f"{_SVG}text":
        plain.text = element.text
    plain.extend(_plain(child) for child in element)
    return plain
