"""What the host computes, before a graph and behind it, as programs: the recorded operations in order, to be run again.

A recording has the number of its samples in it, as in `x.view(5, -1)`. Of two recordings that differ in that number
alone, the numbers that grow with it are found; so a program takes any number of samples.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from export.watch.again import again
from export.watch.graph import Watched
from export.watch.usage import Run
from export.watch.values import NeuronCall, Value, key_of, leaves, tensors, transform
from hardspike import HardspikeError

_LAYOUT = {"stack", "cat", "concat", "concatenate", "vstack", "hstack", "unsqueeze", "squeeze", "view", "reshape",
           "transpose", "permute", "flatten", "contiguous", "detach", "clone", "movedim", "swapaxes", "cpu"}
"""What only puts values in another order."""


@dataclass
class Program:
    """Recorded operations in order.

    Args:
        inputs: values that are given.
        outputs: values that are wanted.
        order: all that is computed from the inputs, each after what it is made of.
        growing: (place in `order`, number of the whole number among its arguments) -> how often it holds the samples.
        samples: where an input counts samples: its number and the axis; None where their number is fixed.
    """

    inputs: list[Value]
    outputs: list[Value]
    order: list[Value] = field(default_factory=list)
    growing: dict[tuple[int, int], int] = field(default_factory=dict)
    samples: tuple[int, int] | None = None

    def __post_init__(self):
        given, done, waiting = set(map(id, self.inputs)), set(), list(self.outputs)
        while waiting:
            value = waiting[-1]
            if id(value) in done or id(value) in given:
                waiting.pop()
                continue
            _require_program(value)
            missing = [v for v in leaves((value.args, value.kwargs)) if id(v) not in done and id(v) not in given]
            if missing:
                waiting.extend(missing)
                continue
            done.add(id(value))
            self.order.append(waiting.pop())

    def modules(self) -> list[nn.Module]:
        """The layers in it, each once."""
        return list({id(v.function): v.function for v in self.order if isinstance(v.function, nn.Module)}.values())

    def grow(self, other: "Program") -> bool:
        """Find what grows with the samples, seen from the same program of another number of them."""
        found = [(n, axis) for n, pair in enumerate(zip(self.inputs, other.inputs, strict=True))
                 for axis, (a, b) in enumerate(zip(*(value.shape for value in pair), strict=True)) if a != b]
        if not found or len(self.order) != len(other.order):
            return False
        number, axis = found[0]
        one, two = (program.inputs[number].shape[axis] for program in (self, other))
        for place, (mine, theirs) in enumerate(zip(self.order, other.order, strict=True)):
            if mine.function != theirs.function or _shape_of(mine) != _shape_of(theirs):
                return False
            if mine.function is None and (mine.shape != theirs.shape or not torch.equal(mine.tensor, theirs.tensor)):
                return False
            pairs = zip(leaves((mine.args, mine.kwargs), int), leaves((theirs.args, theirs.kwargs), int), strict=True)
            for n, (a, b) in enumerate(pairs):
                if a != b and (a % one or a // one != b / two):
                    return False
                if a != b:
                    self.growing[place, n] = a // one
        self.samples = number, axis
        return True


def _require_program(value: Value) -> None:
    """Refuse what nobody can run again: a neuron, what is drawn, what was handed over.

    Raises:
        HardspikeError: it is such a value.
    """
    if isinstance(value.function, NeuronCall):
        raise HardspikeError(f"also needs {value.index} of layer '{value.function.name}', which Output does not give")
    if value.random:
        raise HardspikeError("draws at random")
    if value.function is None and value.outside:
        raise HardspikeError("also needs what forward is handed")


def _shape_of(value: Value) -> Any:
    """All of an operation's arguments but its numbers and values."""
    tree = transform((value.args, value.kwargs), Value, lambda _: "a value")
    return key_of(transform(tree, int, lambda _: "a number"))


class Replay(nn.Module):
    """A program as a module in float32, while its layers are."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program
        self.layers = nn.ModuleList(program.modules())
        constants = [v for v in program.order if v.function is None]
        self.constants = nn.ParameterList(nn.Parameter(single(v.tensor), requires_grad=False) for v in constants)
        self.held = {id(v): parameter for v, parameter in zip(constants, self.constants, strict=True)}

    def forward(self, *given: Tensor) -> list[Tensor]:
        """The program's outputs for its inputs."""
        program = self.program
        known = {id(value): tensor for value, tensor in zip(program.inputs, given, strict=True)} | self.held
        samples = given[program.samples[0]].shape[program.samples[1]] if program.samples else 0
        for place, value in enumerate(program.order):
            if value.function is None:
                continue
            args, kwargs = _narrowed(value, self._numbers(place, samples))
            args, kwargs = transform((args, kwargs), Value, lambda v: known[id(v)])
            function = Tensor.float if value.function is Tensor.double else value.function
            if function is Tensor.unfold and args[1:2] and args[1] < 0:  # torch's ONNX takes another axis for it
                args = (args[0], args[1] + args[0].ndim, *args[2:])
            known[id(value)] = again(function, args, kwargs, value.index)
        return [known[id(value)] for value in program.outputs]

    def _numbers(self, place: int, samples: Any) -> dict[int, Any]:
        return {n: factor * samples for (at, n), factor in self.program.growing.items() if at == place}


