"""Fast form: the functions that the simulator compiles, equal to those of `targets.loihi.c.functions`.

Events of a step stand in a list; for busy steps a connection has a twin that needs none (`targets.loihi.c.gather`).
Vectors are GNU C's, which a compiler takes apart for a processor that has none of that width.
"""

import re

import numpy as np

from targets.loihi.c.constants import dense_table, even_tables
from targets.loihi.c.form import LANES, comment, plus
from targets.loihi.c.functions import Functions
from targets.loihi.c.gather import GUARD, Gather, gather
from targets.loihi.c.neurons import neurons
from targets.loihi.c.program import Population, Synapses

REGISTERS = 16
"""Vectors of sums that are held at a time; processors with AVX-512 have 32."""
VECTORS = """\
typedef int8_t bytes16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef int8_t bytes32 __attribute__((vector_size(32), aligned(1), may_alias));
typedef int16_t narrow16 __attribute__((vector_size(32), aligned(2), may_alias));
typedef int16_t narrow32 __attribute__((vector_size(64), aligned(2), may_alias));
typedef int32_t wide16 __attribute__((vector_size(64), aligned(4), may_alias));

/* Weights, as wide as sums. gcc 12 makes several instructions of a conversion that is one. */
static inline narrow16 narrow16_at(const int8_t *w)
{
#if defined(__AVX2__)
    return (narrow16)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w));
#else
    return __builtin_convertvector(*(const bytes16 *)w, narrow16);
#endif
}

static inline narrow32 narrow32_at(const int8_t *w)
{
#if defined(__AVX512BW__)
    return (narrow32)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)w));
#else
    return __builtin_convertvector(*(const bytes32 *)w, narrow32);
#endif
}

static inline wide16 wide16_at(const int8_t *w)
{
#if defined(__AVX512F__)
    return (wide16)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)w));
#else
    return __builtin_convertvector(__builtin_convertvector(*(const bytes16 *)w, narrow16), wide16);
#endif
}"""
TABLES = ("weights", "places", "rows", "quads")


