"""Fast form, for busy steps: every neuron collects its inputs, instead of every event handing out its weights.

A processor with AVX-512 VNNI multiplies 64 bytes and adds them up in fours in one instruction; from some share of
events on that beats looking at each. Elsewhere the text falls away and events are handed out as ever. Both give the
same integers: products and sums are exact.
"""

from dataclasses import dataclass

import numpy as np

from targets.loihi.c.program import Geometry, Population, Synapses

LANES = 16
GUARD = "#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)"
DOT = f"""\
{GUARD}
/* a + the products of four bytes each. Where the intrinsic stands, gcc 12 copies all sums that are held, every turn. */
static inline __m512i dot(__m512i a, __m512i x, __m512i w)
{{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(a) : "v"(x), "v"(w));
    return a;
}}
#define GATHERS 1
#else
#define GATHERS 0
#endif"""
EVENT, ADD = 5.0, 1.3
"""Cycles that an event takes, and every vector of sums that it adds to, about."""
PRODUCT, ADDED, COPIED = 0.5, 1.5, 0.1
"""Cycles of 16 times 4 products, of 16 sums that are added, and of an input that is copied, about."""
INTERLEAVED = 4
"""Channels of the Input that are interleaved by name."""
HELD = 18
"""Vectors of sums that are held at a time: those beyond 8 or so cover what a product waits for the one before."""


@dataclass(frozen=True)
class Gather:
    """The gathering twin of a connection.

    Args:
        lines: its function.
        weights: the table that it reads.
        fields: of the state.
        events: so many in a step make it the faster one.
    """

    lines: list[str]
    weights: np.ndarray
    fields: list[str]
    events: int


def gather(p: Population, s: Synapses, source: Geometry, row: int) -> Gather | None:
    """The function that gathers, for a dense layer or a plain convolution of 8-bit weights; None where there is none.

    Args:
        row: elements of a row of sums.
    """
    if s.weight.max() > 127 or s.weight.min() < -128:
        return None
    if s.axes is None:
        return _dense(p, s) if p.geometry.height * p.geometry.width == 1 else None
    if s.even is None or s.conv[1].dilation != 1:
        return None
    return _conv(p, s, source, row)


