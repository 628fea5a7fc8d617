"""What of a user's results the graph's Output gives, step by step, and what the host makes of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nir
import numpy as np
from torch import nn

from export.freeze.assembly import Signal
from export.freeze.layers import Piece
from export.watch.cuts import Cut, Inside
from export.watch.fold import Fired
from export.watch.signals import row
from export.watch.values import NeuronCall, Value, label, leaves
from hardspike import HardspikeError, UsageError, nearest
from hardspike import words as comma_separated

if TYPE_CHECKING:
    from export.watch.graph import Builder

Sequence = tuple[Value, ...]
_GATHERS = {"stack", "cat", "concat", "concatenate", "vstack", "hstack", "dstack", "row_stack"}


@dataclass(frozen=True)
class Returned:
    """One tensor of what forward gives: its number, where it lies (`0`, `spikes`, `1.0`), and its value, of a run step
    by step one a step."""

    number: int
    path: str
    values: Sequence


@dataclass
class Readout:
    """What comes out.

    Args:
        parts: what the graph's Output gives, one value a step; of several, all in a row.
        words: what that is.
        result: the tensors of forward's results that are made of it alone.
        host: what the host makes of it, in words.
        others: what forward gives besides, in words.
    """

    parts: list[Sequence]
    words: str
    result: list[Returned]
    host: list[str]
    others: list[str]


class Deeper(HardspikeError):
    """What a result is made by at last has no form: it is the host's, and the Output lies before it."""

    def __init__(self, values: Sequence, error: HardspikeError):
        super().__init__(str(error))
        self.values = values


def readouts(builder: "Builder", skipped: dict[int, HardspikeError]) -> tuple[Readout, Signal]:
    """Build all that the user's results depend on; one of them is the graph's Output.

    That is the one that is asked for (`Usage.result`), else the first of the last layer's: of those whose layers feed
    no other result's within a step. One whose state lies inside of a neuron gives way to the next, and that is said.

    Args:
        skipped: first values of sequences that are the host's, and why.

    Raises:
        HardspikeError: no result hangs on a neuron, or one does in a way that NIR cannot hold.
        UsageError: what is asked for is none.
    """
    every = [r for r in returned(builder) if any(value.neuron for value in r.values)]
    found = [r for r in every if not builder.part.others or _behind(builder, r.values)]  # else another sequence's
    lost: dict[str, HardspikeError] = {}
    for chosen in _candidates(builder, found, every):
        parts = _parts(builder, chosen, skipped, lost)
        if parts:
            break
    else:
        if every and not found:
            raise HardspikeError(f"{builder.run.usage.name()}: forward runs several sequences, and nothing that it "
                                 "returns hangs on one of them; leave that one out, or return something of it")
        raise next(iter((*lost.values(), *skipped.values())), None) or HardspikeError(
            f"{builder.run.usage.name()}: what forward returns does not depend on a neuron; let it return the spikes "
            "or the membrane of the last one")
    sequences, others = [values for values, _ in parts], []
    for result in found:
        made_of = _frontier(builder, result.values, skipped)
        if result in chosen:
            continue
        if all(values in sequences for values in made_of):
            chosen.append(result)
            continue
        for values in made_of:
            for population in _behind(builder, values):
                builder.neuron(population)
        others.append(f"[{result.path}], {_about(builder, result, skipped)}" + (
            f" ({lost[result.path]})" if result.path in lost else ""))
    words = " and ".join(builder.folder.words(values[0]) for values in sequences)
    if others:
        words += f", {', '.join(f'[{r.path}]' for r in chosen)} of what forward returns"
    host = list(dict.fromkeys(word for r in chosen for word in _between(r.values, sequences)))
    return Readout(sequences, words, chosen, host, others), join(builder, [signal for _, signal in parts])


def returned(builder: "Builder") -> list[Returned]:
    """Every tensor that forward gave."""
    run = builder.run
    results = run.outputs[builder.part.results] if run.usage.outside else run.outputs[:1]
    count = min(len(outputs) for outputs in results)
    return [Returned(number, ".".join(map(str, path)) or "0", tuple(outputs[number][2] for outputs in results))
            for number, (path, _, _) in enumerate(results[0][:count])]


