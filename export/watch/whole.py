"""Whole sequences, (T, B, ...) at once, taken apart into steps: networks that run layer by layer.

Between two loops over time a layer may get all steps as one tensor: stacked, with time and batch in one axis, or with
time in any other place. A step of what such an operation gives is what the operation gives for that step alone, where
that is so: it is tried on random values, with other ones in every step.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.watch.again import again
from export.watch.picked import Place, part, place
from export.watch.values import NeuronCall, Value, label, leaves, transform
from hardspike import HardspikeError

_SHAPES = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel"}
_ORDERS = {"permute", "transpose", "movedim", "moveaxis", "swapdims", "T", "mT"}
_SEPARATE = (nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool1d, nn.AvgPool2d, nn.MaxPool1d,
             nn.MaxPool2d, nn.Flatten)
"""Layers for which the axis that holds steps and samples is the batch, also where there is one sample."""


@dataclass(frozen=True)
class Layout:
    """Where the steps are: an axis of before * steps * after places; `drops`: the axis goes with the step."""

    axis: int
    before: int
    after: int
    drops: bool


@dataclass(frozen=True)
class Repeated:
    """An operation that only acts on whole sequences, on a step: the step is repeated, and one of the results taken."""

    function: Callable
    into: Layout
    out: Layout
    steps: int
    index: tuple

    def __call__(self, step: Tensor, *rest: Any, **named: Any) -> Tensor:
        """One step's result."""
        whole = again(self.function, (repeat(step, self.into, self.steps), *rest), named, self.index)
        return take(whole, self.out, self.steps, 0)

    @property
    def __name__(self) -> str:
        return label(self.function)


def take(whole: Tensor, layout: Layout, steps: int, number: int) -> Tensor:
    """One step of a whole sequence."""
    axis = layout.axis
    step = whole.unflatten(axis, (layout.before, steps, layout.after)).select(axis + 1, number).flatten(axis, axis + 1)
    return step.squeeze(axis) if layout.drops else step


def repeat(step: Tensor, layout: Layout, steps: int) -> Tensor:
    """The whole sequence in which every step is this one."""
    axis = layout.axis
    step = step.unsqueeze(axis) if layout.drops else step
    parted = step.unflatten(axis, (layout.before, layout.after)).unsqueeze(axis + 1)
    return parted.repeat_interleave(steps, axis + 1).flatten(axis, axis + 2)


