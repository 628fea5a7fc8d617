"""The C of a row of neurons: one step of all of them."""

import math

import numpy as np

from targets.loihi.bounds import SHIFT, STATE
from targets.loihi.c.constants import ctype, form, smallest
from targets.loihi.c.form import Form, comment, plus
from targets.loihi.c.program import Population


def neurons(to: Form, p: Population) -> tuple[list[str], str, list[str]]:
    """The function of a row of neurons, a call of it, and the constants that the caller hands over."""
    g, m = p.geometry, p.margin
    read: list[tuple[str, str]] = []
    left = m.left * g.channels
    kind = "int64_t" if p.wide else "int32_t"
    has_v, has_u = to.remembers_v(p), bool(p.u_keep.any())
    given = [(f"const {to.sum_type(p)} *restrict sum", f"a{plus(left)}")]
    if has_v:
        given.append(("int32_t *restrict v", f"{to.at}{p.name}_v + row"))
    if has_u:
        given.append((f"{kind} *restrict u", f"{to.at}{p.name}_u + row"))
    given.append(("uint8_t *restrict fired", "out + row"))
    if to.fast:
        given.append(("int32_t *restrict seen", "membrane ? membrane + row : 0"))
    body = [f"{kind} x = ({kind})sum[i] * {SHIFT};"]
    if has_u:
        body.append(f"x += {_decayed(to, p, 'u', read)};")
    if not p.small:
        body += [f"x = x > {STATE} ? x - {2 * STATE} : x <= -{STATE} ? x + {2 * STATE} : x;"]
    if has_u:
        body.append("u[i] = x;")
    theta = _constant(to, p, "threshold", read)
    if p.v_keep.any():
        body.append(f"x += {_decayed(to, p, 'v', read)};")
    if p.bias.any():
        body.append(f"x += {_constant(to, p, 'bias', read)};")
    if p.reset == "subtract":
        body.append(f"x -= v[i] > {theta} ? {theta} : 0;")
    if not p.small:
        body += [f"x = x > {STATE - 1} ? {STATE - 1} : x < -{STATE - 1} ? -{STATE - 1} : x;"]
    record = ["if (seen)", "    seen[i] = (int32_t)x;"] if to.fast else []
    body += [*record, f"fired[i] = x > {theta};"]
    if has_v:
        cast = "(int32_t)" if p.wide else ""
        after = {"zero": f"x > {theta} ? 0 : {cast}x", "subtract": f"{cast}x",
                 "subtract_leaky": f"{cast}(x > {theta} ? x - {theta} : x)"}
        body.append(f"v[i] = {after[p.reset]};")
    for name, how in read:
        kind = ctype(to.constants.arrays[name].dtype)
        if how == "scalar":
            given.append((f"const {kind} {name.removeprefix(f'{p.name}_')}", name))
        else:
            given.append((f"const {kind} *restrict {name.removeprefix(f'{p.name}_')}",
                          name + (" + row" if how == "full" else "")))
    heads = ", ".join(head for head, _ in given)
    inside = g.width * g.channels
    apart = "__attribute__((noinline)) " if to.fast else ""  # gcc forgets 'restrict' where it inlines
    lines = [f"/* One step of the neurons in a row of {comment(p.label)}. */",
             f"static {apart}void {p.name}_row({heads})", "{"]
    for begin, end in _whole_vectors(inside) if to.fast else [(0, inside)]:
        lines += [f"    for (int32_t i = {begin}; i < {end}; i++) {{", *(f"        {line}" for line in body),
                  "    }"]
    lines.append("}")
    return lines, f"{p.name}_row({', '.join(value for _, value in given)});", [name for name, _ in read]


def _constant(to: Form, p: Population, key: str, read: list[tuple[str, str]]) -> str:
    """An expression for a constant of neuron i of the row; `read` collects what it names and how that varies."""
    values = getattr(p, key)
    if form(values, p.geometry) == "scalar" and not to.fast:
        return str(int(values[0]))
    return _read(to, p, f"{p.name}_{key}", values.astype(np.int32) if to.fast else smallest(values), read)


def _read(to: Form, p: Population, name: str, values: np.ndarray, read: list[tuple[str, str]]) -> str:
    how, inside = form(values, p.geometry), p.geometry.width * p.geometry.channels
    to.constants.add(name, values[:1] if how == "scalar" else values[:inside] if how == "row" else values)
    if (name, how) not in read:
        read.append((name, how))
    inner = name.removeprefix(f"{p.name}_")
    return inner if how == "scalar" else f"{inner}[i]"


def _decayed(to: Form, p: Population, which: str, read: list[tuple[str, str]]) -> str:
    """What is left of a state."""
    keep = getattr(p, f"{which}_keep")
    if (keep == 4096).all():
        return f"{which}[i]"
    wide = p.wide and which == "u"
    if to.fast and not wide:
        kept = _read(to, p, f"{p.name}_{which}_kept", (keep / 4096).astype(np.float32), read)
        return f"decay({which}[i], {kept})"
    fits = p.small and math.isfinite(p.largest) and p.largest * int(keep.max()) < 1 << 31
    kind = "_wide" if wide else "_small" if fits else ""
    return f"decay{kind}({which}[i], {_constant(to, p, f'{which}_keep', read)})"


def _whole_vectors(size: int) -> list[tuple[int, int]]:
    """A loop as several, each of whole vectors of 64, 32 or 16: gcc 12 does what is left over one by one."""
    parts, begin = [], 0
    for lanes in (64, 32, 16, 1):
        end = begin + (size - begin) // lanes * lanes
        if end > begin:
            parts.append((begin, end))
        begin = end
    return parts


def describe(p: Population) -> str:
    """A layer in words."""
    g = p.geometry
    shape = f"{g.channels} x {g.height} x {g.width}" if g.height * g.width > 1 else f"{g.channels}"

    assert p.threshold is not None, p.label

    def words(values: np.ndarray, unit: int = 1) -> str:
        low, high = int(values.min()) // unit, int(values.max()) // unit
        return str(low) if low == high else f"{low} to {high}"

    text = f"{comment(p.label)}: {shape} neurons, threshold {words(p.threshold, SHIFT)}"
    text += f", keep {words(p.v_keep)}/4096 of v" if p.v_keep.any() else ", no memory"
    text += f" and {words(p.u_keep)}/4096 of the current" if p.u_keep.any() else ""
    text += f", bias {words(p.bias, SHIFT)}" if p.bias.any() else ""
    return text + {"zero": "; a spike returns v to zero", "subtract": "; a spike takes the threshold off, a step later",
                   "subtract_leaky": "; a spike takes the threshold off, before v leaks"}[p.reset]
