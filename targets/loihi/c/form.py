"""The two forms of a program's text, and what both say of layers: types, rows, fields of the state."""

from dataclasses import dataclass, field

from targets.loihi.c.constants import Constants
from targets.loihi.c.program import Population, Program

LANES = 16
ROOM = 64
"""Sums beyond the last one, fast form: what fills up a vector adds zeros there."""


def comment(text: str) -> str:
    """Somebody's words, safe inside a C comment."""
    kept = "".join(c if c.isprintable() and c.isascii() and c != "\\" else "_" for c in text)
    return kept.replace("*/", "*_").replace("/*", "/_").replace("??", "__")[:200]


def plus(value: int) -> str:
    return f" + {value}" if value > 0 else f" - {-value}" if value < 0 else ""


@dataclass
class Form:
    """How `program` is written; `constants` collects its numbers, `extra` fields of the state.

    *Plain*, for a file that a person reads and any C99 compiler takes: numbers as `static const`, integers alone.
    *Fast*, for the simulator: the same functions, numbers by pointer (one compiled library serves every network of that
    shape), rows filled up to whole vectors, membranes recorded, and primitives replaced by equal ones.
    """

    program: Program
    fast: bool
    constants: Constants
    extra: list[str] = field(default_factory=list)

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

    def whole(self, p: Population) -> bool:
        """Whether the sums of a layer fill whole vectors: flat ones of the fast form do."""
        return self.fast and p.sums[0] * p.geometry.width == 1 and p.margin.left + p.margin.right == 0

    def row(self, p: Population) -> int:
        """Elements of a row of sums."""
        row = p.sums[1]
        return -(-row // LANES) * LANES if self.whole(p) else row

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
            sizes = [p.sums[0] * self.row(p) + ROOM * self.fast for p in everybody if p.narrow == narrow]
            if sizes:
                fields.append(f"{kind} {'narrow' if narrow else 'wide'}_sum[{max(sizes)}];")
        return fields

    def remembers_v(self, p: Population) -> bool:
        """Whether a membrane outlives its step."""
        return p.threshold is not None and bool(p.v_keep.any() or p.reset == "subtract")

    def list_type(self, source: str) -> str:
        """Of the places in a list of events."""
        if not self.fast:
            return "uint8_t"
        return "uint16_t" if self.list_length() <= 1 << 16 else "int32_t"

    def list_length(self) -> int:
        """Most events of a step of one source."""
        return max(self.program.input.size, *(p.geometry.size for p in self.program.populations.values()))
