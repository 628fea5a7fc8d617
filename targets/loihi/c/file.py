"""A network as one C file for any machine, its header, and a self-test with one recorded sample.

C99 with `<stdint.h>` alone: no heap, no floats, no library. All state is in one struct.
"""

import re
from dataclasses import dataclass

import numpy as np

from hardspike import HardspikeError
from targets.loihi.c.constants import Constants
from targets.loihi.c.form import comment
from targets.loihi.c.functions import Functions
from targets.loihi.c.program import Names, Population, Program, build
from targets.loihi.c.readout import Outlet, outlet
from targets.loihi.layers import Network

LONGEST_TEXT = 1 << 28
"""Characters; beyond, compilers run out of memory."""
PRIMITIVES = {
    "events": """\
/* Lists the places of in that are not zero, of `size` many; returns how many there are. */
static int32_t events(const uint8_t *restrict in, int32_t size, uint8_t *restrict list)
{
    int32_t count = 0;
    for (int32_t i = 0; i < size; i++)
        if (in[i])
            list[count++] = (uint8_t)i;
    return count;
}""",
    "decay": """\
/* x * keep / 4096, rounded towards zero. The product may need 36 bits, so it is made of two that fit in 32. */
static int32_t decay(int32_t x, int32_t keep)
{
    const int32_t size = x < 0 ? -x : x;
    const int32_t kept = (size >> 12) * keep + (((size & 4095) * keep) >> 12);
    return x < 0 ? -kept : kept;
}""",
    "decay_small": """\
/* x * keep / 4096, rounded towards zero, where the product is known to fit. */
static int32_t decay_small(int32_t x, int32_t keep)
{
    return x * keep / 4096;
}""",
    "decay_wide": """\
/* x * keep / 4096, rounded towards zero, for a current that may leave 24 bits. */
static int64_t decay_wide(int64_t x, int32_t keep)
{
    return x * keep / 4096;
}"""}


@dataclass(frozen=True)
class CFile:
    """What was written.

    Args:
        name: prefix of its functions, stem of its files.
        text, header: the two files.
        program, outlet: what they hold.
        constants, state: bytes in memory; the state as a 32-bit machine lays it out, padding aside.
    """

    name: str
    text: str
    header: str
    program: Program
    outlet: Outlet
    constants: int
    state: int

    @property
    def out_type(self) -> str:
        """C type of what a step gives."""
        return "int32_t" if self.outlet.sums else "uint8_t"


def write(network: Network, name: str, largest: int, about: str = "") -> CFile:
    """The C of a network whose rules have been checked.

    Args:
        name: of the file, without suffix; made an identifier.
        largest: value that the input may have; 1: an event counts as 1 whatever its value.
        about: where it comes from, one line for the file's head.

    Raises:
        HardspikeError: what C, or this generator, cannot hold, by name.
    """
    if not 1 <= largest <= 255:
        raise HardspikeError(f"input values up to {largest}: a step in C takes bytes, 0 to 255; bin fewer events")
    prefix = Names().take(name)
    taken = (prefix, f"{prefix}_reset", f"{prefix}_step")
    program = build(network, float("inf"), largest, taken=taken)
    given = outlet(network, program, taken)
    constants = Constants(apart=False)
    functions = Functions(program, False, constants)
    written = functions.all()
    if given.sums:
        for s in given.sums.synapses:
            written += ["", *functions.synapses(given.sums, s)]
        written += ["", *_scores(functions, given.sums)]
    fields = [*functions.state(given.sums), *_kept(program, given)]
    body = "\n".join([*_used(written), *written])
    struct = ["static struct {", *(f"    {field}" for field in fields), "} state;"]
    text = "\n".join([*_head(prefix, program, given, about), f'#include "{prefix}.h"', "", *struct,
                      *constants.tables(_comments(program, given)), "", body, "", *_reset(prefix, fields), "",
                      *_step(prefix, program, given), ""])
    if len(text) > LONGEST_TEXT:
        raise HardspikeError(f"{name}: {len(text)} characters of C, at most {LONGEST_TEXT}; make the network smaller")
    return CFile(prefix, text, _header(prefix, program, given), program, given, constants.bytes, _bytes(fields))


