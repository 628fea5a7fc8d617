"""What of a user's results the graph's Output gives, step by step, and what the host makes of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from export.freeze.assembly import Signal
from export.watch.cuts import Cut
from export.watch.fold import Fired
from export.watch.values import NeuronCall, Value, label, leaves
from hardspike import HardspikeError

if TYPE_CHECKING:
    from export.watch.graph import Builder

Sequence = tuple[Value, ...]
_GATHERS = {"stack", "cat", "concat", "concatenate", "vstack", "hstack", "dstack", "row_stack"}


@dataclass
class Readout:
    """What comes out.

    Args:
        values: one a step, of what the graph's Output gives.
        words: what that is.
        host: what the host makes of it, in words.
    """

    values: Sequence
    words: str
    host: list[str]


class Deeper(HardspikeError):
    """What a result is made by at last has no form: it is the host's, and the Output lies before it."""

    def __init__(self, values: Sequence, error: HardspikeError):
        super().__init__(str(error))
        self.values = values


def readouts(builder: "Builder", skipped: dict[int, HardspikeError]) -> tuple[Readout, Signal]:
    """Build all that the user's results depend on; the first of them that hangs on neurons is the graph's Output.

    Args:
        skipped: first values of sequences that are the host's, and why.

    Raises:
        HardspikeError: no result hangs on a neuron, or one does in a way that NIR cannot hold.
    """
    usage, chosen = builder.run.usage, None
    others: list[Sequence] = []
    for result in _results(builder):
        for values in _frontier(builder, result, skipped):
            if chosen is not None:
                others.append(values)
                continue
            expr = builder.sequence(values)
            try:
                readout = Readout(values, builder.folder.words(values[0]), _between(result, values))
                chosen = readout, builder.signal(expr)
                builder.outputs.append(expr)
            except Cut:
                raise
            except HardspikeError as error:
                if isinstance(expr, Fired):
                    raise skipped.get(id(values[0]), error) from None
                raise Deeper(values, error) from error
    if chosen is None:
        raise next(iter(skipped.values()), None) or HardspikeError(
            f"{usage.name()}: what forward returns does not depend on a neuron; let it return the spikes or the "
            "membrane of the last one")
    for values in others:
        for population in _behind(builder, values):
            builder.neuron(population)
    return chosen


def _results(builder: "Builder") -> Iterator[Sequence]:
    """Every tensor that forward gave: of a call a step one value a step, else the value alone."""
    run = builder.run
    if not run.usage.outside:
        for _, _, value in run.outputs[0]:
            yield (value,)
        return
    results = run.outputs[builder.part.results]
    for number in range(min(len(outputs) for outputs in results)):
        yield tuple(outputs[number][2] for outputs in results)


def _frontier(builder: "Builder", result: Sequence, skipped: dict[int, HardspikeError]) -> list[Sequence]:
    """The sequences, one value a step, that a result is made of."""
    steps, found, seen = builder.folder.steps, [], set()

    def visit(values: Sequence) -> None:
        key = tuple(map(id, values))
        if key in seen or not any(value.neuron for value in values):
            return
        seen.add(key)
        if builder.part.others and not _behind(builder, values):  # another sequence's
            return
        first = values[0] if values[0].neuron else next(v for v in values if v.neuron)
        sequence = values if len(values) == steps and (steps > 1 or builder.run.usage.outside) else _in_step(
            builder, first)
        if sequence is not None and id(sequence[0]) not in skipped:
            if tuple(map(id, sequence)) not in {tuple(map(id, f)) for f in found}:
                found.append(sequence)
            return
        for children in _inside(values, steps):
            visit(children)

    visit(result)
    return found


def _in_step(builder: "Builder", value: Value) -> Sequence | None:
    """The values in every step of what a neuron or a layer of the loop gave; None for what is none of these."""
    if isinstance(value.function, NeuronCall):
        population = builder.folder.populations.get(id(value.function))
        return tuple(call.outputs[value.index] for call in population.calls) if population else None
    if isinstance(value.function, nn.Module):
        made = [v for v in builder.run.recorder.made.get(id(value.function), []) if v.index == value.index]
        if len(made) == builder.folder.steps and all(v.neuron for v in made):
            return tuple(made)
    return None


def _inside(values: Sequence, steps: int) -> Iterator[Sequence]:
    """What values are made of: in lockstep where they are steps, else gathered steps, else one by one."""
    if len(values) > 1 and all(v.function is values[0].function for v in values):
        yield from zip(*(leaves((v.args, v.kwargs)) for v in values), strict=False)
        return
    for value in values:
        if value.function is None or isinstance(value.function, NeuronCall):
            continue
        parts = tuple(leaves(value.args[:1]))
        if label(value.function) in _GATHERS and len(parts) == steps:
            yield parts
        else:
            for parent in value.parents():
                yield (parent,)


def _behind(builder: "Builder", values: Sequence) -> list:
    """The layers of neurons that values depend on, nearest first."""
    found, seen, waiting = [], set(), list(values)
    while waiting:
        value = waiting.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value.function, NeuronCall):
            population = builder.folder.populations.get(id(value.function))
            if population is not None and population not in found:
                found.append(population)
        else:
            waiting.extend(p for p in value.parents() if p.neuron)
    return found


def _between(result: Sequence, values: Sequence) -> list[str]:
    """What is done to `values` on the way to a result, in words."""
    stop, words, waiting, seen = set(map(id, values)), {}, list(result), set()
    while waiting:
        value = waiting.pop(0)
        if id(value) in stop or id(value) in seen or isinstance(value.function, NeuronCall):
            continue
        seen.add(id(value))
        if value.function is not None and value.neuron:
            words[label(value.function)] = None
        waiting.extend(value.parents())
    return list(words)
