"""Several sequences in one run: two recordings that are compared, samples one after the other, calls with a reset.

A run falls apart into sequences where all neurons that keep a state begin anew together, and nothing of an earlier
sequence reaches a later one. Each is folded for itself, and all have to be the same graph.
"""

from dataclasses import dataclass
from itertools import pairwise

from export.watch.steps import Population, chains_of, populations
from export.watch.usage import Run
from export.watch.values import NeuronCall
from hardspike import HardspikeError

Calls = dict[str, list[NeuronCall]]


@dataclass
class Sequence:
    """One of a run.

    Args:
        steps: how many it has.
        neurons: its layers.
        results: which of the calls of forward are its, where each is one step.
        others: whether there are others in the run.
    """

    steps: int
    neurons: list[Population]
    results: slice
    others: bool


def sequences(run: Run) -> list[Sequence]:
    """The sequences of a run, in order.

    Raises:
        HardspikeError: see `populations`; calls of forward that are one step and not two.
    """
    outer = len(run.results) if run.usage.outside else None
    if outer is not None and outer < 2:
        raise HardspikeError(f"{run.usage.name()}: one step does not show what is kept from one to the next; samples "
                             "(T, B, ...) with T of 2 or more are needed")
    found, start, apart = [], 0, _apart(run.recorder.calls, outer)
    for calls, length in apart:
        steps, neurons = populations(calls, length if outer else None)
        found.append(Sequence(steps, neurons, slice(start, start + steps), len(apart) > 1))
        start += steps
    return found


def _apart(calls: Calls, outer: int | None) -> list[tuple[Calls, int | None]]:
    """The calls of each sequence, and its length; all calls where the run is one sequence."""
    whole = [(calls, outer)]
    chains = {name: chains_of(made) for name, made in calls.items()}
    keeping = {name: found for name, found in chains.items() if any(len(chain) > 1 for chain in found)}
    lengths = {tuple(map(len, found)) for found in keeping.values()}
    if len(lengths) != 1 or len(sizes := lengths.pop()) < 2 or min(sizes) < 2:
        return whole
    if outer is not None and sum(sizes) != outer:
        return whole
    parts: list[Calls] = [{} for _ in sizes]
    for name, made in calls.items():
        if name in keeping:
            shares = keeping[name]
            if any(one[-1].number > next_[0].number for one, next_ in pairwise(shares)):
                return whole
        else:  # nothing is kept: as many calls a step as go round
            times = len(made) // sum(sizes)
            if times * sum(sizes) != len(made):
                return whole
            ends = [times * sum(sizes[:n]) for n in range(len(sizes) + 1)]
            shares = [made[a:b] for a, b in pairwise(ends)]
        for part, share in zip(parts, shares, strict=True):
            part[name] = share
    if any(_hears(part, parts[:number]) for number, part in enumerate(parts)):
        return whole
    return list(zip(parts, sizes, strict=True))


def _hears(part: Calls, earlier: list[Calls]) -> bool:
    """Whether anything that its neurons get was given by a neuron of an earlier one."""
    others = {id(call) for one in earlier for made in one.values() for call in made}
    waiting, seen = [call.input for made in part.values() for call in made], set()
    while waiting and others:
        value = waiting.pop()
        if id(value) in seen or not value.neuron:
            continue
        seen.add(id(value))
        if id(value.function) in others:
            return True
        waiting.extend(value.parents())
    return False