def _head(prefix: str, program: Program, given: Outlet, about: str) -> list[str]:
    shape = " x ".join(map(str, program.shape))
    lines = ["/*", f" * {prefix}: a spiking network in integers{f', {comment(about)}' if about else ''}.", " *",
             f" *     {prefix}_reset();                  state as before the first step",
             f" *     {prefix}_step(in, out);            one time step", " *",
             f" * in is {shape} bytes, channel by channel, each row by row: "
             + (f"how many events, 0 to {program.largest}." if program.graded else "0 or an event."),
             f" * out is {' x '.join(map(str, given.shape))} "
             + ("sums, to be added up over time by the caller; the largest is the class." if given.sums else
                "bytes: the spikes of this step."), " *",
             " * What a layer does in a step, all in integers, as Loihi and Lava compute:", " *",
             " *     u = decay(u) + 64 * (weights of the events that reach the neuron)",
             " *     v = decay(v) + u + bias, spike where v > threshold, then back to zero (or less a threshold)",
             " *",
             " * Thresholds and biases stand here times 64. A layer of C x H x W neurons is stored row by row, all",
             " * channels of a place together, so that an event adds a run of weights to a run of sums. Sums have a",
             " * margin: a convolution writes over the picture's edge without asking. A row of neurons that no event",
             " * has reached yet is skipped: nothing in it can change.", " *"]
    for p in program.populations.values():
        heard = ", ".join(comment(program.populations[s.source].label) if s.source else "the input" for s in p.synapses)
        lines.append(f" * {p.name}: {p.geometry.size} neurons, hears {heard or 'nothing'}")
    return [*lines, " */"]


def _used(lines: list[str]) -> list[str]:
    """The helpers that the functions call."""
    text = "\n".join(lines)
    return [f"\n{code}" for name, code in PRIMITIVES.items() if re.search(rf"\b{name}\(", text)]


def _comments(program: Program, given: Outlet) -> dict[str, str]:
    found = {}
    for p in (*program.populations.values(), *([given.sums] if given.sums else [])):
        for s in p.synapses:
            shape = " x ".join(map(str, s.weight.shape))
            order = ("a row for each input place" if s.axes is None else
                     "stored by place modulo stride, [in][tap row][tap column][out]")
            found[f"{s.name}_weights"] = f"{comment(s.label)[:40]}, {shape} (out, in, ...); {order}"
    return found


def _kept(program: Program, given: Outlet) -> list[str]:
    """The spikes that are read again: of this step, and of earlier ones where somebody hears them late."""
    fields = []
    for source, size, slots in _sources(program, given):
        if slots == 1 and source:
            fields.append(f"uint8_t {source}_spikes[{size}];")
        elif slots > 1:
            fields += [f"uint8_t {source or 'in'}_spikes[{slots}][{size}];", f"uint8_t {source or 'in'}_now[1];"]
    return fields


def _sources(program: Program, given: Outlet) -> list[tuple[str, int, int]]:
    """(key, elements, steps that are kept) of the Input and of every layer."""
    longest = dict.fromkeys(("", *program.populations), 0)
    for p in (*program.populations.values(), *([given.sums] if given.sums else [])):
        for s in p.synapses:
            longest[s.source] = max(longest[s.source], s.delay)
    return [(key, program.geometry(key).size, 1 + late) for key, late in longest.items()]


def kept_slots(program: Program, given: Outlet) -> dict[str, int]:
    """Steps of spikes that are kept of the Input ("") and of every layer."""
    return {key: slots for key, _, slots in _sources(program, given)}


def _bytes(fields: list[str]) -> int:
    total = 0
    for field in fields:
        kind, rest = field.split(" ", 1)
        sizes = [int(part.rstrip("];")) for part in rest.split("[")[1:]]
        total += int(np.prod(sizes)) * {"uint8_t": 1, "int16_t": 2, "int32_t": 4, "int64_t": 8}[kind]
    return total


def _reset(prefix: str, fields: list[str]) -> list[str]:
    lines = []
    for field in fields:
        name, *sizes = field.split(" ", 1)[1].rstrip(";").split("[")
        sizes = [size.rstrip("]") for size in sizes]
        at = "[i]" if len(sizes) == 1 else f"[i / {sizes[1]}][i % {sizes[1]}]"
        total = " * ".join(sizes)
        lines += [f"    for (int32_t i = 0; i < {total}; i++)", f"        state.{name}{at} = 0;"]
    return [f"void {prefix}_reset(void)", "{", *lines, "}"]


