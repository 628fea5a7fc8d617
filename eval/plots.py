"""Plots as SVG, all in one style: files of their own, or elements of a page with its fonts and colours.

What is drawn is text and numbers: names of layers and runs come from files, and are neither mathematics (`$\\frac$`)
nor markup nor a pattern. Ids are numbers of ours.
"""

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from hardspike import atomic_path, printable

INK, FAINT = "#010203", "#020304"
SERIES = tuple(f"#0a0b{index:02x}" for index in range(1, 7))
"""Stand-ins that become the page's colours, `var(--ink)`, `var(--line)` and `var(--c1)` to `var(--c6)`."""

OFF, ON = "#d9701f", "#3b82c4"
"""Colours inside of pictures, which no style sheet reaches: they read on light and on dark."""

DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1)))
SVG_DASHES = ("", "6 3", "2 3", "7 2 2 2")
"""The same, for a legend that the page draws."""

_PLAIN: Any = {"svg.fonttype": "none", "svg.hashsalt": "hardspike", "text.parse_math": False, "text.usetex": False,
          "axes.axisbelow": True}
"""Of every plot."""
_STYLE: Any = {
    **_PLAIN, "font.size": 9, "axes.titlesize": 10, "axes.titlelocation":
    "left", "axes.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.titlecolor": INK,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "grid.color": FAINT,
    "grid.linewidth": 0.6, "lines.linewidth": 1.6, "lines.markersize": 4,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none"}
"""Of a plot inside a page."""


def drawable(name: str) -> str:
    """A name as a label: what no picture can hold is escaped, and one that begins with `_`, which matplotlib leaves
    out of legends, gets a space before it."""
    text = printable(name)
    return f" {text}" if text.startswith("_") else text


def labels(models: Sequence[Path]) -> list[str]:
    """What models are called beside each other: their paths from the folder that they share, runs' by their folders."""
    places = [model.parent if model.name in ("best.pt", "last.pt") else model for model in models]
    if len(set(places)) < len(places):
        places = list(models)
    shared = os.path.commonpath([place.absolute().parent for place in places])
    return [os.path.relpath(place, shared) for place in places]


def logarithmic(axis: Axis) -> None:
    """Powers on a logarithmic axis as plain numbers; matplotlib's own labels are mathematics."""
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))


@contextmanager
def picture(path: Path, size: tuple[float, float], label: str = "") -> Iterator[Figure]:
    """A figure to fill, `size` in inches, that becomes the .svg file `path` when the block succeeds.

    Args:
        label: what it shows, for those who do not see it.

    Raises:
        HardspikeError: the file cannot be written.
    """
    with matplotlib.rc_context(_PLAIN):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        with atomic_path(path) as temporary:
            _save(figure, temporary, {"Date": None})
            if label:
                named = f'<svg role="img" aria-label="{escape(printable(label))}" '
                temporary.write_text(temporary.read_text("utf-8").replace("<svg ", named, 1), "utf-8")


def plot(name: str, title: str, label: str, draw: Callable[[Axes], None], size: tuple[float, float] = (3.6, 2.6),
         spread: bool = True) -> str:
    """One panel that `draw(axes)` fills, as an `<svg>` element.

    Args:
        name: unique on the page, of letters, digits and dashes; begins every id in it.
        title: above the panel.
        label: what it shows, for those who do not see it.
        size: inches; it is shown about one and a third as large.
        spread: grid lines along y.
    """
    assert re.fullmatch(r"[a-z0-9-]+", name), name
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        if spread:
            axes.grid(axis="y")
        axes.set_title(drawable(title))
        draw(axes)
        buffer = io.StringIO()
        _save(figure, buffer, {"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(buffer.getvalue(), name, printable(label))


def _save(figure: Figure, place: Path | io.StringIO, metadata: dict) -> None:
    """As SVG, without what matplotlib has to say of fonts that lack a letter and of names that leave no room."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(place, format="svg", metadata=metadata)


def _inline(svg: str, name: str, label: str) -> str:
    """Without XML's head, sizes and namespaces; ids and references begin with `name`; colours and fonts of the page.

    Text is set aside while attributes are rewritten: it may look like one.
    """
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)  # matplotlib repeats every text in one
    head, body = svg.split(">", 1)
    box, = re.findall(r'viewBox="[^"]*"', head)
    pieces = re.split(r"(<[^>]*>)", body)  # text, tag, text, tag, ..., text
    pieces[1::2] = [_tag(tag, name) for tag in pieces[1::2]]
    svg = f'<svg {box} role="img" aria-label="{escape(label)}">{"".join(pieces)}'
    ElementTree.fromstring(svg)  # nothing that is drawn breaks a page
    return svg


def _tag(tag: str, name: str) -> str:
    """One tag of matplotlib's: its attributes hold no name of a file."""
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = re.sub(r'(xlink:)?href="#', f'href="#{name}-', tag).replace("url(#", f"url(#{name}-")
    tag = tag.replace("xlink:href=", "href=")
    tag = re.sub(r"(\d+\.\d\d)\d+", r"\1", tag)
    tag = re.sub(r"font: (?:(bold|\d+) )?([\d.]+)px [^;\"]*", _font, tag)
    for colour, variable in {INK: "--ink", FAINT: "--line", **{c: f"--c{i}" for i, c in enumerate(SERIES, 1)}}.items():
        tag = tag.replace(colour, f"var({variable})")
    return tag


def _font(match: re.Match) -> str:
    weight = "; font-weight: 600" if match[1] in ("bold", "700") else ""
    return f"font-size: {match[2]}px{weight}"
