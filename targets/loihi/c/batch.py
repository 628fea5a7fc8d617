"""The same functions around a batch: what the simulator compiles and calls.

Beside the functions of `functions` (fast form) there is a loop over samples, groups of layers and steps. A
layer that is in no loop runs through all its steps before the next one does, so that its state stays in the core's
nearest memory. The text depends on the network's shape, not on its numbers: what a search over weights tries is
compiled once.
"""

from targets.loihi.c.constants import Constants
from targets.loihi.c.fast import VECTORS, Fast
from targets.loihi.c.functions import Functions
from targets.loihi.c.gather import DOT
from targets.loihi.c.program import Population, Program

EVENTS = """\
#if defined(__AVX512VBMI2__) && defined(__AVX512BW__)
/* The first places of a block of 64, counted from start. */
static inline void put(list_t *list, __m512i packed, int32_t start, int32_t found)
{
    if (sizeof(list_t) == 2) {
        const __m512i first = _mm512_set1_epi16((int16_t)start);
        _mm256_storeu_si256((__m256i *)list, _mm256_add_epi16(_mm256_cvtepu8_epi16(_mm512_castsi512_si128(packed)),
                                                              _mm512_castsi512_si256(first)));
        if (found > 16) {  /* seldom: the branch is foreseen */
            _mm512_storeu_si512(list, _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(packed)), first));
            _mm512_storeu_si512(list + 32, _mm512_add_epi16(_mm512_cvtepu8_epi16(
                _mm512_extracti64x4_epi64(packed, 1)), first));
        }
        return;
    }
    for (int32_t k = 0; k < found; k += 16) {
        _mm512_storeu_si512(list + k, _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(packed)),
                                                       _mm512_set1_epi32(start)));
        packed = _mm512_shuffle_i32x4(packed, packed, 0x39);
    }
}
#endif

/* The places of in that are not zero; returns how many there are, or some number of at least enough. */
static int32_t events(const uint8_t *restrict in, int32_t size, int32_t enough, list_t *restrict list)
{
    int32_t count = 0, i = 0;
#if defined(__AVX512VBMI2__) && defined(__AVX512BW__)
    static const uint8_t numbers[64] = {
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
        30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57,
        58, 59, 60, 61, 62, 63};
    const __m512i lanes = _mm512_loadu_si512(numbers);
    for (; i < size && count < enough; i += 64) {
        const __mmask64 there = size - i < 64 ? ((__mmask64)1 << (size - i)) - 1 : ~(__mmask64)0;
        const __m512i bytes = _mm512_maskz_loadu_epi8(there, in + i);
        const __mmask64 hot = _mm512_test_epi8_mask(bytes, bytes);
        const int32_t found = __builtin_popcountll(hot);
        put(list + count, _mm512_maskz_compress_epi8(hot, lanes), i, found);
        count += found;
    }
#else
    for (; i + 16 <= size && count < enough; i += 16) {
        uint8_t any = 0;
        for (int32_t k = 0; k < 16; k++)
            any |= in[i + k];
        if (any)
            for (int32_t k = 0; k < 16; k++) {
                list[count] = (list_t)(i + k);
                count += in[i + k] != 0;
            }
    }
    for (; i < size; i++) {
        list[count] = (list_t)i;
        count += in[i] != 0;
    }
#endif
    return count;
}

/* How many of these spikes are 1. */
static int64_t fired(const uint8_t *restrict spikes, int32_t size)
{
    int64_t count = 0;
    int32_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t eight;
        __builtin_memcpy(&eight, spikes + i, 8);
        count += __builtin_popcountll(eight);
    }
    for (; i < size; i++)
        count += spikes[i];
    return count;
}"""
TAKEN = """\
/* One step of the input as bytes. What it holds is noted; the next step is called for, which lies on another page. */
static const uint8_t *taken(struct state *s, const void *in, int64_t at, int32_t which)
{{
    const uint8_t *restrict bytes = (const uint8_t *)in + at;
    if (s->floats) {{
        const float *restrict numbers = (const float *)in + at;
        uint8_t *restrict to = s->given[which];
        int32_t odd = 0;
        for (int32_t i = 0; i < {size}; i += 16)
            __builtin_prefetch(numbers + i + s->ahead);
        for (int32_t i = 0; i < {size}; i++) {{
            const float number = numbers[i], held = number >= 0 ? number : 0;
            to[i] = (uint8_t)(int32_t)(held <= 255 ? held : 0);
        }}
        for (int32_t i = 0; i < {size}; i++)
            odd |= (float)to[i] != numbers[i];
        s->odd |= odd;
        bytes = to;
    }} else
        for (int32_t i = 0; i < {size}; i += 64)
            __builtin_prefetch(bytes + i + s->ahead);
    uint8_t most = 0;
    for (int32_t i = 0; i < {size}; i++)
        most = bytes[i] > most ? bytes[i] : most;
    s->most = most > s->most ? most : s->most;
    return bytes;
}}"""
WIDE_EVENTS = """\
static int32_t events_wide(const int32_t *restrict in, int32_t size, int32_t enough, list_t *restrict list)
{
    int32_t count = 0;
    for (int32_t i = 0; i < size; i++) {
        list[count] = (list_t)i;
        count += in[i] != 0;
    }
    return count;
}"""
DECAY = """\
/* x * keep / 4096, rounded towards zero; keep comes divided. Exact up to 24 bits: the product is rounded so too. */
static inline int32_t decay(int32_t x, float keep)
{
    return (int32_t)((float)x * keep);
}

static inline int64_t decay_wide(int64_t x, int32_t keep)
{
    return x * keep / 4096;
}"""
ARGUMENTS = ("struct state *restrict s, const void *in, uint8_t *const *spikes, int32_t *const *membranes, "
             "int64_t *const *counts, const int64_t *strides, int64_t steps, int64_t b")