def _candidates(builder: "Builder", found: list[Returned], every: list[Returned]) -> list[list[Returned]]:
    """Which of the results `found` may be the Output, the likeliest first; the asked for alone, where there is one.

    Args:
        every: also those of the run's other sequences.
    """
    asked = comma_separated(builder.run.usage.result)
    names = {r.path: r for r in every}
    for name in asked:
        if name not in names:
            known = ", ".join(f"{path} ({_about(builder, r, {})})" for path, r in names.items())
            raise UsageError(f"result '{name}': forward returns no such tensor that hangs on a neuron"
                             f"{nearest(name, names)}; it returns {known}")
    if here := [names[name] for name in asked if names[name] in found]:
        return [here]
    feeding = {r.path: _feeding(builder, r) for r in found}
    own = {r.path: {id(p) for p in _behind(builder, r.values)[:1]} for r in found}
    last = [r for r in found if not any(own[r.path] <= feeding[other.path] - own[other.path] for other in found)]
    return [[r] for r in last + [r for r in found if r not in last]]


def _feeding(builder: "Builder", result: Returned) -> set[int]:
    """The layers of neurons that a result hangs on within the last step, by id."""
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [value for value in result.values if value.neuron][-1:]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if not isinstance(value.function, NeuronCall):
            waiting.extend(value.parents())
            continue
        population = builder.folder.populations.get(id(value.function))
        if population is not None and population.calls[-1] is value.function:
            found.add(id(population))
            waiting.append(value.function.input)
    return found


def _parts(builder: "Builder", chosen: list[Returned], skipped: dict[int, HardspikeError],
           lost: dict[str, HardspikeError]) -> list[tuple[Sequence, Signal]]:
    """What some results are made of, with its signals; none where a neuron keeps it to itself."""
    parts: list[tuple[Sequence, Signal]] = []
    for result in chosen:
        for values in _frontier(builder, result.values, skipped):
            if any(values == other for other, _ in parts):
                continue
            expr = builder.sequence(values)
            try:
                signal = builder.signal(expr)
            except Cut:
                raise
            except HardspikeError as error:
                if not isinstance(expr, Fired):
                    raise Deeper(values, error) from error
                reason = skipped.get(id(values[0]), error)
                if not isinstance(error, Inside) or error.layer != expr.population.name:
                    raise reason from None
                lost[result.path] = reason
                return []
            builder.outputs.append(expr)
            parts.append((values, signal))
    return parts


def join(builder: "Builder", signals: list[Signal]) -> Signal:
    """Several signals in a row, as one: each takes its place by a matrix of zeros and ones."""
    if len(signals) == 1:
        return signals[0]
    rows = [row(builder, signal) for signal in signals]
    sizes = [signal.shape[0] for signal in rows]
    sources: tuple[str, ...] = ()
    for number, signal in enumerate(rows):
        weight = np.zeros((sum(sizes), sizes[number]))
        weight[sum(sizes[:number]):sum(sizes[:number + 1])] = np.eye(sizes[number])
        name = builder.assembly.free(f"{builder.assembly.end}_{number}")
        sources += builder.assembly.add(name, Piece({name: nir.Linear(weight)}, (sum(sizes),)), signal.sources)
    return Signal(sources, (sum(sizes),), (sum(sizes),))


def _about(builder: "Builder", result: Returned, skipped: dict[int, HardspikeError]) -> str:
    """What a result is made of, in words."""
    found = _frontier(builder, result.values, skipped)
    return " and ".join(builder.folder.words(values[0]) for values in found)


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


def _between(result: Sequence, parts: list[Sequence]) -> list[str]:
    """What is done to `parts` on the way to a result, in words."""
    stop = {id(value) for values in parts for value in values}
    words: dict[str, None] = {}
    waiting, seen = list(result), set()
    while waiting:
        value = waiting.pop(0)
        if id(value) in stop or id(value) in seen or isinstance(value.function, NeuronCall):
            continue
        seen.add(id(value))
        if value.function is not None and value.neuron:
            words[label(value.function)] = None
        waiting.extend(value.parents())
    return list(words)