def _step(prefix: str, program: Program, given: Outlet) -> list[str]:
    slots = kept_slots(program, given)
    size = program.input.size

    def heard(source: str, late: int) -> str:
        if slots[source] == 1:
            return f"state.{source}_spikes" if source else "in"
        name = source or "in"
        if not late:
            return f"state.{name}_spikes[state.{name}_now[0]]"
        return f"state.{name}_spikes[(state.{name}_now[0] + {slots[source] - late}) % {slots[source]}]"

    kind = "int32_t" if given.sums else "uint8_t"
    lines = [f"void {prefix}_step(const uint8_t in[{size}], {kind} out[{int(np.prod(given.shape))}])", "{"]
    if slots[""] > 1:
        lines += [f"    for (int32_t i = 0; i < {size}; i++)", f"        {heard('', 0)}[i] = in[i];"]
    for p in program.populations.values():
        arguments = ", ".join([*(heard(s.source, s.delay) for s in p.synapses), heard(p.name, 0)])
        lines.append(f"    {p.name}({arguments});")
    lines += _out(given, program, heard)
    for key, count in slots.items():
        if count > 1:
            now = f"state.{key or 'in'}_now[0]"
            lines.append(f"    {now} = (uint8_t)(({now} + 1) % {count});")
    return [*lines, "}"]


def _out(given: Outlet, program: Program, heard) -> list[str]:
    if given.sums:
        arguments = ", ".join([*(heard(s.source, s.delay) for s in given.sums.synapses), "out"])
        return [f"    {given.sums.name}({arguments});"]
    lines = []
    for number, key in enumerate(given.spikes):
        g = program.geometry(key)
        spikes = f"state.{key}_spikes" if "[" not in heard(key, 0).removeprefix("state.") else heard(key, 0)
        at = "i" if g.height * g.width == 1 or g.channels == 1 else \
            f"i % {g.height * g.width} * {g.channels} + i / {g.height * g.width}"
        value = f"(uint8_t)(out[i] + {spikes}[{at}])" if number else f"{spikes}[{at}]"
        lines += [f"    for (int32_t i = 0; i < {g.size}; i++)", f"        out[i] = {value};"]
    return lines


def _scores(functions: Functions, p: Population) -> list[str]:
    """The readout: sums without neurons."""
    rows, row, g, m = p.sums[0], functions.row(p), p.geometry, p.margin
    sources = [f"const uint8_t *restrict from{i}" for i in range(len(p.synapses))]
    lines = ["/* The readout: weighted spikes and a bias, in (C, H, W) order. */",
             f"static void {p.name}({', '.join([*sources, 'int32_t *restrict out'])})", "{",
             "    int32_t *const sum = state.wide_sum;",
             *(f"    {s.name}(from{i}, sum);" for i, s in enumerate(p.synapses))]
    place = "0" if g.size == 1 else "i" if g.height * g.width == 1 else (
        f"({f'i / {g.width} % {g.height}' if g.height > 1 else '0'} + {m.top}) * {row} + (i % {g.width} + {m.left}) * "
        f"{g.channels} + i / {g.height * g.width}")
    bias = functions.constants.add(f"{p.name}_bias", p.bias.astype(np.int32)[np.argsort(g.order())]) \
        if p.bias.any() else ""
    return [*lines, f"    for (int32_t i = 0; i < {g.size}; i++)",
            f"        out[i] = sum[{place}]{f' + {bias}[i]' if bias else ''};",
            f"    for (int32_t i = 0; i < {rows * row}; i++)", "        sum[i] = 0;", "}"]


def _header(prefix: str, program: Program, given: Outlet) -> str:
    upper, kind = prefix.upper(), "int32_t" if given.sums else "uint8_t"
    outputs = int(np.prod(given.shape))
    return "\n".join([
        f"#ifndef {upper}_H", f"#define {upper}_H", "", "#include <stdint.h>", "", "#ifdef __cplusplus",
        'extern "C" {', "#endif", "", f"#define {upper}_INPUTS {program.input.size}",
        f"#define {upper}_INPUT_MAX {program.largest}", f"#define {upper}_OUTPUTS {outputs}", "",
        "/* State as before the first step. */", f"void {prefix}_reset(void);", "",
        "/* One time step: input events, channel by channel and row by row; "
        + ("the readout's sums of this step. */" if given.sums else "output spikes of this step. */"),
        f"void {prefix}_step(const uint8_t in[{upper}_INPUTS], {kind} out[{upper}_OUTPUTS]);", "", "#ifdef __cplusplus",
        "}", "#endif", "", "#endif", ""])