def source(program: Program) -> tuple[str, Constants]:
    """The simulator's C, and the constants that it is called with, in order."""
    constants = Constants(apart=True)
    functions = Fast(program, True, constants)
    written = functions.all()
    wide = functions.input_type("") == "int32_t"
    heard = max(sum(not s.source for s in p.synapses) for p in program.populations.values())
    fields = ["const void *const *data;", "int64_t ahead;", "int32_t floats;", "int32_t most;", "int32_t odd;",
              _aligned(f"list_t list[{functions.list_length() + 64}];"),
              *([] if wide else [f"uint8_t given[{max(1, heard)}][{program.input.size}];"]),
              *(_aligned(line) for line in functions.state())]
    lines = ["#include <fenv.h>", "#include <stdint.h>", "#if defined(__AVX2__)", "#include <immintrin.h>",
             "#endif", f"typedef {functions.list_type('')} list_t;", "struct state {", *(f"    {f}" for f in fields),
             "};", "", EVENTS, WIDE_EVENTS if wide else TAKEN.format(size=program.input.size), VECTORS, DOT, DECAY,
             *written, "", *_groups(program, functions)]
    return "\n".join(lines) + "\n", constants


def _aligned(field: str) -> str:
    """A field from a whole cache line on: vectors that lie across two cost twice."""
    kind, rest = field.split(" ", 1)
    return f"{kind} __attribute__((aligned(64))) {rest}"


def _groups(program: Program, functions: Functions) -> list[str]:
    groups: dict[int, list[Population]] = {}
    for p in program.populations.values():
        groups.setdefault(p.group, []).append(p)
    lines: list[str] = []
    for index, members in enumerate(groups.values()):
        lines += [f"static void group{index}({ARGUMENTS})", "{"]
        for p in members:
            lines += _cleared(p, functions)
        lines += ["    for (int64_t t = 0; t < steps; t++) {", *(line for p in members for line in
                                                               _called(program, functions, p)), "    }", "}", ""]
    values = "s, in, spikes, membranes, counts, strides, steps, b"
    calls = [f"        if (group < 0 || group == {i})\n            group{i}({values});" for i in range(len(groups))]
    return [*lines, "int64_t state_size(void)", "{", "    return sizeof(struct state);", "}", "",
            "/* Samples first to last through one group of layers, or all (-1). strides: of every layer, and last of "
            "the input, elements between two steps and between two samples. counts: spikes of each layer and sample, "
            "or 0. Returns the largest input, 256 where that is no byte. */",
            "int32_t simulate(const void *const *data, void *memory, const void *in, uint8_t *const *spikes, "
            "int32_t *const *membranes, int64_t *const *counts, const int64_t *strides, const int64_t *of)", "{",
            "    struct state *s = memory;", "    const int64_t steps = of[0], first = of[1], last = of[2], "
            "group = of[3];", "    const int rounding = fegetround();", "    s->floats = (int32_t)of[4];",
            "    s->data = data;", "    fesetround(FE_TOWARDZERO);",
            "    for (int64_t b = first; b < last; b++) {", *calls, "    }", "    fesetround(rounding);",
            "    return s->odd ? 256 : s->most;", "}"]


def _cleared(p: Population, functions: Functions) -> list[str]:
    """The state of a layer before the first step."""
    lines = []
    for field in functions.state():
        kept = field.split()[1].split("[")
        if kept[0] in (f"{p.name}_v", f"{p.name}_u", f"{p.name}_awake"):
            lines += [f"    for (int32_t i = 0; i < {kept[1].rstrip('];')}; i++)", f"        s->{kept[0]}[i] = 0;"]
    return [*lines, *([f"    s->{p.name}_asleep = {p.geometry.height};"] if p.rests else [])]


def _called(program: Program, functions: Functions, p: Population) -> list[str]:
    """One step of a layer: the call of its function, with the spikes that it hears."""
    number = {name: i for i, name in enumerate(program.populations)}
    given, before, inputs = [], [], 0
    for synapse in p.synapses:
        late, k = synapse.delay, number[synapse.source] if synapse.source else len(number)
        at = f"(t{f' - {late}' if late else ''}) * strides[{2 * k}] + b * strides[{2 * k + 1}]"
        place = f"spikes[{k}] + {at}"
        if not synapse.source and functions.input_type("") == "int32_t":
            place = f"(const int32_t *)in + {at}"
        elif not synapse.source:
            before = [f"        s->ahead = t + 1 < steps ? strides[{2 * k}] : 0;"]
            place, inputs = f"taken(s, in, {at}, {inputs})", inputs + 1
        given.append(f"t >= {late} ? {place} : 0" if late else place)
    own = number[p.name]
    at = f"t * strides[{2 * own}] + b * strides[{2 * own + 1}]"
    given += [f"membranes[{own}] ? membranes[{own}] + {at} : 0", f"spikes[{own}] + {at}"]
    return [*before, f"        {p.name}(s, {', '.join(given)});", f"        if (counts[{own}])",
            f"            counts[{own}][b] += fired(spikes[{own}] + {at}, {p.geometry.size});"]