class Wholes:
    """The steps of whole sequences, each taken apart once.

    Args:
        steps: how many there are.
        batch: samples of a step.

    Attributes:
        mixing: the innermost operation on the last whole sequence that could not be taken apart.
    """

    def __init__(self, steps: int, batch: int):
        self.steps, self.batch = steps, batch
        self._plans: dict[tuple[int, Layout], tuple[Callable, tuple, dict, list] | None] = {}
        self._done: dict[tuple, Value] = {}
        self.mixing: Value | None = None

    def apart(self, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """The same values, where they are places of one whole, as what made each of them alone."""
        found, self.mixing = [place(value) for value in values], None
        if len(values) < 2 or None in found or len({id(whole) for whole, _ in found}) > 1:
            return values
        whole, first = found[0]
        if whole.function is None or whole.random or not self._worth(whole) \
                or any((w.axis, w.rest, w.keeps) != (first.axis, first.rest, first.keeps) for _, w in found):
            return values
        if whole.shape[first.axis] != self.steps:
            return values
        layout = Layout(first.axis, 1, 1, not first.keeps)
        steps = [self.step(whole, layout, where.number) for _, where in found]
        if any(step is None for step in steps):
            return values
        if first.rest is None:
            return tuple(steps)
        return tuple(self._picked(step, first.rest) for step in steps)

    def _worth(self, whole: Value) -> bool:
        """Whether a neuron or a layer is behind it: else the whole sequence is what goes in."""
        waiting, seen = [whole], set()
        while waiting:
            node = waiting.pop()
            if id(node) in seen or node.function is None:
                continue
            seen.add(id(node))
            if node.neuron or isinstance(node.function, nn.Module) or label(node.function) in ("linear", "conv1d",
                                                                                               "conv2d", "matmul"):
                return True
            waiting.extend(node.parents())
        return False

    def _picked(self, step: Value, rest: Any) -> Value:
        key = (id(step), rest)
        if key not in self._done:
            shape = tuple(torch.empty(step.shape, device="meta")[rest].shape)
            tensor = None if step.tensor is None else step.tensor[rest]
            self._done[key] = Value(torch.Tensor.__getitem__, (step, rest), {}, (), shape, step.neuron, step.outside,
                                    step.random, tensor)
        return self._done[key]

    def step(self, whole: Value, layout: Layout, number: int) -> Value | None:
        """One step of a whole sequence; None where it cannot be taken apart."""
        key = (id(whole), layout, number)
        if key not in self._done:
            found = self._step(whole, layout, number)
            if found is None:
                return None
            self._done[key] = found
        return self._done[key]

    def _step(self, whole: Value, layout: Layout, number: int) -> Value | None:
        if layout.before == layout.after == 1 and whole.shape[layout.axis] == self.steps:
            lying = part(whole, Place(layout.axis, number, keeps=not layout.drops))
            if lying is not None:
                return lying
        plan = self._plan(whole, layout)
        if plan is None:
            return None if whole.neuron else self._free(whole, layout, number)
        function, args, kwargs, layouts = plan
        places = iter(layouts)
        children = [child if (where := next(places)) is None else self.step(child, where, number) for child in
                    leaves((whole.args, whole.kwargs))]
        if any(child is None for child in children):
            return None
        given = iter(children)
        args, kwargs = transform((args, kwargs), Value, lambda _: next(given))
        shape = _step_shape(whole.shape, layout, self.steps)
        tensor = None if whole.tensor is None else take(whole.tensor, layout, self.steps, number)
        index = whole.index if function is whole.function else ()
        return Value(function, args, kwargs, index, shape, whole.neuron, whole.outside, whole.random, tensor)

    def _free(self, whole: Value, layout: Layout, number: int) -> Value:
        tensor = take(whole.tensor, layout, self.steps, number)
        return Value(take, (whole, layout, self.steps, number), {}, (), tuple(tensor.shape), False, whole.outside,
                     whole.random, tensor)

    def _plan(self, whole: Value, layout: Layout) -> tuple[Callable, tuple, dict, list] | None:
        """How a step of `whole` is made: the function, its arguments, and the layout of each Value among them."""
        key = (id(whole), layout)
        if key not in self._plans:
            self._plans[key] = None
            if whole.function is not None and not isinstance(whole.function, NeuronCall) and not whole.random:
                with suppress(HardspikeError):  # an operation that does not run on other values has none
                    self._plans[key] = self._found(whole, layout)
        if self._plans[key] is None and whole.neuron:
            self.mixing = self.mixing or whole
        return self._plans[key]

    def _found(self, whole: Value, layout: Layout) -> tuple[Callable, tuple, dict, list] | None:
        children = list(leaves((whole.args, whole.kwargs)))
        if not children or len(children) > 4 or whole.index[:1] == ("changed",):
            return None
        choices = [self._layouts(whole, child) for child in children]
        if [] in choices:
            self.mixing = children[choices.index([])]
            return None
        given = {id(c): torch.randn(c.shape, dtype=torch.float64) if c.tensor is None or (c.tensor.is_floating_point()
                 and c.outside) else c.tensor for c in children}

        def run(function: Callable, index: tuple, parts: list[Tensor], args: tuple, kwargs: dict) -> Tensor:
            values = iter(parts)
            return again(function, *transform((args, kwargs), Value, lambda _: next(values)), index)

        full = run(whole.function, whole.index, [given[id(c)] for c in children], whole.args, whole.kwargs)
        wanted = [take(full, layout, self.steps, n) for n in (0, 1, self.steps - 1)]
        for layouts in itertools.product(*choices):
            if all(where is None for where in layouts):
                continue
            for function, args, kwargs in self._functions(whole, layout, layouts, tuple(wanted[0].shape)):
                index = whole.index if function is whole.function else ()
                try:
                    got = [run(function, index, [given[id(c)] if where is None else
                                                 take(given[id(c)], where, self.steps, n) for c, where in
                                                 zip(children, layouts, strict=True)], args, kwargs)
                           for n in (0, 1, self.steps - 1)]
                except HardspikeError:
                    continue
                if all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in
                       zip(got, wanted, strict=True)):
                    return function, args, kwargs, list(layouts)
        return None

    def _functions(self, whole: Value, layout: Layout, layouts: tuple,
                   shape: tuple[int, ...]) -> Iterator[tuple[Callable, tuple, dict]]:
        """What might make one step: the operation itself, another shape, the operation on the step repeated."""
        children = list(leaves((whole.args, whole.kwargs)))
        yield whole.function, whole.args, whole.kwargs
        if label(whole.function) in _SHAPES and len(children) == 1:
            yield torch.reshape, (children[0], shape), {}
        if label(whole.function) in _ORDERS and len(children) == 1 and layouts[0] is not None:
            before = _step_shape(children[0].shape, layouts[0], self.steps)
            for order in itertools.permutations(range(len(before))):
                if tuple(before[axis] for axis in order) == shape:
                    plain = order == tuple(range(len(before)))
                    yield (torch.reshape, (children[0], shape), {}) if plain else (
                        torch.permute, (children[0], order), {})
        if len(children) == 1 and whole.neuron and whole.args and whole.args[0] is children[0] \
                and not isinstance(whole.function, nn.Module):
            yield Repeated(whole.function, layouts[0], layout, self.steps, whole.index), whole.args, whole.kwargs

    def _layouts(self, whole: Value, child: Value) -> list[Layout | None]:
        """Where the steps may be in what an operation got, the likelier first; None: nowhere."""
        found: list[Layout] = []
        keeps = isinstance(whole.function, _SEPARATE)
        for axis, size in enumerate(child.shape):
            rest = size // self.steps
            for before in (range(1, rest + 1) if size % self.steps == 0 else ()):
                if rest % before:
                    continue
                one = Layout(axis, before, rest // before, False)
                choices = [one] if rest > 1 else [Layout(axis, 1, 1, not keeps), Layout(axis, 1, 1, keeps)]
                found += choices
        found.sort(key=lambda where: self.batch not in _step_shape(child.shape, where, self.steps)[:1])
        return [*found[:12], None] if not child.neuron else found[:12]


def _step_shape(shape: tuple[int, ...], layout: Layout, steps: int) -> tuple[int, ...]:
    middle = () if layout.drops else (layout.before * layout.after,)
    return (*shape[:layout.axis], *middle, *shape[layout.axis + 1:])
