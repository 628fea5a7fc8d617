"""The C functions of a program: one for each connection and each layer, named after it.

Two forms of one text. *Plain*, for a file that a person reads and any C99 compiler takes: numbers as `static const`,
integers alone. *Fast*, for the simulator: the same functions, numbers by pointer (one compiled library serves every
network of that shape), rows filled up to whole vectors, membranes recorded, and two primitives replaced by equal ones
(`targets.c.primitives`).
"""

import math
from dataclasses import dataclass, field

import numpy as np

from targets.c.constants import Constants, conv_tables, ctype, dense_table, even_tables, form, smallest
from targets.c.gather import GUARD, gather
from targets.c.program import Geometry, Population, Program, Synapses
from targets.loihi.bounds import SHIFT, STATE

BLOCK = 64
"""Plain: so many input places are looked through at a time; their list is all the memory that it takes."""
LANES = 16


def comment(text: str) -> str:
    """Somebody's words, safe inside a C comment."""
    kept = "".join(c if c.isprintable() and c.isascii() and c != "\\" else "_" for c in text)
    return kept.replace("*/", "*_").replace("/*", "/_").replace("??", "__")[:200]


@dataclass
class Functions:
    """Writes the functions of `program`; `constants` collects their numbers."""

    program: Program
    fast: bool
    constants: Constants
    extra: list[str] = field(default_factory=list)

    def all(self) -> list[str]:
        """Every function, in the order that C wants."""
        lines = []
        for p in self.program.populations.values():
            for s in p.synapses:
                lines += ["", *self.synapses(p, s)]
            lines += ["", *self.population(p)]
        return lines

    # ------------------------------------------------------------------------------------------ what is stored

    @property
    def at(self) -> str:
        """How a function reaches the state."""
        return "s->" if self.fast else "state."

    def input_type(self, source: str) -> str:
        """Of a source's events."""
        beyond = self.program.signed or self.program.largest > 255
        return "int32_t" if not source and beyond else "uint8_t"

    def sum_type(self, p: Population) -> str:
        """Of a layer's sums."""
        return "int16_t" if p.narrow else "int32_t"

    def row(self, p: Population) -> int:
        """Elements of a row of sums; flat layers of the fast form fill whole vectors."""
        rows, row = p.sums
        whole = self.fast and rows * p.geometry.width == 1 and p.margin.left + p.margin.right == 0
        return -(-row // LANES) * LANES if whole else row

    def state(self, readout: Population | None = None) -> list[str]:
        """The fields of the state, but for what the callers keep."""
        fields = list(self.extra)
        everybody = [*self.program.populations.values(), *([readout] if readout else [])]
        for p in everybody:
            if self.remembers_v(p):
                fields.append(f"int32_t {p.name}_v[{p.geometry.size}];")
            if p.threshold is not None and p.u_keep.any():
                fields.append(f"{'int64_t' if p.wide else 'int32_t'} {p.name}_u[{p.geometry.size}];")
            if p.rests:
                fields.append(f"uint8_t {p.name}_awake[{p.sums[0]}];")
        for kind, narrow in (("int16_t", True), ("int32_t", False)):
            sizes = [p.sums[0] * self.row(p) for p in everybody if p.narrow == narrow]
            if sizes:
                fields.append(f"{kind} {'narrow' if narrow else 'wide'}_sum[{max(sizes)}];")
        return fields

    def remembers_v(self, p: Population) -> bool:
        """Whether a membrane outlives its step."""
        return p.threshold is not None and bool(p.v_keep.any() or p.subtracts)

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
                 f"        {inner}const int32_t i = {shift}list[n];",
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
            to = f"sum{_plus(p.margin.top * row + p.margin.left * p.geometry.channels)}"
        wake = [f"        for (int32_t y = 0; y < {p.sums[0]}; y++)", "            awake[y] = 1;"] if p.rests else []
        return found.lines, [GUARD, f"    if (count >= {found.events}) {{", *wake,
                             f"        {s.name}_gather({'s, ' if picture else ''}in, {to}, {s.name}_quads);",
                             "        return;", "    }", "#else", f"    (void){s.name}_quads;", "#endif"]

    def list_type(self, source: str) -> str:
        """Of the places in a list of events."""
        if not self.fast:
            return "uint8_t"
        return "uint16_t" if self.list_length() <= 1 << 16 else "int32_t"

    def list_length(self) -> int:
        """Most events of a step of one source."""
        return max(self.program.input.size, *(p.geometry.size for p in self.program.populations.values()))

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
        vertical, horizontal = s.axes
        constant = {"y": vertical.padding if g.height == 1 else None, "x": horizontal.padding if g.width == 1 else None}
        classes = [key for key in begins
                   if all(fixed is None or fixed % axis.stride == r for fixed, axis, r in
                          zip(constant.values(), s.axes, key, strict=True))]
        if not classes:  # every event falls between the taps
            return ["    (void)i;", *(["    (void)value;"] if not s.source and self.program.graded else []),
                    "    (void)sum;", *(["    (void)awake;"] if p.rests else [])]
        table = self.constants.add(f"{s.name}_weights", weights)
        c, y, x = _decoded(g)
        lines = [f"    const int32_t c = {c};" if g.channels > 1 else "",
                 f"    const int32_t y = {y}{_plus(vertical.padding)};" if g.height > 1 else "",
                 f"    const int32_t x = {x}{_plus(horizontal.padding)};" if g.width > 1 else ""]
        if len(classes) == 1 and all(axis.stride == 1 or constant[k] is not None
                                     for axis, k in zip(s.axes, "yx", strict=True)):
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
        g, m, row, (rows, columns) = self.program.geometry(s.source), p.margin, self.row(p), s.even
        tables = even_tables(s, g, row, p.geometry.channels, m.top, m.left)
        for part, values in zip(TABLES, tables, strict=False):
            self.constants.add(f"{s.name}_{part}", values)
        run, picture = columns * len(s.weight), g.height * g.width
        place, channel = ("%", "/") if g.planes else ("/", "%")
        place, channel = f"i {place} {picture if g.planes else g.channels}", \
            f"i {channel} {picture if g.planes else g.channels}"
        factor = " * value" if not s.source and self.program.graded else ""
        cast, step = "(int16_t)" if p.narrow else "", row * s.axes[0].step
        lines = [f"    const int32_t at = {place};",
                 f"    const {self._kind(f'{s.name}_weights')} *restrict w = {s.name}_weights + {s.name}_begins[at]"
                 f"{f' + {channel} * {rows * run}' if g.channels > 1 else ''};",
                 f"    {self.sum_type(p)} *restrict to = sum + {s.name}_sums[at];"]
        if p.rests:
            lines += [f"    awake[{s.name}_rows[at]{_plus(k * s.axes[0].step)}] = 1;" for k in range(rows)]
        for k in range(rows):
            at = f"to[j{_plus(k * step)}]"
            lines += [f"    for (int32_t j = 0; j < {run}; j++)",
                      f"        {at} = {cast}({at} + w[j{_plus(k * run)}]{factor});"]
        return lines

    def _class(self, p: Population, s: Synapses, table: str, begin: int, key: tuple[int, int], constant: dict,
               indent: str) -> list[str]:
        """What the events of one class of places do: `rows` x `columns` taps, a run of channels each."""
        (vertical, horizontal), (r, q) = s.axes, key
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
        row_function, call, read = self._neurons(p)
        calls = []
        for i, s in enumerate(p.synapses):
            calls += ([f"    if (from{i})"] if self.fast else [])
            calls.append(f"    {'    ' if self.fast else ''}{s.name}({'s, ' if self.fast else ''}from{i}, sum"
                         f"{f', {self.at}{p.name}_awake' if p.rests else ''});")
        lines = [*row_function, "", f"/* {describe(p)} */",
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

    def _neurons(self, p: Population) -> tuple[list[str], str, list[str]]:
        """The function of a row of neurons, a call of it, and the constants that the caller hands over."""
        g, m, read = p.geometry, p.margin, []
        left = m.left * g.channels
        kind = "int64_t" if p.wide else "int32_t"
        has_v, has_u = self.remembers_v(p), bool(p.u_keep.any())
        given = [(f"const {self.sum_type(p)} *restrict sum", f"a{_plus(left)}")]
        if has_v:
            given.append(("int32_t *restrict v", f"{self.at}{p.name}_v + row"))
        if has_u:
            given.append((f"{kind} *restrict u", f"{self.at}{p.name}_u + row"))
        given.append(("uint8_t *restrict fired", "out + row"))
        if self.fast:
            given.append(("int32_t *restrict seen", "membrane ? membrane + row : 0"))
        body = [f"{kind} x = ({kind})sum[i] * {SHIFT};"]
        if has_u:
            body.append(f"x += {self._decayed(p, 'u', read)};")
        if not p.small:
            body += [f"x = x > {STATE} ? x - {2 * STATE} : x <= -{STATE} ? x + {2 * STATE} : x;"]
        if has_u:
            body.append("u[i] = x;")
        theta = self._constant(p, "threshold", read)
        if p.v_keep.any():
            body.append(f"x += {self._decayed(p, 'v', read)};")
        if p.bias.any():
            body.append(f"x += {self._constant(p, 'bias', read)};")
        if p.subtracts:
            body.append(f"x -= v[i] > {theta} ? {theta} : 0;")
        if not p.small:
            body += [f"x = x > {STATE - 1} ? {STATE - 1} : x < -{STATE - 1} ? -{STATE - 1} : x;"]
        record = ["if (seen)", "    seen[i] = (int32_t)x;"] if self.fast else []
        body += [*record, f"fired[i] = x > {theta};"]
        if has_v:
            cast = "(int32_t)" if p.wide else ""
            body.append(f"v[i] = {cast}x;" if p.subtracts else f"v[i] = x > {theta} ? 0 : {cast}x;")
        for name, how in read:
            kind = ctype(self.constants.arrays[name].dtype)
            if how == "scalar":
                given.append((f"const {kind} {name.removeprefix(f'{p.name}_')}", name))
            else:
                given.append((f"const {kind} *restrict {name.removeprefix(f'{p.name}_')}",
                              name + (" + row" if how == "full" else "")))
        heads = ", ".join(head for head, _ in given)
        inside = g.width * g.channels
        apart = "__attribute__((noinline)) " if self.fast else ""  # gcc forgets 'restrict' where it inlines
        lines = [f"/* One step of the neurons in a row of {comment(p.label)}. */",
                 f"static {apart}void {p.name}_row({heads})", "{"]
        for begin, end in _whole_vectors(inside) if self.fast else [(0, inside)]:
            lines += [f"    for (int32_t i = {begin}; i < {end}; i++) {{", *(f"        {line}" for line in body),
                      "    }"]
        lines.append("}")
        return lines, f"{p.name}_row({', '.join(value for _, value in given)});", [name for name, _ in read]

    def _constant(self, p: Population, key: str, read: list[tuple[str, str]]) -> str:
        """An expression for a constant of neuron i of the row; `read` collects what it names and how that varies."""
        values = getattr(p, key)
        if form(values, p.geometry) == "scalar" and not self.fast:
            return str(int(values[0]))
        return self._read(p, f"{p.name}_{key}", values.astype(np.int32) if self.fast else smallest(values), read)

    def _read(self, p: Population, name: str, values: np.ndarray, read: list[tuple[str, str]]) -> str:
        how, inside = form(values, p.geometry), p.geometry.width * p.geometry.channels
        self.constants.add(name, values[:1] if how == "scalar" else values[:inside] if how == "row" else values)
        if (name, how) not in read:
            read.append((name, how))
        inner = name.removeprefix(f"{p.name}_")
        return inner if how == "scalar" else f"{inner}[i]"

    def _decayed(self, p: Population, which: str, read: list[tuple[str, str]]) -> str:
        """What is left of a state."""
        keep = getattr(p, f"{which}_keep")
        if (keep == 4096).all():
            return f"{which}[i]"
        wide = p.wide and which == "u"
        if self.fast and not wide:
            kept = self._read(p, f"{p.name}_{which}_kept", (keep / 4096).astype(np.float32), read)
            return f"decay({which}[i], {kept})"
        fits = p.small and math.isfinite(p.largest) and p.largest * int(keep.max()) < 1 << 31
        kind = "_wide" if wide else "_small" if fits else ""
        return f"decay{kind}({which}[i], {self._constant(p, f'{which}_keep', read)})"


def _whole_vectors(size: int) -> list[tuple[int, int]]:
    """A loop as several, each of whole vectors of 64, 32 or 16: gcc 12 does what is left over one by one."""
    parts, begin = [], 0
    for lanes in (64, 32, 16, 1):
        end = begin + (size - begin) // lanes * lanes
        if end > begin:
            parts.append((begin, end))
        begin = end
    return parts


TABLES = ("weights", "begins", "sums", "rows", "quads")


def _tables(name: str) -> list[str]:
    return [f"{name}_{part}" for part in TABLES]


def describe(p: Population) -> str:
    """A layer in words."""
    g = p.geometry
    shape = f"{g.channels} x {g.height} x {g.width}" if g.height * g.width > 1 else f"{g.channels}"

    def words(values: np.ndarray, unit: int = 1) -> str:
        low, high = int(values.min()) // unit, int(values.max()) // unit
        return str(low) if low == high else f"{low} to {high}"

    text = f"{comment(p.label)}: {shape} neurons, threshold {words(p.threshold, SHIFT)}"
    text += f", keep {words(p.v_keep)}/4096 of v" if p.v_keep.any() else ", no memory"
    text += f" and {words(p.u_keep)}/4096 of the current" if p.u_keep.any() else ""
    text += f", bias {words(p.bias, SHIFT)}" if p.bias.any() else ""
    return text + ("; a spike takes the threshold off, a step later" if p.subtracts else "; a spike returns v to zero")


def _decoded(g: Geometry) -> tuple[str, str, str]:
    """Channel, row and column of place i."""
    if g.planes:
        return (f"i / {g.height * g.width}", f"i / {g.width} % {g.height}" if g.channels > 1 else f"i / {g.width}",
                f"i % {g.width}" if g.height * g.channels > 1 else "i")
    return (f"i % {g.channels}", f"i / {g.channels * g.width}",
            (f"i / {g.channels}" if g.channels > 1 else "i") + (f" % {g.width}" if g.height > 1 else ""))


def _plus(value: int) -> str:
    return f" + {value}" if value > 0 else f" - {-value}" if value < 0 else ""


def _at(variable: str, axis, fixed: int | None, offset: int) -> str:
    if fixed is not None:
        return str(fixed // axis.stride + offset)
    return f"{variable}{f' / {axis.stride}' if axis.stride > 1 else ''}{_plus(offset)}"


def _class_number(s: Synapses, constant: dict) -> str:
    """Which class a place is of."""
    vertical, horizontal = s.axes
    parts = []
    if constant["y"] is None and vertical.stride > 1:
        scale = horizontal.stride if constant["x"] is None else 1
        parts.append(f"y % {vertical.stride}{f' * {scale}' if scale > 1 else ''}")
    if constant["x"] is None and horizontal.stride > 1:
        parts.append(f"x % {horizontal.stride}")
    return " + ".join(parts) or "0"
