"""The numbers of a program as C sees them: weights in the order in which events read them, neurons' constants."""

from dataclasses import dataclass, field

import numpy as np

from targets.loihi.c.program import Geometry, Population, Program, Synapses

LINE = 110


@dataclass
class Constants:
    """Collects what the written functions name.

    Args:
        apart: the numbers are handed in by pointer, so that the text depends on the network's shape alone; else they
            stand in the text as `static const`.
        prefix: of the arrays' names in the text.
    """

    apart: bool
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, name: str, values: np.ndarray) -> str:
        """An array of numbers; gives the name by which a function reads it, after `prologue`."""
        known = self.arrays.setdefault(name, values)
        assert known.dtype == values.dtype and known.shape == values.shape, name
        return name

    def prologue(self, names: list[str]) -> list[str]:
        """Lines at the head of a function that reads these arrays."""
        if not self.apart:
            return []
        order = list(self.arrays)
        lines = []
        for name in names:
            kind, where = ctype(self.arrays[name].dtype), f"s->data[{order.index(name)}]"
            lines.append(f"    const {kind} {name} = *(const {kind} *){where};" if self.arrays[name].size == 1
                         and not name.endswith(("_weights", "_places", "_rows", "_quads")) else
                         f"    const {kind} *restrict const {name} = {where};")
        return lines

    def tables(self, comments: dict[str, str]) -> list[str]:
        """The arrays as text."""
        lines = []
        for name, values in self.arrays.items():
            lines += ["", *([f"/* {comments[name]} */"] if name in comments else []),
                      f"static const {ctype(values.dtype)} {name}[{values.size}] = {{", *rows(values), "};"]
        return lines

    @property
    def bytes(self) -> int:
        """Of all arrays."""
        return sum(values.nbytes for values in self.arrays.values())


def ctype(dtype: np.dtype) -> str:
    """The C name of a numpy type."""
    return "float" if dtype == np.float32 else f"{dtype.name}_t"


def smallest(values: np.ndarray) -> np.ndarray:
    """The same integers in the narrowest signed type that holds them."""
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= values.min(initial=0) and values.max(initial=0) <= np.iinfo(kind).max:
            return values.astype(kind)
    raise AssertionError(values.max())  # rules and bounds keep everything within 32 bits


def dense_table(s: Synapses, stride: int) -> np.ndarray:
    """(in, stride): the row that each input place adds, filled up with zeros."""
    table = np.zeros((s.weight.shape[1], stride), np.int64)
    table[:, :len(s.weight)] = s.weight.T
    return smallest(table)


def conv_tables(s: Synapses) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """Weights of a convolution, for each class of place (row, column): [channel in][tap row][tap column][channel out].

    Returns:
        all in one array, and where each class begins.
    """
    out = len(s.weight) // s.groups
    # (groups, out of a group, in of a group, kh, kw) -> (channel in, kh, kw, out of its group)
    by_input = s.weight.reshape(s.groups, out, *s.weight.shape[1:]).transpose(0, 2, 3, 4, 1)
    by_input = by_input.reshape(-1, *by_input.shape[2:])
    parts, begins, at = [], {}, 0
    for r, rows in enumerate(s.conv[0].classes):
        for c, columns in enumerate(s.conv[1].classes):
            if rows and columns:
                part = by_input[:, rows][:, :, columns]
                begins[r, c] = at
                parts.append(part.reshape(-1))
                at += part.size
    return smallest(np.concatenate(parts)), begins


def even_tables(s: Synapses, source: Geometry, row: int, channels: int, top: int, left: int, run: int) -> tuple:
    """A convolution whose classes of places all have the same taps, filled up with zeros.

    Args:
        row: elements of a row of sums; `channels` of a place; `top`, `left`: margin in places.
        run: weights of a row of taps, filled up.

    Returns:
        weights [class][channel in][tap row][tap column * channel out, filled up], and for each place of the picture,
        row by row, where its class begins there, where its first sum lies, and in which row of sums that is.
    """
    (vertical, horizontal), (rows, columns) = s.conv, s.filled
    inputs, out = s.weight.shape[1], len(s.weight)
    taps = np.zeros((vertical.stride, horizontal.stride, inputs, rows, columns, out), np.int64)
    for r, down in enumerate(vertical.classes):
        for c, across in enumerate(horizontal.classes):
            part = s.weight[:, :, down][:, :, :, across]
            taps[r, c, :, :len(down), :len(across)] = part.transpose(1, 2, 3, 0)
    weights = np.zeros((*taps.shape[:4], run), np.int64)
    weights[..., :columns * out] = taps.reshape(*taps.shape[:4], -1)
    y, x = (np.arange(n) + axis.padding for n, axis in ((source.height, vertical), (source.width, horizontal)))
    class_y, class_x = y % vertical.stride, x % horizontal.stride
    at_y = y // vertical.stride + np.array(vertical.first)[class_y] + top
    at_x = x // horizontal.stride + np.array(horizontal.first)[class_x] + left
    begins = (class_y[:, None] * horizontal.stride + class_x) * (inputs * rows * run)
    sums = at_y[:, None] * row + at_x * channels
    return (smallest(weights.reshape(-1)), begins.reshape(-1).astype(np.int32), sums.reshape(-1).astype(np.int32),
            np.repeat(at_y, source.width).astype(np.int32))


def form(values: np.ndarray, geometry: Geometry) -> str:
    """How a constant varies: scalar, row (the same in every row) or full."""
    if np.ptp(values) == 0:
        return "scalar"
    rows = values.reshape(geometry.height, -1)
    return "row" if geometry.height > 1 and (rows == rows[0]).all() else "full"


def fan_out(program: Program, p: Population, s: Synapses) -> np.ndarray:
    """Weights that an event of each input place meets, as stored."""
    if s.axes is None:
        return np.full(s.weight.shape[1], len(s.weight))
    g = program.geometry(s.source)
    counts = []
    for axis, size, wanted in ((s.axes[0], g.height, p.geometry.height), (s.axes[1], g.width, p.geometry.width)):
        found = np.zeros(size, np.int64)
        for place in range(size):
            at, r = divmod(place + axis.padding, axis.stride)
            outs = at + axis.first[r] + np.arange(len(axis.classes[r])) * axis.step
            found[place] = ((outs >= 0) & (outs < wanted)).sum()
        counts.append(found)
    plane = np.outer(*counts) * (len(s.weight) // s.groups)
    return np.broadcast_to(plane, (g.channels, g.height, g.width)).reshape(-1)[g.order()]


def rows(values: np.ndarray) -> list[str]:
    """Numbers as the lines of an initialiser."""
    lines, line = [], "   "
    for word in (f" {value}," for value in values.reshape(-1).tolist()):
        if len(line) + len(word) > LINE:
            lines.append(line)
            line = "   "
        line += word
    return [*lines, line]
