"""The C functions of a program: one for each connection and each layer, named after it; see `targets.loihi.c.form`."""

import re

from targets.loihi.c.constants import conv_tables, dense_table
from targets.loihi.c.form import Form, comment, plus
from targets.loihi.c.neurons import describe, neurons
from targets.loihi.c.program import Geometry, Population, Synapses

BLOCK = 64
"""So many input places are looked through at a time; their list is all the memory that it takes."""


class Functions(Form):
    """Writes the functions of `program`."""

    def all(self) -> list[str]:
        """Every function, in the order that C wants."""
        lines = []
        for p in self.program.populations.values():
            for s in p.synapses:
                lines += ["", *self.synapses(p, s)]
            lines += ["", *self.population(p)]
        return lines

    # ------------------------------------------------------------------------------------------- connections

    def about(self, p: Population, s: Synapses) -> list[str]:
        """The comment before the function of a connection."""
        source = comment(self.program.populations[s.source].label) if s.source else "the input"
        return [f"/* {comment(s.label)}: the {'matrix' if s.axes is None else 'convolution'} between {source} and "
                f"{comment(p.label)}{f', heard {s.delay} steps late' if s.delay else ''}. */"]

    def synapses(self, p: Population, s: Synapses) -> list[str]:
        """The function of one connection: adds the weights of every event to the layer's sums."""
        body = self._dense(p, s) if s.axes is None else self._conv(p, s)
        size = self.program.geometry(s.source).size
        block, loop, shift = min(BLOCK, size), [], ""
        if block < size:
            loop = [f"    for (int32_t start = 0; start < {size}; start += {block}) {{"]
            shift = "start + "
        length = f"{size}" if block == size else f"start + {block} < {size} ? {block} : {size} - start"
        inner = "    " if loop else ""
        counted = not s.source and self.program.graded
        uses_i = counted or any(re.search(r"\bi\b", line) for line in body)  # not where there is a single place
        return [*self.about(p, s), f"static void {s.name}(const {self.input_type(s.source)} *restrict in, "
                f"{self.sum_type(p)} *restrict sum{', uint8_t *awake' if p.rests else ''})", "{",
                f"    {self.list_type(s.source)} list[{block}];", *loop,
                f"    {inner}const int32_t count = events({'in + start' if loop else 'in'}, {length}, list);",
                f"    {inner}for (int32_t n = 0; n < count; n++) {{",
                *([f"        {inner}const int32_t i = {shift}list[n];"] if uses_i else []),
                *([f"        {inner}const int32_t value = in[i];"] if counted else []),
                *(f"    {inner}{line}" for line in body), f"    {inner}}}", *(["    }"] if loop else []), "}"]

    def _dense(self, p: Population, s: Synapses) -> list[str]:
        g, m, rows = p.geometry, p.margin, p.sums[0]
        stride = self.row(p) if rows * g.width == 1 and m.left + m.right == 0 else g.size
        table = self.constants.add(f"{s.name}_weights", dense_table(s, stride))
        lines = [f"    const {self._kind(table)} *restrict w = {table} + i * {stride};"]
        if p.rests:
            lines += [f"    for (int32_t y = {m.top}; y < {m.top + g.height}; y++)", "        awake[y] = 1;"] \
                if rows > 1 else ["    awake[0] = 1;"]
        if g.height == 1 or m.left + m.right == 0:
            begin = m.top * self.row(p) + m.left * g.channels
            return [*lines, *self._add(p, s, stride, f"sum{f' + {begin}' if begin else ''}", "w", "    ")]
        inside = g.width * g.channels
        return [*lines, f"    for (int32_t y = 0; y < {g.height}; y++) {{",
                *self._add(p, s, inside, f"sum + (y + {m.top}) * {self.row(p)} + {m.left * g.channels}",
                           f"w + y * {inside}", "        "), "    }"]

    def _kind(self, table: str) -> str:
        return f"{self.constants.arrays[table].dtype.name}_t"

    def _add(self, p: Population, s: Synapses, n: int, at: str, weights: str, indent: str) -> list[str]:
        """`n` weights onto sums that lie side by side."""
        kind, factor = self.sum_type(p), " * value" if not s.source and self.program.graded else ""
        cast = "(int16_t)" if p.narrow else ""
        lines = []
        if at != "to":
            lines.append(f"{indent}{kind} *restrict to = {at};")
        if weights != "w":
            lines.append(f"{indent}const {self._kind(f'{s.name}_weights')} *restrict w{1} = {weights};")
        name = "w" if weights == "w" else "w1"
        return [*lines, f"{indent}for (int32_t j = 0; j < {n}; j++)",
                f"{indent}    to[j] = {cast}(to[j] + {name}[j]{factor});"]

    def _conv(self, p: Population, s: Synapses) -> list[str]:
        g = self.program.geometry(s.source)
        weights, begins = conv_tables(s)
        vertical, horizontal = s.conv
        constant = {"y": vertical.padding if g.height == 1 else None, "x": horizontal.padding if g.width == 1 else None}
        classes = [key for key in begins
                   if all(fixed is None or fixed % axis.stride == r for fixed, axis, r in
                          zip(constant.values(), s.conv, key, strict=True))]
        if not classes:  # every event falls between the taps
            return [*(["    (void)value;"] if not s.source and self.program.graded else []),
                    "    (void)sum;", *(["    (void)awake;"] if p.rests else [])]
        table = self.constants.add(f"{s.name}_weights", weights)
        c, y, x = _decoded(g)
        lines = [f"    const int32_t c = {c};" if g.channels > 1 else "",
                 f"    const int32_t y = {y}{plus(vertical.padding)};" if g.height > 1 else "",
                 f"    const int32_t x = {x}{plus(horizontal.padding)};" if g.width > 1 else ""]
        if len(classes) == 1 and all(axis.stride == 1 or constant[k] is not None
                                     for axis, k in zip(s.conv, "yx", strict=True)):
            return [*filter(None, lines), *self._class(p, s, table, begins[classes[0]], classes[0], constant, "    ")]
        chosen = _class_number(s, constant)
        lines += [f"    switch ({chosen}) {{"]
        for key in classes:
            number = (0 if constant["y"] is not None else key[0] * (1 if constant["x"] is not None
                                                                   else horizontal.stride)) \
                + (0 if constant["x"] is not None else key[1])
            lines += [f"    case {number}: {{",
                      *self._class(p, s, table, begins[key], key, constant, "        "), "        break;", "    }"]
        return [*filter(None, lines), "    default:", "        break;", "    }"]

    def _class(self, p: Population, s: Synapses, table: str, begin: int, key: tuple[int, int], constant: dict,
               indent: str) -> list[str]:
        """What the events of one class of places do: `rows` x `columns` taps, a run of channels each."""
        (vertical, horizontal), (r, q) = s.conv, key
        rows, columns, out = len(vertical.classes[r]), len(horizontal.classes[q]), len(s.weight) // s.groups
        channels, m, row = p.geometry.channels, p.margin, self.row(p)
        size, inputs = rows * columns * out, self.program.geometry(s.source).channels
        at_y = _at("y", vertical, constant["y"], vertical.first[r] + m.top)
        at_x = _at("x", horizontal, constant["x"], horizontal.first[q] + m.left)
        group = f" + c / {inputs // s.groups} * {out}" if s.groups > 1 else ""
        offset = f"{begin} + " if begin else ""
        lines = [f"const {self._kind(table)} *restrict w = {table} + {offset}{f'c * {size}' if inputs > 1 else '0'};",
                 f"{self.sum_type(p)} *restrict to = sum + ({at_y}) * {row} + ({at_x}) * {channels}{group};"]
        if p.rests:
            lines += [f"awake[{at_y}{f' + {k * vertical.step}' if k else ''}] = 1;" for k in range(rows)] if rows <= 3 \
                else [f"for (int32_t k = 0; k < {rows}; k++)", f"    awake[{at_y} + k * {vertical.step}] = 1;"]
        side_by_side = s.groups == 1 and horizontal.step == 1
        runs, run = (1, columns * out) if side_by_side else (columns, out)
        loops, deep = [], ""
        if rows > 1:
            loops.append(f"for (int32_t k = 0; k < {rows}; k++, to += {row * vertical.step}, w += {columns * out})")
        inner = "j"
        target = "j"
        if runs > 1:
            loops.append(f"{'    ' * len(loops)}for (int32_t l = 0; l < {runs}; l++)")
            target, inner = f"l * {channels * horizontal.step} + j", f"l * {run} + j"
        deep = "    " * len(loops)
        factor = " * value" if not s.source and self.program.graded else ""
        cast = "(int16_t)" if p.narrow else ""
        loops += [f"{deep}for (int32_t j = 0; j < {run}; j++)",
                  f"{deep}    to[{target}] = {cast}(to[{target}] + w[{inner}]{factor});"]
        return [indent + line for line in [*lines, *loops]]

    # ---------------------------------------------------------------------------------------------- neurons

    def population(self, p: Population) -> list[str]:
        """The function of one layer: its connections, then one step of all its neurons."""
        sources = [f"const {self.input_type(s.source)} *restrict from{i}" for i, s in enumerate(p.synapses)]
        rows, row, g, m, kind = p.sums[0], self.row(p), p.geometry, p.margin, self.sum_type(p)
        inside = g.width * g.channels
        row_function, call, _ = neurons(self, p)
        lines = [*row_function, "", f"/* {describe(p)} */",
                 f"static void {p.name}({', '.join((*sources, 'uint8_t *restrict out'))})", "{",
                 f"    {kind} *const sum = state.{'narrow' if p.narrow else 'wide'}_sum;",
                 *(f"    {s.name}(from{i}, sum{f', state.{p.name}_awake' if p.rests else ''});"
                   for i, s in enumerate(p.synapses)),
                 f"    for (int32_t y = 0; y < {rows}; y++) {{", f"        {kind} *restrict a = sum + y * {row};"]
        edge = f"y >= {m.top} && y < {m.top + g.height}" if m.top or m.bottom else ""
        at = f"(y - {m.top}) * {inside}" if m.top else f"y * {inside}"
        indent = "            " if edge else "        "
        if p.rests:
            lines += [f"        if (!state.{p.name}_awake[y]) {{", *([f"            if ({edge})"] if edge else []),
                      f"            {'    ' if edge else ''}for (int32_t i = 0; i < {inside}; i++)",
                      f"            {'    ' if edge else ''}    out[{at} + i] = 0;", "            continue;",
                      "        }"]
        if edge:
            lines.append(f"        if ({edge}) {{")
        lines += [f"{indent}const int32_t row = {at};", f"{indent}{call}"]
        if edge:
            lines.append("        }")
        return [*lines, f"        for (int32_t i = 0; i < {row}; i++)", "            a[i] = 0;", "    }", "}"]


