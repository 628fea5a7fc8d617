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
EVENT, ROW = 8.0, 3.0
"""Cycles that an event takes, and every 32 sums that it adds to, about."""


@dataclass(frozen=True)
class Gather:
    """The gathering twin of a connection.

    Args:
        lines: its function.
        weights: the table that it reads.
        fields: of the state.
        events: so many in a step make it the faster one.
        listed: there is a second function, for fewer events, that adds their weights up in registers.
    """

    lines: list[str]
    weights: np.ndarray
    fields: list[str]
    events: int
    listed: bool = False


def gather(p: Population, s: Synapses, source: Geometry, row: int) -> Gather | None:
    """The function that gathers, for a dense layer or a plain convolution of 8-bit weights; None where there is none.

    Args:
        row: elements of a row of sums.
    """
    if s.weight.max() > 127 or s.weight.min() < -128:
        return None
    if s.axes is None:
        return _dense(p, s, row) if p.geometry.height * p.geometry.width == 1 else None
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
    dilation = down.dilation
    quads = _quads(s.weight.transpose(2, 3, 1, 0).reshape(height, width * inputs, out))
    blocks, each = quads.shape[2] // LANES, quads.shape[1]
    g, m = p.geometry, p.margin
    # the picture with a margin of zeros, as wide as the outputs reach
    rows = max(source.height + down.padding, (g.height - 1) * down.stride + (height - 1) * dilation + 1)
    columns = max(source.width + across.padding, (g.width - 1) * across.stride + width)
    line = columns * inputs
    name, sums = s.name, "int16_t" if p.narrow else "int32_t"
    inner = source.width * inputs
    begin = f"(y + {down.padding}) * {line} + {across.padding * inputs}"
    if source.planes and inputs > 1:
        copy = [f"        for (int32_t x = 0; x < {source.width}; x++)",
                f"            for (int32_t c = 0; c < {inputs}; c++)",
                f"                picture[{begin} + x * {inputs} + c] = "
                f"in[c * {source.height * source.width} + y * {source.width} + x];"]
    else:
        copy = [f"        for (int32_t i = 0; i < {inner}; i++)",
                f"            picture[{begin} + i] = in[y * {inner} + i];"]
    lines = [GUARD, f"static void {name}_gather(struct state *s, const uint8_t *restrict in, {sums} *restrict sum, "
             f"const int8_t *restrict weights)", "{", f"    uint8_t *restrict const picture = s->{name}_picture;",
             f"    for (int32_t y = 0; y < {source.height}; y++)", *copy,
             f"    for (int32_t y = 0; y < {g.height}; y++)", f"        for (int32_t x = 0; x < {g.width}; x++) {{",
             f"            const uint8_t *restrict at = picture + y * {down.stride * line} + "
             f"x * {across.stride * inputs};", f"            __m512i a[{blocks}];",
             *(f"            a[{b}] = _mm512_setzero_si512();" for b in range(blocks)),
             f"            for (int32_t k = 0; k < {height}; k++)",
             f"                for (int32_t q = 0; q < {each}; q++) {{", "                    int32_t four;",
             f"                    __builtin_memcpy(&four, at + k * {dilation * line} + 4 * q, 4);",
             "                    const __m512i x4 = _mm512_set1_epi32(four);",
             *(f"                    a[{b}] = _mm512_dpbusd_epi32(a[{b}], x4, _mm512_loadu_si512(weights + "
               f"((k * {each} + q) * {blocks} + {b}) * 64));" for b in range(blocks)), "                }",
             f"            {sums} *restrict to = sum + (y + {m.top}) * {row} + (x + {m.left}) * {g.channels};",
             *(f"            {line}" for line in _add(p, out, "a")), "        }", "}", "#endif"]
    event = EVENT + ROW * s.filled[0] * -(-s.filled[1] * out // 32)
    cost = g.height * g.width * (height * each * (blocks + 1) * 0.6 + 12) + source.size * 0.3
    return Gather(lines, quads.reshape(-1), [f"uint8_t {name}_picture[{rows * line + 64}];"], int(cost / event) + 1)


def _dense(p: Population, s: Synapses, row: int) -> Gather | None:
    out, inputs = s.weight.shape
    quads = _quads(s.weight.T[None])
    blocks, each = quads.shape[2] // LANES, quads.shape[1]
    if blocks > 8:
        return None
    sums, whole = "int16_t" if p.narrow else "int32_t", inputs // 4
    chains = 4 if blocks == 1 else 2 if blocks == 2 else 1
    names = [[f"a{c}[{b}]" for b in range(blocks)] for c in range(chains)]
    lines = [GUARD, f"static void {s.name}_gather(const uint8_t *restrict in, {sums} *restrict to, "
             "const int8_t *restrict weights)", "{",
             *(f"    __m512i a{c}[{blocks}];" for c in range(chains)),
             *(f"    {name} = _mm512_setzero_si512();" for group in names for name in group),
             "    int32_t q = 0;", f"    for (; q + {chains} <= {whole}; q += {chains}) {{",
             f"        int32_t four[{chains}];",
             f"        __builtin_memcpy(four, in + 4 * q, {4 * chains});",
             *(f"        {names[c][b]} = _mm512_dpbusd_epi32({names[c][b]}, _mm512_set1_epi32(four[{c}]), "
               f"_mm512_loadu_si512(weights + ((q + {c}) * {blocks} + {b}) * 64));"
               for c in range(chains) for b in range(blocks)), "    }",
             f"    for (; q < {each}; q++) {{", "        int32_t four = 0;",
             f"        __builtin_memcpy(&four, in + 4 * q, {f'q < {whole} ? 4 : {inputs % 4}' if inputs % 4 else 4});",
             *(f"        {names[0][b]} = _mm512_dpbusd_epi32({names[0][b]}, _mm512_set1_epi32(four), "
               f"_mm512_loadu_si512(weights + (q * {blocks} + {b}) * 64));" for b in range(blocks)), "    }",
             *(f"    {names[0][b]} = _mm512_add_epi32({names[0][b]}, {names[c][b]});"
               for c in range(1, chains) for b in range(blocks)),
             *(f"    {line}" for line in _add(p, out, "a0")), "}", "#endif"]
    listed = row % LANES == 0 and not (p.margin.left or p.margin.right)
    if listed:
        lines += _listed(p, s, row, blocks)
    cost = each * blocks * 1.9 + 30
    event = EVENT / 4 + (1.0 if listed else 2.0) * blocks
    return Gather(lines, quads.reshape(-1), [], int(cost / event) + 1, listed)


def _listed(p: Population, s: Synapses, row: int, blocks: int) -> list[str]:
    """Events one by one, sums in registers: in memory, each would wait for the one before."""
    sums = "int16_t" if p.narrow else "int32_t"
    return [GUARD, f"static void {s.name}_listed(const list_t *restrict list, int32_t count, {sums} *restrict to, "
            "const int8_t *restrict weights)", "{", f"    __m512i a[{blocks}];",
            *(f"    a[{b}] = _mm512_setzero_si512();" for b in range(blocks)),
            "    for (int32_t n = 0; n < count; n++) {",
            f"        const int8_t *restrict w = weights + list[n] * {row};",
            *(f"        a[{b}] = _mm512_add_epi32(a[{b}], _mm512_cvtepi8_epi32(_mm_loadu_si128("
              f"(const __m128i *)(w + {b * LANES}))));" for b in range(blocks)), "    }",
            *(f"    {line}" for line in _add(p, len(s.weight), "a")), "}", "#endif"]


def _add(p: Population, out: int, name: str) -> list[str]:
    """The collected sums of `out` channels onto those in memory."""
    lines = []
    for block in range(-(-out // LANES)):
        at, mask = f"to + {block * LANES}", (1 << min(LANES, out - block * LANES)) - 1
        if p.narrow:
            lines.append(f"_mm256_mask_storeu_epi16({at}, {mask:#x}, _mm256_add_epi16(_mm512_cvtepi32_epi16("
                         f"{name}[{block}]), _mm256_maskz_loadu_epi16({mask:#x}, {at})));")
        else:
            lines.append(f"_mm512_mask_storeu_epi32({at}, {mask:#x}, _mm512_add_epi32({name}[{block}], "
                         f"_mm512_maskz_loadu_epi32({mask:#x}, {at})));")
    return lines
