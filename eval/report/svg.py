"""Plots as SVG that stand inside a page: its fonts, its colours in light and dark, names of their own."""

import io
import re
from collections.abc import Callable
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT = "#010203", "#020304"
SERIES = tuple(f"#0a0b{index:02x}" for index in range(1, 7))
"""Stand-ins that become the page's colours, `var(--ink)`, `var(--line)` and `var(--c1)` to `var(--c6)`."""

OFF, ON = "#d9701f", "#3b82c4"
"""Colours inside of pictures, which no style sheet reaches: they read on light and on dark."""

_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "hardspike", "font.size": 9, "axes.titlesize": 10, "axes.titlelocation":
    "left", "axes.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.titlecolor": INK,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "grid.color": FAINT,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.6, "lines.markersize": 4,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none"}


def plot(name: str, title: str, label: str, draw: Callable[[Axes], None], size: tuple[float, float] = (3.6, 2.6),
         spread: bool = True) -> str:
    """One panel that `draw(axes)` fills, as an `<svg>` element.

    Args:
        name: unique on the page; begins every id in it.
        title: above the panel.
        label: what it shows, for those who do not see it.
        size: inches; it is shown about one and a third as large.
        spread: grid lines along y.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        if spread:
            axes.grid(axis="y")
        axes.set_title(title)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(buffer.getvalue(), name, label)


def _inline(svg: str, name: str, label: str) -> str:
    """Without XML's head, sizes and namespaces; ids and references begin with `name`; colours and fonts of the page."""
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)[0]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(xlink:)?href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r"(\d+\.\d\d)\d+", r"\1", body)
    body = re.sub(r"font: (?:(bold|\d+) )?([\d.]+)px [^;\"]*", _font, body)
    for colour, variable in {INK: "--ink", FAINT: "--line", **{c: f"--c{i}" for i, c in enumerate(SERIES, 1)}}.items():
        body = body.replace(colour, f"var({variable})")
    return f'<svg {box} role="img" aria-label="{escape(label)}">{body}'


def _font(match: re.Match) -> str:
    weight = "; font-weight: 600" if match[1] in ("bold", "700") else ""
    return f"font-size: {match[2]}px{weight}"