class Fast(Functions):
    """Writes the functions of `program` for the simulator."""

    # ------------------------------------------------------------------------------------------- connections

    def synapses(self, p: Population, s: Synapses) -> list[str]:
        """The function of one connection: adds the weights of every event to the layer's sums."""
        kind, tables = self.input_type(s.source), [f"{s.name}_{part}" for part in TABLES]
        body, twin = self._body(p, s), self._twin(p, s)
        size = self.program.geometry(s.source).size
        enough = f"GATHERS ? {twin.events} : {size + 1}" if twin else f"{size + 1}"
        return [*(twin.lines if twin else []), *self.about(p, s),
                f"static void {s.name}(struct state *s, const {kind} *restrict in, {self.sum_type(p)} *restrict sum)",
                "{", *self.constants.prologue([name for name in self.constants.arrays if name in tables]),
                f"    {self.list_type(s.source)} *const list = s->list;",
                *([f"    uint8_t *const awake = s->{p.name}_awake;", "    (void)awake;"] if p.rests else []),
                f"    const int32_t count = events{'_wide' if kind == 'int32_t' else ''}(in, {size}, {enough}, list);",
                *(self._busy(p, s, twin) if twin else []), *body, "}"]

    def _counted(self, s: Synapses) -> bool:
        """Whether an event counts as its value."""
        return not s.source and self.program.graded

    def _body(self, p: Population, s: Synapses) -> list[str]:
        """What is done with the list."""
        if s.weight.min() >= -128 and s.weight.max() <= 127:
            if s.axes is not None and s.even:
                return self._even(p, s)
            if s.axes is None and self.whole(p):
                return self._listed(p, s)
        body, counted = self._dense(p, s) if s.axes is None else self._conv(p, s), self._counted(s)
        uses_i = counted or any(re.search(r"\bi\b", line) for line in body)  # not where there is a single place
        return ["    for (int32_t n = 0; n < count; n++) {",
                *(["        const int32_t i = list[n];"] if uses_i else []),
                *(["        const int32_t value = in[i];"] if counted else []), *(f"    {line}" for line in body),
                "    }"]

    def _vector(self, p: Population, length: int, aligned: int = 32) -> list[tuple[int, str]]:
        """`length` sums as vectors: where each begins, and its type. `aligned`: where sums may begin."""
        lanes = 32 if p.narrow and aligned % 32 == 0 else LANES
        found, at = [], 0
        while at < length:
            lanes = lanes if at + lanes <= length else LANES
            found.append((at, f"{'narrow' if p.narrow else 'wide'}{lanes}"))
            at += lanes
        return found

    def _listed(self, p: Population, s: Synapses) -> list[str]:
        """A matrix: events one by one onto sums in registers."""
        row = self.row(p)
        table = self.constants.add(f"{s.name}_weights", dense_table(s, row))
        lines, vectors = self._wake(p, "count"), self._vector(p, row)
        factor = f" * ({self.sum_type(p)})in[list[n]]" if self._counted(s) else ""
        for begin in range(0, len(vectors), REGISTERS):
            held = vectors[begin:begin + REGISTERS]
            lines += ["    {", *_loaded(held, "sum", "        "), "        for (int32_t n = 0; n < count; n++) {",
                      f"            const int8_t *restrict w = {table} + list[n] * {row};",
                      *(f"            a{at} += {kind}_at(w{plus(at)}){factor};" for at, kind in held), "        }",
                      *_stored(held, "sum", "        "), "    }"]
        return lines

    def _even(self, p: Population, s: Synapses) -> list[str]:
        """A convolution without branches: what differs between classes of places stands in tables."""
        g, m, row, (rows, columns) = self.program.geometry(s.source), p.margin, self.row(p), s.filled
        out = len(s.weight)
        run = -(-columns * out // LANES) * LANES
        weights, begins, sums, hit = even_tables(s, g, row, p.geometry.channels, m.top, m.left, run)
        if g.planes:  # an entry for each input, else for each place: all its channels add to the same sums
            begins = np.concatenate([begins + c * rows * run for c in range(g.channels)])
            sums = np.tile(sums, g.channels)
        bits = 16 if max(begins.max(), sums.max()) < 1 << 16 else 32
        places = (begins.astype(np.uint64) | (sums.astype(np.uint64) << np.uint64(bits))).astype(f"uint{2 * bits}")
        for part, values in (("weights", weights), ("places", places), ("rows", hit)):
            self.constants.add(f"{s.name}_{part}", values)
        size, step = g.height * g.width, s.conv[0].step
        lines = []
        if p.rests:
            place = f"% {size}" if g.planes else f"/ {g.channels}"
            lines = [f"    if (s->{p.name}_asleep)", "        for (int32_t n = 0; n < count; n++) {",
                     f"            const int32_t y = {s.name}_rows[list[n] {place}];",
                     *(f"            awake[y{plus(k * step)}] = 1;" for k in range(rows)), "        }"]
        known = [f"const uint{2 * bits}_t place = {s.name}_places[{'i' if g.planes else f'i / {g.channels}'}];",
                 f"const int8_t *restrict w = {s.name}_weights + (place & {(1 << bits) - 1})"
                 f"{'' if g.planes else f' + i % {g.channels} * {rows * run}'};",
                 f"{self.sum_type(p)} *restrict to = sum + (place >> {bits});"]
        factor = f" * ({self.sum_type(p)})in[i]" if self._counted(s) else ""
        added = [f"*({kind} *)(to{plus(k * row * step + at)}) += {kind}_at(w{plus(k * run + at)}){factor};"
                 for k in range(rows) for at, kind in self._vector(p, run, out)]
        return [*lines, *_four_by_four([*known, *added])]

    def _twin(self, p: Population, s: Synapses) -> Gather | None:
        """The function that gathers where many events come at once."""
        if self.input_type(s.source) != "uint8_t":
            return None
        found = gather(p, s, self.program.geometry(s.source), self.row(p))
        if found:
            self.constants.add(f"{s.name}_quads", found.weights)
            self.extra += found.fields
        return found

    def _busy(self, p: Population, s: Synapses, twin: Gather) -> list[str]:
        """The lines that choose it."""
        begin = p.margin.top * self.row(p) + p.margin.left * p.geometry.channels
        given = "s, in, sum" if s.axes is not None else f"in, sum{plus(begin)}"
        return [GUARD, f"    if (count >= {twin.events}) {{", *(f"    {line}" for line in self._wake(p, "1")),
                f"        {s.name}_gather({given}, {s.name}_quads);", "        return;", "    }", "#else",
                f"    (void){s.name}_quads;", "#endif"]

    def _wake(self, p: Population, when: str) -> list[str]:
        """All rows of a layer wake where there is an event."""
        if not p.rests:
            return []
        return [f"    if ({when} && s->{p.name}_asleep)", f"        for (int32_t y = 0; y < {p.sums[0]}; y++)",
                "            awake[y] = 1;"]

    # ---------------------------------------------------------------------------------------------- neurons

    def population(self, p: Population) -> list[str]:
        """The function of one layer: its connections, then one step of all its neurons that do not rest."""
        sources = [f"const {self.input_type(s.source)} *restrict from{i}" for i, s in enumerate(p.synapses)]
        row, g, m, kind = self.row(p), p.geometry, p.margin, self.sum_type(p)
        inside = g.width * g.channels
        row_function, call, read = neurons(self, p)
        lines = [*row_function, "", f"/* {comment(p.label)} */",
                 f"static void {p.name}({', '.join(('struct state *s', *sources, 'int32_t *restrict membrane'))}, "
                 "uint8_t *restrict out)", "{", *self.constants.prologue(read),
                 f"    {kind} *const sum = s->{'narrow' if p.narrow else 'wide'}_sum;"]
        for i, s in enumerate(p.synapses):
            lines += [f"    if (from{i})", f"        {s.name}(s, from{i}, sum);"]
        for begin, count in ((0, m.top), ((m.top + g.height) * row, m.bottom)):
            if count:
                lines += [f"    for (int32_t i = {begin}; i < {begin + count * row}; i++)", "        sum[i] = 0;"]
        if p.rests:
            self.extra.append(f"int32_t {p.name}_asleep;")
            lines.append("    int32_t asleep = 0;")
        lines += [f"    for (int32_t y = 0; y < {g.height}; y++) {{",
                  f"        {kind} *restrict a = sum + (y{plus(m.top)}) * {row};",
                  f"        const int32_t row = y * {inside};"]
        if p.rests:
            lines += [f"        if (!s->{p.name}_awake[y{plus(m.top)}]) {{", "            asleep++;",
                      f"            for (int32_t i = 0; i < {inside}; i++)", "                out[row + i] = 0;",
                      "            if (membrane)", f"                for (int32_t i = 0; i < {inside}; i++)",
                      "                    membrane[row + i] = 0;", "            continue;", "        }"]
        lines += [f"        {call}", f"        for (int32_t i = 0; i < {row}; i++)", "            a[i] = 0;", "    }"]
        return [*lines, *([f"    s->{p.name}_asleep = asleep;"] if p.rests else []), "}"]


def _four_by_four(body: list[str]) -> list[str]:
    """`body` for every event i of the list: of its four quarters in turn.

    Neighbours in the list add to the same sums, and each addition would wait for the one before.
    """
    lines = ["    const int32_t quarter = count / 4;", "    for (int32_t n = 0; n < quarter; n++) {"]
    for part in range(4):
        at = f" + {part} * quarter" if part else ""
        lines += ["        {", f"            const int32_t i = list[n{at}];", *(f"            {line}" for line in body),
                  "        }"]
    return [*lines, "    }", "    for (int32_t n = 4 * quarter; n < count; n++) {",
            "        const int32_t i = list[n];", *(f"        {line}" for line in body), "    }"]


def _loaded(held: list[tuple[int, str]], sums: str, indent: str) -> list[str]:
    return [f"{indent}{kind} a{at} = *(const {kind} *)({sums}{plus(at)});" for at, kind in held]


def _stored(held: list[tuple[int, str]], sums: str, indent: str) -> list[str]:
    return [f"{indent}*({kind} *)({sums}{plus(at)}) = a{at};" for at, kind in held]
