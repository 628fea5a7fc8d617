"""The C functions of a program: one for each connection and each layer, named after it; see `targets.loihi.c.form`."""

import re

from targets.loihi.c.constants import conv_tables, dense_table, even_tables
from targets.loihi.c.form import Form, comment, plus
from targets.loihi.c.gather import GUARD, gather
from targets.loihi.c.neurons import describe, neurons
from targets.loihi.c.program import Geometry, Population, Synapses

BLOCK = 64
"""Plain: so many input places are looked through at a time; their list is all the memory that it takes."""
TABLES = ("weights", "begins", "sums", "rows", "quads")


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

    def synapses(self, p: Population, s: Synapses) -> list[str]:
        """The function of one connection: adds the weights of every event to the layer's sums."""
        source = comment(self.program.populations[s.source].label) if s.source else "the input"
        kind, sums, awake = self.input_type(s.source), self.sum_type(p), ", uint8_t *awake" if p.rests else ""
        body = self._dense(p, s) if s.axes is None else self._even(p, s) if self.fast and s.even else self._conv(p, s)
        size = self.program.geometry(s.source).size
        block = size if self.fast else min(BLOCK, size)
        loop, shift = [], ""
        if block < size:
            loop = [f"    for (int32_t start = 0; start < {size}; start += {block}) {{"]
            shift = "start + "
        length = f"{size}" if block == size else f"start + {block} < {size} ? {block} : {size} - start"
        inner = "    " if loop else ""
        what = "matrix" if s.axes is None else "convolution"
        before, busy = self._busy(p, s)
        counted = not s.source and self.program.graded
        uses_i = counted or any(re.search(r"\bi\b", line) for line in body)  # not where there is a single place
        where = "in + start" if loop else "in"
        lines = [*before, f"/* {comment(s.label)}: the {what} between {source} and {comment(p.label)}"
                 f"{f', heard {s.delay} steps late' if s.delay else ''}. */",
                 f"static void {s.name}({'struct state *s, ' if self.fast else ''}const {kind} *restrict in, "
                 f"{sums} *restrict sum{awake})", "{",
                 *self.constants.prologue([name for name in self.constants.arrays if name in _tables(s.name)]),
                 f"    {self.list_type(s.source)} {'*const list = s->list' if self.fast else f'list[{block}]'};", *loop,
                 f"    {inner}const int32_t count = events{'_wide' if kind == 'int32_t' else ''}({where}, {length}, "
                 "list);", *busy,
                 f"    {inner}for (int32_t n = 0; n < count; n++) {{",
                 *([f"        {inner}const int32_t i = {shift}list[n];"] if uses_i else []),
                 *([f"        {inner}const int32_t value = in[i];"] if counted else []),
                 *(f"    {inner}{line}" for line in body), f"    {inner}}}", *(["    }"] if loop else []), "}"]
        return lines

    def _busy(self, p: Population, s: Synapses) -> tuple[list[str], list[str]]:
        """The function that gathers where many events come at once, and the lines that choose it; fast form alone."""
        row = self.row(p)
        found = gather(p, s, self.program.geometry(s.source), row) if self.fast else None
        if found is None or self.input_type(s.source) != "uint8_t":
            return [], []
        self.constants.add(f"{s.name}_quads", found.weights)
        self.extra += found.fields
        picture, to = s.axes is not None, "sum"
        if not picture:
            to = f"sum{plus(p.margin.top * row + p.margin.left * p.geometry.channels)}"
        wake = [f"        for (int32_t y = 0; y < {p.sums[0]}; y++)", "            awake[y] = 1;"] if p.rests else []
        return found.lines, [GUARD, f"    if (count >= {found.events}) {{", *wake,
                             f"        {s.name}_gather({'s, ' if picture else ''}in, {to}, {s.name}_quads);",
                             "        return;", "    }", *self._listed(p, s, found.listed, to, wake),
                             "#else", f"    (void){s.name}_quads;", "#endif"]

    def _listed(self, p: Population, s: Synapses, listed: bool, to: str, wake: list[str]) -> list[str]:
        """The lines that hand a list of events to the function that adds in registers, where there is one."""
        if not listed or (not s.source and self.program.graded):
            return []
        return ["    if (count) {", *wake, f"        {s.name}_listed(list, count, {to}, {s.name}_weights);", "    }",
                "    return;"]

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

    def _even(self, p: Population, s: Synapses) -> list[str]:
        """A convolution without branches: what differs between classes of places stands in tables."""
        g, m, row, (rows, columns) = self.program.geometry(s.source), p.margin, self.row(p), s.filled
        tables = even_tables(s, g, row, p.geometry.channels, m.top, m.left)
        for part, values in zip(TABLES, tables, strict=False):
            self.constants.add(f"{s.name}_{part}", values)
        run, picture = columns * len(s.weight), g.height * g.width
        place, channel = ("%", "/") if g.planes else ("/", "%")
        place, channel = f"i {place} {picture if g.planes else g.channels}", \
            f"i {channel} {picture if g.planes else g.channels}"
        factor = " * value" if not s.source and self.program.graded else ""
        cast, step = "(int16_t)" if p.narrow else "", row * s.conv[0].step
        lines = [f"    const int32_t at = {place};",
                 f"    const {self._kind(f'{s.name}_weights')} *restrict w = {s.name}_weights + {s.name}_begins[at]"
                 f"{f' + {channel} * {rows * run}' if g.channels > 1 else ''};",
                 f"    {self.sum_type(p)} *restrict to = sum + {s.name}_sums[at];"]
        if p.rests:
            lines += [f"    awake[{s.name}_rows[at]{plus(k * s.conv[0].step)}] = 1;" for k in range(rows)]
        for k in range(rows):
            at = f"to[j{plus(k * step)}]"
            lines += [f"    for (int32_t j = 0; j < {run}; j++)",
                      f"        {at} = {cast}({at} + w[j{plus(k * run)}]{factor});"]
        return lines

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
        own, extra = (["struct state *s"], ["int32_t *restrict membrane"]) if self.fast else ([], [])
        rows, row, g, m = p.sums[0], self.row(p), p.geometry, p.margin
        inside = g.width * g.channels
        row_function, call, read = neurons(self, p)
        calls = []
        for i, s in enumerate(p.synapses):
            calls += ([f"    if (from{i})"] if self.fast else [])
            calls.append(f"    {'    ' if self.fast else ''}{s.name}({'s, ' if self.fast else ''}from{i}, sum"
                         f"{f', {self.at}{p.name}_awake' if p.rests else ''});")
        lines = [*row_function, "", f"/* {comment(p.label) if self.fast else describe(p)} */",
                 f"static void {p.name}({', '.join((*own, *sources, *extra, 'uint8_t *restrict out'))})",
                 "{", *self.constants.prologue(read),
                 f"    {self.sum_type(p)} *const sum = {self.at}{'narrow' if p.narrow else 'wide'}_sum;", *calls,
                 f"    for (int32_t y = 0; y < {rows}; y++) {{",
                 f"        {self.sum_type(p)} *restrict a = sum + y * {row};"]
        edge = f"y >= {m.top} && y < {m.top + g.height}" if m.top or m.bottom else ""
        at = f"(y - {m.top}) * {inside}" if m.top else f"y * {inside}"
        indent = "            " if edge else "        "
        if p.rests:
            lines += [f"        if (!{self.at}{p.name}_awake[y]) {{", *([f"            if ({edge})"] if edge else []),
                      f"            {'    ' if edge else ''}for (int32_t i = 0; i < {inside}; i++)",
                      f"            {'    ' if edge else ''}    out[{at} + i] = 0;"]
            if self.fast:
                lines += [f"            if (membrane{f' && {edge}' if edge else ''})",
                          f"                for (int32_t i = 0; i < {inside}; i++)",
                          f"                    membrane[{at} + i] = 0;"]
            lines += ["            continue;", "        }"]
        if edge:
            lines.append(f"        if ({edge}) {{")
        lines += [f"{indent}const int32_t row = {at};", f"{indent}{call}"]
        if edge:
            lines.append("        }")
        lines += [f"        for (int32_t i = 0; i < {row}; i++)", "            a[i] = 0;", "    }", "}"]
        return lines


def _tables(name: str) -> list[str]:
    return [f"{name}_{part}" for part in TABLES]


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