def _narrowed(value: Value, numbers: dict[int, Any]) -> Any:
    """The arguments of an operation in float32, with other `numbers`."""
    tree = transform((value.args, value.kwargs), torch.dtype, lambda t: torch.float32 if t == torch.float64 else t)
    if not numbers:
        return tree
    counted = iter(range(10**9))
    return transform(tree, int, lambda number: numbers.get(next(counted), number))


def single(tensor: Tensor) -> Tensor:
    """A copy in float32 where it is a float."""
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.dtype == torch.float64 else tensor.clone()


@dataclass
class Part:
    """What the host computes in one call of forward, all steps of it or one.

    Before the graph, the program takes arguments of forward and gives what flows into Input, stream by stream and step
    by step; behind it, it takes what Output gives, part by part and step by step, and gives what forward returns.

    Args:
        steps: of one call.
        samples: of the run that it was seen in.
        names: of forward's arguments, or of its results.
        paths: where the arguments lie among all, in `tensors((args, kwargs))`.
    """

    program: Program
    steps: int
    samples: int
    names: list[str]
    paths: list[tuple] = field(default_factory=list)

    def taken(self, kind: str) -> str:
        """What the program takes, with its size, in words."""
        if kind == "behind":
            return f"output of {self.samples} samples"
        return ", ".join(f"{name} {value.shape}" for name, value in zip(self.names, self.program.inputs, strict=True))


def before(run: Run, watched: Watched) -> Part | None:
    """What the host makes of what goes in; None where the graph takes it as it is.

    Raises:
        HardspikeError: no program: it draws at random.
    """
    if not watched.host and len(watched.streams) == 1 and not watched.moved:
        return None
    steps = 1 if run.usage.outside else watched.steps
    frames = [value for expr in watched.streams for value in (
        expr.values if len(expr.values) == watched.steps else expr.values * watched.steps)[:steps]]
    given = list(arguments(run.given[watched.calls.start if run.usage.outside else 0]))
    needed, parameters = _met(frames, {id(value) for _, value in given}), _parameters(run)
    used = [(path, value) for path, value in given if id(value) in needed]
    names = [_spelled(path, parameters) for path, _ in used]
    program = Program([value for _, value in used], frames)
    return Part(program, steps, _samples(watched), names, [path for path, _ in used])


def behind(run: Run, watched: Watched) -> Part | None:
    """What the host makes of what comes out; None where that only lies in another order.

    Raises:
        HardspikeError: no program: it also needs what Output does not give.
    """
    if set(watched.readout.host) <= _LAYOUT:
        return None
    steps = 1 if run.usage.outside else watched.steps
    given = [value for values in watched.readout.parts for value in values[:steps]]
    results = watched.readout.result
    names = [f"result.{r.path}" for r in results] if len(results) > 1 else ["result"]
    return Part(Program(given, [r.values[0] for r in results]), steps, _samples(watched), names)


def _samples(watched: Watched) -> int:
    return next(iter(watched.neurons.values())).calls[0].input.shape[0]


def _spelled(path: tuple, parameters: list[str]) -> str:
    """An argument as forward calls it."""
    kind, key, *rest = path
    named = isinstance(key, int) and kind == 0 and key < len(parameters)
    return ".".join(map(str, [parameters[key] if named else key, *rest]))


def arguments(given: Any) -> Iterator[tuple[tuple, Value]]:
    """(path, value) of all that a call of forward got."""
    paths = [path for path, _ in tensors(transform(given, Value, lambda _: torch.empty(0)))]
    yield from zip(paths, leaves(given), strict=True)


def _parameters(run: Run) -> list[str]:
    return list(inspect.signature(run.usage.network.forward).parameters)


def _met(values: list[Value], wanted: set[int]) -> set[int]:
    """Which of the `wanted` values others are made of, by id."""
    seen: set[int] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:
            seen.add(id(value))
            waiting.extend(() if id(value) in wanted else value.parents())
    return seen & wanted
