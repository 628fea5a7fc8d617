"""Where the graph begins: what the host computes, and how several things that go in share one Input."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import nir
import numpy as np

from export.freeze.layers import Piece
from export.watch.fold import Apply, Expr, Stream
from hardspike import HardspikeError

if TYPE_CHECKING:
    from export.watch.graph import Builder


class Cut(HardspikeError):
    """An expression without neurons has no form: it is the host's, and the graph is built again behind it."""

    def __init__(self, expr: Expr, text: str):
        super().__init__(text)
        self.expr = expr


class Inside(HardspikeError):
    """What a NIR neuron keeps to itself is read."""

    def __init__(self, layer: str, text: str):
        super().__init__(text)
        self.layer = layer


class Cuts:
    """The expressions that the host computes, by id."""

    def __init__(self):
        self._exprs: dict[int, Expr] = {}
        self.reasons: dict[int, str] = {}
        self._parts: list[Expr] = []
        self._inlets: dict[int, dict[int, str]] = {}

    def __contains__(self, key: int) -> bool:
        return key in self._exprs

    def add(self, expr: Expr, reason: str) -> None:
        """Leave an expression to the host, and keep why."""
        self._exprs[id(expr)] = expr
        self.reasons[id(expr)] = reason

    def inlet(self, builder: "Builder", expr: Expr) -> str:
        """The node that gives what goes in: Input, or of several parts the one that takes its own out of it."""
        used = self._inlets.setdefault(id(builder), {})
        if id(expr) not in used:
            used[id(expr)] = builder.assembly.begin
            if len(self._parts) > 1:
                name = builder.assembly.free(f"{builder.assembly.begin}_{len(used)}")
                sizes = [math.prod(part.shape()[1:]) for part in self._parts]
                number = next(n for n, part in enumerate(self._parts) if part is expr)
                weight = np.zeros((sizes[number], sum(sizes)))
                weight[:, sum(sizes[:number]):sum(sizes[:number + 1])] = np.eye(sizes[number])
                builder.assembly.add(name, Piece({name: nir.Linear(weight)}, (sizes[number],)),
                                     (builder.assembly.begin,))
                used[id(expr)] = name
        return used[id(expr)]

    def shapes(self, builder: "Builder", expr: Expr, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """NIR's shape and the user's of a part."""
        return ((math.prod(shape),), shape) if len(self._parts) > 1 else (shape, shape)

    def used(self, builder: "Builder") -> list[Expr]:
        """The parts in the order of use."""
        wanted = self._inlets.get(id(builder), {})
        return _met(builder, lambda expr: id(expr) in wanted)

    def widen(self, builder: "Builder") -> bool:
        """Several parts go in: cut further back where that makes them fewer, else let them share the Input.

        True where the graph has to be built again.
        """
        parts = self.used(builder)
        if len(self._parts) == len(parts) and all(a is b for a, b in zip(self._parts, parts, strict=True)):
            return False
        whole = [_narrowest(expr, parts) for expr in _met(builder, lambda expr: isinstance(
            expr, Apply | Stream) and expr.free())]
        if len(whole) < len(parts) and not _arguments(parts):
            self._exprs.update({id(expr): expr for expr in whole if isinstance(expr, Apply)})
            self._parts = whole if len(whole) > 1 else []
        else:
            self._parts = parts
        return True

    def input_shape(self, streams: list[Expr]) -> tuple[int, ...]:
        """Of the graph's Input."""
        if not streams:
            raise HardspikeError("nothing that is handed to forward reaches a neuron; give the input as an argument")
        if len(streams) == 1:
            return streams[0].shape()[1:]
        return (sum(math.prod(part.shape()[1:]) for part in self._parts),)


def _narrowest(top: Expr, parts: list[Expr]) -> Expr:
    """The expression nearest to the parts that everything from them to `top` goes through."""
    ends = set(map(id, parts))
    below = _reached(top, ends)
    gates = [expr for expr in below.values() if isinstance(expr, Apply | Stream)
             and ends.isdisjoint(_reached(top, ends, expr))]
    return min(gates, key=lambda gate: len(_reached(gate, ends)), default=top)


def _reached(expr: Expr, ends: set[int], gate: Expr | None = None) -> dict[int, Expr]:
    """All that an expression is made of, by id, as far as the ends; without what lies behind a gate."""
    found: dict[int, Expr] = {}
    waiting = [expr]
    while waiting:
        node = waiting.pop()
        if id(node) not in found and node is not gate:
            found[id(node)] = node
            waiting.extend(() if id(node) in ends else node.children())
    return found


def _arguments(parts: list[Expr]) -> bool:
    """Whether each part is what goes in as an argument of its own, in a row: no need to compute further on the host."""
    seen: set[int] = set()
    for part in parts:
        mine: set[int] = set()
        waiting, known = list(part.values), set()
        while waiting:
            value = waiting.pop()
            if id(value) not in known:
                known.add(id(value))
                mine |= {id(value)} if value.function is None and value.outside else set()
                waiting.extend(value.parents())
        if not mine or mine & seen or len(part.shape()) != 2:
            return False
        seen |= mine
    return True


def _met(builder: "Builder", stop: Callable[[Expr], bool]) -> list[Expr]:
    """The first expressions, on every way back from neurons and outputs, at which to stop; in the order of use."""
    found: dict[int, Expr] = {}
    seen: set[int] = set()

    def visit(expr: Expr) -> None:
        if id(expr) in seen:
            return
        seen.add(id(expr))
        if stop(expr):
            found[id(expr)] = expr
        else:
            for child in expr.children():
                visit(child)

    for expr in [*builder.inputs.values(), *builder.outputs]:
        visit(expr)
    return list(found.values())