def _decoded(g: Geometry) -> tuple[str, str, str]:
    """Channel, row and column of place i."""
    if g.planes:
        return (f"i / {g.height * g.width}", f"i / {g.width} % {g.height}" if g.channels > 1 else f"i / {g.width}",
                f"i % {g.width}" if g.height * g.channels > 1 else "i")
    return (f"i % {g.channels}", f"i / {g.channels * g.width}",
            (f"i / {g.channels}" if g.channels > 1 else "i") + (f" % {g.width}" if g.height > 1 else ""))


def _at(variable: str, axis, fixed: int | None, offset: int) -> str:
    if fixed is not None:
        return str(fixed // axis.stride + offset)
    return f"{variable}{f' / {axis.stride}' if axis.stride > 1 else ''}{plus(offset)}"


def _class_number(s: Synapses, constant: dict) -> str:
    """Which class a place is of."""
    vertical, horizontal = s.conv
    parts = []
    if constant["y"] is None and vertical.stride > 1:
        scale = horizontal.stride if constant["x"] is None else 1
        parts.append(f"y % {vertical.stride}{f' * {scale}' if scale > 1 else ''}")
    if constant["x"] is None and horizontal.stride > 1:
        parts.append(f"x % {horizontal.stride}")
    return " + ".join(parts) or "0"
