"""A mapping as a picture: cores as squares, one colour or letter a layer, filled as far as the fullest resource."""

from html import escape
from string import ascii_letters

from targets.limits import Limits
from targets.loihi.mapping import Core, Mapping

COLUMNS = 16
"""A Loihi chip is drawn as 8 rows of 16 cores; the true floor plan is not modelled."""
CELL, HEAD = 24, 26
"""Units that a core and the name above a chip take."""
SHADES = "▁▂▃▄▅▆▇█"


def usage(core: Core, limits: Limits) -> dict[str, float]:
    """Share of every published limit of a core that is used."""
    used = {"neurons": core.neurons, "input axons": core.input_axons, "output axons": core.output_axons,
            "synapse bits": core.synapse_bits}
    given = {name: getattr(limits, name.replace(" ", "_")).value for name in used}
    return {name: used[name] / given[name] for name in used if given[name]}


def text(mapping: Mapping) -> str:
    """For a terminal: a letter and a level for each core, chips under each other, then the letters' layers."""
    marks = [letter(index) + _level(max(usage(core, mapping.limits).values()))
             for index, cores in enumerate(mapping.cores.values()) for core in cores]
    size = mapping.limits.cores.known
    marks += ["· "] * (-len(marks) % size)
    rows = []
    for start in range(0, len(marks), COLUMNS):
        if start % size == 0:
            rows.append(f"{mapping.limits.chip}, chip {start // size + 1}: layer, fullest resource of the core")
        rows.append("  " + " ".join(marks[start:start + COLUMNS]))
    return "\n".join([*rows, *(f"  {letter(index)}  {name}" for index, name in enumerate(mapping.cores))])


def svg(mapping: Mapping) -> str:
    """For a page: a square of `CELL` units for each core, the numbers as a tooltip; each chip has its name above it
    where there are several."""
    size = mapping.limits.cores.known
    places = [(index, name, core) for index, (name, cores) in enumerate(mapping.cores.items()) for core in cores]
    chips = -(-max(len(places), 1) // size)
    rows, head = -(-size // COLUMNS), HEAD * (chips > 1)
    parts = []
    for chip in range(chips):
        top = chip * (rows * CELL + head) + head
        if head:
            parts.append(f'<text x="1" y="{top - 6}">{escape(mapping.limits.chip)}, chip {chip + 1} of {chips}</text>')
        for place in range(size):
            x, y = place % COLUMNS * CELL + 1, top + place // COLUMNS * CELL + 1
            parts.append(f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" fill="#eee"/>')
            if chip * size + place < len(places):
                parts.append(_filled(x, y, mapping.limits, *places[chip * size + place]))
    bottom = chips * (rows * CELL + head)
    for index, (name, cores) in enumerate(mapping.cores.items()):
        y = bottom + 20 * index
        label = f"{escape(name)}: {len(cores)} core{'s' * (len(cores) != 1)}"
        parts.append(f'<rect x="1" y="{y + 6}" width="12" height="12" fill="{_colour(index)}"/>'
                     f'<text x="20" y="{y + 16}">{label}</text>')
    height = bottom + 20 * len(mapping.cores) + 10
    seen = escape("Cores of " + mapping.limits.chip + ": " + ", ".join(
        f"{name} {len(cores)}" for name, cores in mapping.cores.items()))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * CELL} {height}" role="img" '
            f'aria-label="{seen}" '
            f'font-family="sans-serif" font-size="12">\n' + "\n".join(parts) + "\n</svg>\n")


def _filled(x: int, y: int, limits: Limits, index: int, name: str, core: Core) -> str:
    """What a core at (x, y) holds of layer number `index`, from below, as high as its fullest resource."""
    used = usage(core, limits)
    height = min(1, max(used.values())) * (CELL - 2)
    label = escape(f"{name}: {core.neurons} neurons; " + ", ".join(f"{k} {v:.0%}" for k, v in used.items()))
    return (f'<rect x="{x}" y="{y + CELL - 2 - height:.1f}" width="{CELL - 2}" height="{height:.1f}" '
            f'fill="{_colour(index)}"><title>{label}</title></rect>')


def letter(index: int) -> str:
    """The sign of the layer number `index`."""
    return ascii_letters[index % len(ascii_letters)]


def _level(share: float) -> str:
    return SHADES[min(len(SHADES) - 1, int(share * len(SHADES)))]


def _colour(index: int) -> str:
    return f"hsl({index * 137 % 360} 60% 50%)"  # the golden angle keeps neighbours apart