def _quads(values: np.ndarray) -> np.ndarray:
    """(rows, inputs, out) -> (rows, inputs / 4, out, 4), filled up with zeros to fours and whole vectors."""
    rows, inputs, out = values.shape
    filled = np.zeros((rows, -(-inputs // 4) * 4, -(-out // LANES) * LANES), np.int8)
    filled[:, :inputs, :out] = values
    return np.ascontiguousarray(filled.reshape(rows, -1, 4, filled.shape[2]).swapaxes(2, 3))


def _conv(p: Population, s: Synapses, source: Geometry, row: int) -> Gather:
    (down, across), (out, inputs, height, width) = s.conv, s.weight.shape
    quads = _quads(s.weight.transpose(2, 3, 1, 0).reshape(height, width * inputs, out))
    blocks, each = quads.shape[2] // LANES, quads.shape[1]
    g = p.geometry
    # the picture with a margin of zeros, as wide as the outputs reach
    rows = max(source.height + down.padding, (g.height - 1) * down.stride + (height - 1) * down.dilation + 1)
    columns = max(source.width + across.padding, (g.width - 1) * across.stride + width)
    line, most = columns * inputs, max(1, HELD // blocks)
    count = -(-g.width // most)  # runs of places, as long as one another or one longer
    length, longer = divmod(g.width, count)
    lines = [GUARD, f"static void {s.name}_gather(struct state *s, const uint8_t *restrict in, "
             f"{'int16_t' if p.narrow else 'int32_t'} *restrict sum, const int8_t *restrict weights)", "{",
             f"    uint8_t *restrict const picture = s->{s.name}_picture;",
             f"    for (int32_t y = 0; y < {source.height}; y++)",
             *_copied(source, inputs, f"(y + {down.padding}) * {line} + {across.padding * inputs}"),
             f"    for (int32_t y = 0; y < {g.height}; y++) {{"]
    taps = f"k * {down.dilation * line} + 4 * q", f"(k * {each} + q) * {blocks * 64}"
    for places, begin, end in ((length + 1, 0, longer * (length + 1)), (length, longer * (length + 1), g.width)):
        if begin == end:
            continue
        lines += [f"        for (int32_t x = {begin}; x < {end}; x += {places}) {{",
                  f"            const uint8_t *restrict at = picture + y * {down.stride * line} + x * "
                  f"{across.stride * inputs};",
                  *(f"            __m512i a{n}_{b} = _mm512_setzero_si512();" for n in range(places)
                    for b in range(blocks)),
                  f"            for (int32_t k = 0; k < {height}; k++)",
                  f"                for (int32_t q = 0; q < {each}; q++) {{",
                  f"                    const uint8_t *restrict from = at + {taps[0]};",
                  "                    __m512i x4;", "                    int32_t four;",
                  *(f"                    const __m512i w{b} = _mm512_loadu_si512(weights + {taps[1]} + {b * 64});"
                    for b in range(blocks))]
        for n in range(places):
            lines += [f"                    __builtin_memcpy(&four, from + {n * across.stride * inputs}, 4);",
                      "                    x4 = _mm512_set1_epi32(four);",
                      *(f"                    a{n}_{b} = dot(a{n}_{b}, x4, w{b});"
                        for b in range(blocks))]
        lines += ["                }", f"            {'int16_t' if p.narrow else 'int32_t'} *restrict to = sum + "
                  f"(y + {p.margin.top}) * {row} + (x + {p.margin.left}) * {g.channels};",
                  *(f"            {line}" for n in range(places)
                    for line in _add(p, out, [f"a{n}_{b}" for b in range(blocks)], n * g.channels)), "        }"]
    cost = g.height * g.width * blocks * (height * each * PRODUCT + ADDED) + source.size * COPIED
    lanes = 2 * LANES if p.narrow and out % (2 * LANES) == 0 else LANES
    event = EVENT + ADD * s.filled[0] * -(-s.filled[1] * out // lanes)
    return Gather([*lines, "    }", "}", "#endif"], quads.reshape(-1),
                  [f"uint8_t {s.name}_picture[{rows * line + 64}];"], int(cost / event) + 1)


def _copied(source: Geometry, inputs: int, begin: str) -> list[str]:
    """A row of the source into the picture, channels of a place together."""
    if not source.planes or inputs == 1:
        return [f"        for (int32_t i = 0; i < {source.width * inputs}; i++)",
                f"            picture[{begin} + i] = in[y * {source.width * inputs} + i];"]
    # few channels are written out: gcc 12 interleaves them then, and copies one by one what stands in a loop
    channels = [str(c) for c in range(inputs)] if inputs <= INTERLEAVED else ["c"]
    loop = [f"            for (int32_t c = 0; c < {inputs}; c++)"] if inputs > INTERLEAVED else []
    return [f"        for (int32_t x = 0; x < {source.width}; x++) {{", *loop,
            *(f"            {'    ' * len(loop)}picture[{begin} + x * {inputs} + {c}] = "
              f"in[{c} * {source.height * source.width} + y * {source.width} + x];" for c in channels), "        }"]


def _dense(p: Population, s: Synapses) -> Gather | None:
    out, inputs = s.weight.shape
    quads = _quads(s.weight.T[None])
    blocks, each = quads.shape[2] // LANES, quads.shape[1]
    if blocks > 8:
        return None
    sums, whole = "int16_t" if p.narrow else "int32_t", inputs // 4
    chains = 4 if blocks == 1 else 2 if blocks == 2 else 1
    names = [[f"a{c}_{b}" for b in range(blocks)] for c in range(chains)]
    lines = [GUARD, f"static void {s.name}_gather(const uint8_t *restrict in, {sums} *restrict to, "
             "const int8_t *restrict weights)", "{",
             *(f"    __m512i {name} = _mm512_setzero_si512();" for group in names for name in group),
             "    int32_t q = 0;", f"    for (; q + {chains} <= {whole}; q += {chains}) {{",
             f"        int32_t four[{chains}];",
             f"        __builtin_memcpy(four, in + 4 * q, {4 * chains});",
             *(f"        {names[c][b]} = dot({names[c][b]}, _mm512_set1_epi32(four[{c}]), "
               f"_mm512_loadu_si512(weights + ((q + {c}) * {blocks} + {b}) * 64));"
               for c in range(chains) for b in range(blocks)), "    }",
             f"    for (; q < {each}; q++) {{", "        int32_t four = 0;",
             f"        __builtin_memcpy(&four, in + 4 * q, {f'q < {whole} ? 4 : {inputs % 4}' if inputs % 4 else 4});",
             *(f"        {names[0][b]} = dot({names[0][b]}, _mm512_set1_epi32(four), "
               f"_mm512_loadu_si512(weights + (q * {blocks} + {b}) * 64));" for b in range(blocks)), "    }",
             *(f"    {names[0][b]} = _mm512_add_epi32({names[0][b]}, {names[c][b]});"
               for c in range(1, chains) for b in range(blocks)),
             *(f"    {line}" for line in _add(p, out, names[0], 0)), "}", "#endif"]
    return Gather(lines, quads.reshape(-1), [], int((each * blocks * 1.9 + 30) / (EVENT / 4 + ADD * blocks)) + 1)


def _add(p: Population, out: int, names: list[str], offset: int) -> list[str]:
    """The collected sums of `out` channels onto those in memory, from `to` + `offset` on."""
    lines = []
    for block, name in enumerate(names):
        at, mask = f"to + {offset + block * LANES}", (1 << min(LANES, out - block * LANES)) - 1
        if p.narrow:
            lines.append(f"_mm256_mask_storeu_epi16({at}, {mask:#x}, _mm256_add_epi16(_mm512_cvtepi32_epi16("
                         f"{name}), _mm256_maskz_loadu_epi16({mask:#x}, {at})));")
        else:
            lines.append(f"_mm512_mask_storeu_epi32({at}, {mask:#x}, _mm512_add_epi32({name}, "
                         f"_mm512_maskz_loadu_epi32({mask:#x}, {at})));")
    return lines
