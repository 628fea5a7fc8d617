"""The same functions around a batch: what the simulator compiles and calls.

Beside the functions of `functions` (fast form) there is a loop over samples, groups of layers and steps. A
layer that is in no loop runs through all its steps before the next one does, so that its state stays in the core's
nearest memory. The text depends on the network's shape, not on its numbers: what a search over weights tries is
compiled once.
"""

from targets.loihi.c.constants import Constants
from targets.loihi.c.functions import Functions
from targets.loihi.c.program import Population, Program

EVENTS = """\
#if defined(__AVX512VBMI2__) && defined(__AVX512BW__)
static inline void put(list_t *list, __m512i packed, int32_t start)
{
    const __m512i near = _mm512_cvtepu8_epi32(_mm512_castsi512_si128(packed));
    const __m512i wide = _mm512_add_epi32(near, _mm512_set1_epi32(start));
    if (sizeof(list_t) == 2)
        _mm256_storeu_si256((__m256i *)list, _mm512_cvtepi32_epi16(wide));
    else
        _mm512_storeu_si512(list, wide);
}
#endif

/* The places of in that are not zero; returns how many there are. */
static int32_t events(const uint8_t *restrict in, int32_t size, list_t *restrict list)
{
    int32_t count = 0, i = 0;
#if defined(__AVX512VBMI2__) && defined(__AVX512BW__)
    static const uint8_t numbers[64] = {
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
        30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57,
        58, 59, 60, 61, 62, 63};
    const __m512i lanes = _mm512_loadu_si512(numbers);
    for (; i < size; i += 64) {
        const __mmask64 there = size - i < 64 ? ((__mmask64)1 << (size - i)) - 1 : ~(__mmask64)0;
        const __m512i bytes = _mm512_maskz_loadu_epi8(there, in + i);
        const __mmask64 hot = _mm512_test_epi8_mask(bytes, bytes);
        __m512i packed = _mm512_maskz_compress_epi8(hot, lanes);
        const int32_t found = __builtin_popcountll(hot);
        put(list + count, packed, i);
        if (found > 16)  /* seldom: the branch is foreseen */
            for (int32_t k = 16; k < found; k += 16) {
                packed = _mm512_shuffle_i32x4(packed, packed, 0x39);
                put(list + count + k, packed, i);
            }
        count += found;
    }
#else
    for (; i + 16 <= size; i += 16) {
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
}"""
WIDE_EVENTS = """\
static int32_t events_wide(const int32_t *restrict in, int32_t size, list_t *restrict list)
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


def source(program: Program) -> tuple[str, Constants]:
    """The simulator's C, and the constants that it is called with, in order."""
    constants = Constants(apart=True)
    functions = Functions(program, True, constants)
    written = functions.all()
    spare = functions.list_length() + 64
    wide = functions.input_type("") == "int32_t"
    lines = ["#include <fenv.h>", "#include <stdint.h>", "#if defined(__AVX512VBMI2__)", "#include <immintrin.h>",
             "#endif", f"typedef {functions.list_type('')} list_t;", "struct state {", "    const void *const *data;",
             f"    list_t list[{spare}];", *(f"    {_aligned(line)}" for line in functions.state()), "};", "", EVENTS,
             *([WIDE_EVENTS] if wide else []), DECAY, *written, "", *_groups(program, functions)]
    return "\n".join(lines) + "\n", constants


def _aligned(field: str) -> str:
    """A field from a whole cache line on: vectors that lie across two cost twice."""
    kind, rest = field.split(" ", 1)
    return f"{kind} __attribute__((aligned(64))) {rest}"


def _groups(program: Program, functions: Functions) -> list[str]:
    groups: dict[int, list[Population]] = {}
    for p in program.populations.values():
        groups.setdefault(p.group, []).append(p)
    kind, lines = functions.input_type(""), []
    number = {name: i for i, name in enumerate(program.populations)}
    arguments = (f"struct state *restrict s, const {kind} *in, uint8_t *const *spikes, int32_t *const *membranes, "
                 "const int64_t *strides, int64_t steps, int64_t b")
    for index, members in enumerate(groups.values()):
        lines += [f"static void group{index}({arguments})", "{"]
        for p in members:
            for field in functions.state():
                kept = field.split()[1].split("[")
                if kept[0] in (f"{p.name}_v", f"{p.name}_u", f"{p.name}_awake"):
                    lines.append(f"    for (int32_t i = 0; i < {kept[1].rstrip('];')}; i++)")
                    lines.append(f"        s->{kept[0]}[i] = 0;")
        lines.append("    for (int64_t t = 0; t < steps; t++) {")
        for p in members:
            given = []
            for synapse in p.synapses:
                late, k = synapse.delay, number[synapse.source] if synapse.source else len(number)
                what = f"spikes[{k}]" if synapse.source else "in"
                place = f"{what} + (t{f' - {late}' if late else ''}) * strides[{2 * k}] + b * strides[{2 * k + 1}]"
                given.append(f"t >= {late} ? {place} : 0" if late else place)
            own = f"t * strides[{2 * number[p.name]}] + b * strides[{2 * number[p.name] + 1}]"
            given += [f"membranes[{number[p.name]}] ? membranes[{number[p.name]}] + {own} : 0",
                      f"spikes[{number[p.name]}] + {own}"]
            lines.append(f"        {p.name}(s, {', '.join(given)});")
        lines += ["    }", "}", ""]
    values = "s, in, spikes, membranes, strides, steps, b"
    calls = [f"        if (group < 0 || group == {i})\n            group{i}({values});" for i in range(len(groups))]
    return [*lines, "int64_t state_size(void)", "{", "    return sizeof(struct state);", "}", "",
            "/* Samples first to last through one group of layers, or all (-1). strides: of every layer, and last of "
            "the input, elements between two steps and between two samples. */",
            f"void simulate(const void *const *data, void *memory, const {kind} *in, uint8_t *const *spikes, "
            "int32_t *const *membranes, const int64_t *strides, const int64_t *of)", "{",
            "    struct state *s = memory;", "    const int64_t steps = of[0], first = of[1], last = of[2], "
            "group = of[3];", "    const int rounding = fegetround();",
            "    s->data = data;", "    fesetround(FE_TOWARDZERO);",
            "    for (int64_t b = first; b < last; b++) {", *calls, "    }", "    fesetround(rounding);", "}"]
