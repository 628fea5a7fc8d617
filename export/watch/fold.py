"""The steps of a run folded into one: what is the same operation in every step is one operation of the graph.

A sequence holds the value of one thing in every step. What every value of it was made from are sequences again, and so
on back to neurons, to what goes in, and to constants. Where the steps differ, the first operation that does is named.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from export.watch.picked import part, place
from export.watch.steps import Population, is_zero
from export.watch.values import NeuronCall, Value, key_of, label, leaves, transform
from export.watch.whole import Wholes
from hardspike import HardspikeError

SELECTIONS = {"getitem", "unbind", "select", "index_select", "split", "chunk", "narrow", "tensor_split", "take", "iter"}

_NOTHING = {"permute", "transpose", "view", "reshape", "squeeze", "unsqueeze", "movedim", "contiguous", "to", "float",
            "double", "detach", "clone", "flatten", "cpu", "expand", "repeat", "stack", "T", "mT", "swapdims", "type"}


@dataclass(eq=False)
class Expr:
    """One operation of the folded step.

    Args:
        values: of the steps that it is known from, in order.
    """

    values: tuple[Value, ...]

    def shape(self) -> tuple[int, ...]:
        """With the batch; a state that starts as zeros may have none in the first step."""
        return self.values[-1].shape

    def free(self) -> bool:
        """Whether no neuron has a part in it."""
        return not any(value.neuron for value in self.values)

    def children(self) -> Iterator["Expr"]:
        """What it is made from."""
        return iter(())


@dataclass(eq=False)
class Stream(Expr):
    """What goes in, one value a step."""


@dataclass(eq=False)
class Fixed(Expr):
    """A constant."""

    tensor: torch.Tensor


@dataclass(eq=False)
class Fired(Expr):
    """What a neuron gives in the same step: `role` spk, mem, ..."""

    population: Population
    role: str


@dataclass(eq=False)
class Late(Expr):
    """`of`, `steps` later; zero before. `of` is filled in late where it leads back to here."""

    steps: int
    of: Expr | None = None

    def children(self) -> Iterator[Expr]:
        yield self.of


@dataclass(eq=False)
class Apply(Expr):
    """A function or leaf module on other expressions."""

    function: Any
    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    index: tuple = ()

    def children(self) -> Iterator[Expr]:
        yield from exprs((self.args, self.kwargs))


def exprs(tree: Any) -> Iterator[Expr]:
    """The expressions in a tree of arguments."""
    return leaves(tree, Expr)


class Folder:
    """Folds sequences, each once.

    Args:
        steps: how many there are.
        populations: of neurons, by the id of each of their calls.
        names: id of a module -> its name.
        batch: samples of a step.
    """

    def __init__(self, steps: int, populations: dict[int, Population], names: dict[int, str], batch: int):
        self.steps, self.populations, self.names = steps, populations, names
        self.wholes = Wholes(steps, batch)
        self._done: dict[int, list[tuple[tuple[Value, ...], Expr]]] = {}
        self._under_way: list[tuple[tuple[Value, ...], Late | None]] = []

    def fold(self, values: tuple[Value, ...]) -> Expr:
        """The expression that gives `values`, one a step.

        Raises:
            HardspikeError: the steps are not the same.
        """
        for known, expr in self._done.get(id(values[0]), ()):
            if _begins(known, values):
                return expr
        for sequence, _ in self._under_way:
            if len(values) < len(sequence) and _begins(sequence, values):  # it is being folded: a loop
                return _Open(sequence)
        expr = self._fold(values)
        self._done.setdefault(id(values[0]), []).append((values, expr))
        return expr

    def _fold(self, values: tuple[Value, ...]) -> Expr:
        values = self.wholes.apart(tuple(_found(value) for value in values))
        first = values[0]
        if all(value.constant() for value in values):
            return self._constant(values)
        late = self._late(values)
        if late is not None:
            return late
        if any(isinstance(value.function, NeuronCall) for value in values):
            return self._fired(values)
        if all(value is first for value in values) and first.function is None:
            return Stream(values)
        same = all(value.function is first.function and value.index == first.index
                   and _plain(value) == _plain(first) for value in values) and first.function is not None
        drops = next((v for v in values if v.random and v.function is not None and "dropout" in label(v.function)),
                     None)
        if drops is not None:
            raise HardspikeError(f"{self.head(drops)}: functional.dropout that also drops at "
                                 "inference; pass training=self.training, or use nn.Dropout")
        if not same or (first.function is not None and self._drawn(values)):
            if not any(value.neuron for value in values):
                return Stream(values)
            self._refuse(values)
        if first.neuron and len(values) > 1 and len(set(map(id, values))) == 1:
            raise HardspikeError(f"{self.head(first)}: uses in every step what a neuron gave in "
                                 "one of them; a graph sees a step when it comes: use the value of the same step")
        self._under_way.append((values, None))
        slots = iter([self.fold(tuple(children)) for children in zip(*(
            leaves((value.args, value.kwargs)) for value in values), strict=True)])
        self._under_way.pop()
        args, kwargs = transform((first.args, first.kwargs), Value, lambda _: next(slots))
        return Apply(values, first.function, args, kwargs, first.index)

    def _drawn(self, values: tuple[Value, ...]) -> bool:
        """Whether the values are random and no neuron has a part in them: drawn on the host."""
        return not any(v.neuron for v in values) and any(
            v.random and not any(p.random for p in v.parents()) for v in values)

    def _constant(self, values: tuple[Value, ...]) -> Expr:
        first = values[0].tensor
        for step, value in enumerate(values):
            if value is not values[0] and not (value.tensor.shape == first.shape and torch.equal(value.tensor, first)):
                late = self._late(values)
                if late is not None:
                    return late
                if _unseen(values[0], value):
                    raise HardspikeError(f"forward takes another tensor in step {step} than in step 0, and no "
                                         "operation in sight made it: the work of torch.jit, torch.vmap, NumPy or an "
                                         "autograd.Function, or a constant for each step; call the plain function or "
                                         "module (layers take batches), and use one constant for all steps")
                raise HardspikeError(f"{self.head(value)}: gives another constant in step {step} "
                                     "than in step 0; the weights of a graph are the same in every step: use one for "
                                     "all steps")
        return Fixed(values, first)

    def _late(self, values: tuple[Value, ...]) -> Expr | None:
        """Values that are zero at first and then something that was there earlier."""
        zeros = next((n for n, value in enumerate(values) if not is_zero(value)), len(values))
        if not 0 < zeros < len(values) or not any(value.neuron for value in values[zeros:]):
            return None
        rest = values[zeros:]
        late = Late(values, zeros)
        self._under_way.append((values, late))
        for sequence, _ in reversed(self._under_way[:-1]):
            if _begins(sequence, rest):  # it is being folded: a loop
                late.of = _Open(sequence)
        try:
            late.of = late.of or self.fold(rest)
        finally:
            self._under_way.pop()
        return late

    def _fired(self, values: tuple[Value, ...]) -> Expr:
        call = values[0].function
        for step, value in enumerate(values):
            other = value.function
            if not isinstance(call, NeuronCall) or not isinstance(other, NeuronCall) \
                    or self.populations[id(other)] is not self.populations[id(call)] or value.index != values[0].index:
                self._refuse(values)
            if self.populations[id(other)].calls.index(other) != step:
                raise HardspikeError(f"layer '{call.name}': what it gives is used in another step than it is given in, "
                                     f"and not by the same number of steps throughout (step {step}); start with zeros")
        return Fired(values, self.populations[id(call)], values[0].index)

    def _refuse(self, values: tuple[Value, ...]) -> None:
        if self.wholes.mixing is not None:
            called = self.words(self.wholes.mixing).strip("'")
            raise HardspikeError(f"forward, operation '{called}': takes a whole sequence of what neurons gave, and "
                                 "what it makes of one step hangs on others; a graph sees a step when it comes: let a "
                                 "step hang on itself and on those before (a state, the spikes of the last step), or "
                                 "do this before the first neuron or behind the last")
        odd = next((n for n, v in enumerate(values) if v.function is not values[0].function
                    or v.index != values[0].index or _plain(v) != _plain(values[0])), len(values) - 1)
        raise HardspikeError(f"the steps are not the same: step 0 takes {self.words(values[0], True)} where step {odd} "
                             f"takes {self.words(values[odd], True)}; a graph does the same in every step: let forward "
                             "do so (states that start from zeros instead of an if, one module for all steps)")

    def before(self, value: Value) -> list[str]:
        """What the host does to what the user hands over, up to `value`, in words; picking a step out is nothing."""
        found, waiting, seen = [], [value], set()
        while waiting:
            node = waiting.pop(0)
            if id(node) in seen or node.function is None:
                continue
            seen.add(id(node))
            if label(node.function) not in SELECTIONS | _NOTHING:
                found.append(self.words(node).strip("'"))
            waiting.extend(node.parents())
        return found[::-1]

    def head(self, value: Value) -> str:
        """What made a value, as an error begins with it."""
        if isinstance(value.function, nn.Module):
            return f"layer {self.words(value)} ({type(value.function).__name__})"
        return f"forward, operation '{self.words(value)}'"

    def words(self, value: Value, options: bool = False) -> str:
        """How a user calls what made a value."""
        if isinstance(value.function, NeuronCall):
            return f"{'the spikes' if value.index == 'spk' else value.index} of '{value.function.name}'"
        if isinstance(value.function, nn.Module):
            return f"'{self.names.get(id(value.function), type(value.function).__name__)}'"
        if value.function is None:
            return "what goes in" if value.outside else "a constant"
        plain = [repr(v) for v in (*value.args, *value.kwargs.values()) if isinstance(v, int | float | str | slice)]
        return label(value.function) + (f"({', '.join(plain)})" if options and plain else "")


class _Open(Expr):
    """Stands for a sequence that is still being folded; `close` puts in its expression."""


def close(expr: Expr, folder: Folder) -> None:
    """Lead the loops among what `expr` is made from back to where they begin."""
    waiting, seen = [expr], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Late) and isinstance(node.of, _Open):
            node.of = folder.fold(node.of.values)
        elif isinstance(node, Apply):
            node.args, node.kwargs = transform((node.args, node.kwargs), _Open, lambda o: folder.fold(o.values))
        waiting.extend(node.children())


def _found(value: Value) -> Value:
    """What a value of neurons is a plain part of: what was stacked, or written into a larger tensor, before."""
    while value.neuron and (at := place(value)) is not None and (lying := part(*at)) is not None:
        value = lying
    return value


def _unseen(one: Value, other: Value) -> bool:
    """Whether two constants differ since they are made of other tensors, which nothing in sight made."""
    waiting = [(one, other)]
    while waiting:
        a, b = waiting.pop()
        if a is b:
            continue
        if b.function is None:
            return True
        waiting.extend(zip(a.parents(), b.parents(), strict=False))
    return False


def _plain(value: Value) -> Any:
    """The arguments of a call that are no tensors; where tensors are."""
    return key_of(transform((value.args, value.kwargs), Value, lambda _: "a tensor"))


def _begins(sequence: tuple[Value, ...], part: tuple[Value, ...]) -> bool:
    return len(part) <= len(sequence) and all(a is b for a, b in zip(part, sequence, strict=False))
