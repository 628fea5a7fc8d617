"""Which calls of a neuron are its steps, and whether it remembers from one to the next."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.watch.failed import SAY_STEPS
from export.watch.picked import see_through
from export.watch.usage import Usage
from export.watch.values import NeuronCall, Value, label, tensors
from hardspike import HardspikeError


@dataclass(eq=False)
class Population:
    """One layer of neurons: a neuron's calls of one chain of states, one call a step.

    `name` is unique; `forgets`: the states that are made anew in every step.
    """

    name: str
    module: nn.Module
    calls: list[NeuronCall]
    forgets: frozenset[str]

    def shape(self) -> tuple[int, ...]:
        """Without the batch."""
        return self.calls[0].input.shape[1:]


def populations(called: dict[str, list[NeuronCall]], outer: int | None = None) -> tuple[int, list[Population]]:
    """The number of steps and the layers of neurons, in the order in which they are first called.

    Args:
        called: name of a neuron -> its calls.
        outer: calls of forward, where each is one step.

    Raises:
        HardspikeError: neurons are called a different number of times, or their states are neither kept nor made anew.
    """
    chains = {name: chains_of(calls) for name, calls in called.items()}
    counts = {name: max(map(len, _tracks(found))) for name, found in chains.items()}
    steps = outer or max(counts.values())
    result = []
    for name, found in chains.items():
        calls = called[name]
        if all(len(chain) == 1 for chain in found) and steps > 1:  # nothing is kept: places take turns
            places = max(1, len(calls) // steps)
            found = [calls[place::places] for place in range(places)] if len(calls) % steps == 0 else [calls]
        else:
            found = _tracks(found)
        for number, chain in enumerate(found):
            _count(name, chain, steps, counts, outer)
            result.append(Population(f"{name}_{number}" if number else name, chain[0].module, chain, _forgets(chain)))
    return steps, result


def _count(name: str, chain: list[NeuronCall], steps: int, counts: dict[str, int], outer: int | None) -> None:
    if len(chain) == steps:
        return
    kind = type(chain[0].module).__name__
    if len(chain) % steps == 0 and len(chain) > steps:
        raise HardspikeError(f"layer '{name}' ({kind}): forward calls it {len(chain) // steps} times in a step, and it "
                             "has one state; give each place a neuron of its own")
    if outer:
        raise HardspikeError(f"layer '{name}' ({kind}): is called {len(chain)} times in {steps} calls of forward; a "
                             "graph runs every layer in every step: call it once in each (if the loop over time is in "
                             f"forward, say {SAY_STEPS.format('forward')})")
    other = next(key for key, count in counts.items() if count == steps)
    raise HardspikeError(f"layer '{name}' ({kind}): is called {len(chain)} times where '{other}' is called {steps} "
                         "times; a graph runs every layer in every step: call each once in every step")


def chains_of(calls: list[NeuronCall]) -> list[list[NeuronCall]]:
    """Calls that hand their states on to one another."""
    chains: list[list[NeuronCall]] = []
    for call in calls:
        before = {id(origin) for value, zero in call.states.values()
                  if value is not None and (origin := _origin(value)) is not None}
        chain = next((c for c in chains if id(c[-1]) in before), None)
        if chain is None:
            chains.append([call])
        else:
            chain.append(call)
    return chains


def _tracks(chains: list[list[NeuronCall]]) -> list[list[NeuronCall]]:
    """Chains that follow one another in time are one layer's, reset in between; those side by side are layers."""
    tracks: list[list[NeuronCall]] = []
    for chain in chains:
        track = next((t for t in tracks if t[-1].number < chain[0].number), None)
        if track is None:
            tracks.append(list(chain))
        else:
            track.extend(chain)
    return tracks


def _origin(value: Value) -> NeuronCall | None:
    value = see_through(value)
    return value.function if isinstance(value.function, NeuronCall) else None


def _forgets(chain: list[NeuronCall]) -> frozenset[str]:
    """The states with which every step starts from zero; the others are what the step before left.

    Raises:
        HardspikeError: neither.
    """
    head = f"layer '{chain[0].name}' ({type(chain[0].module).__name__})"
    kept = [_kept(head, call, chain[step - 1] if step else None, step) for step, call in enumerate(chain)]
    if any(kept[0].values()):
        raise HardspikeError(f"{head}: starts from what an earlier run left; a graph starts at zero: reset the states "
                             "first")
    for role in kept[0]:
        later = [kinds[role] for kinds in kept[1:]]
        if len(set(later)) > 1:
            step = 1 + next(n for n, value in enumerate(later) if value != later[0])
            raise HardspikeError(f"{head}: its state '{role}' is {'kept' if later[0] else 'made anew'} in step 1 and "
                                 f"{'made anew' if later[0] else 'kept'} in step {step}; a graph does the same in "
                                 "every step: reset before the first step alone, and give one sequence at a time")
    return frozenset(role for role in kept[0] if kept[1:] and not kept[1][role])


def _kept(head: str, call: NeuronCall, before: NeuronCall | None, step: int) -> dict[str, bool]:
    """Which of its states a call starts from as the call before left them; the others start from zero."""
    kinds = {}
    for role, (value, zero) in call.states.items():
        source = None if value is None else see_through(value)
        if source is not None and before is not None and source.function is before and source.index == role:
            kinds[role] = True
        elif value is None or (zero and not source.neuron):
            kinds[role] = False
        elif not source.neuron:
            raise HardspikeError(f"{head}: step {step} starts from a state '{role}' that is not zero; a graph starts "
                                 "at zero: reset the states before the run (init_leaky, utils.reset), and leave them "
                                 "to the neuron after it")
        else:
            what = f"'{source.index}' of '{source.function.name}'" if isinstance(source.function, NeuronCall) else \
                f"operation '{label(source.function)}'"
            raise HardspikeError(f"{head}: its state '{role}' comes from {what} in step {step}, not from its own last "
                                 "step; a NIR neuron keeps its state to itself: hand back what it returned, in the "
                                 "order in which it takes it")
    return kinds


def is_zero(value: Value) -> bool:
    """Whether it is zero whatever goes in."""
    return value.constant() and value.tensor is not None and not bool(value.tensor.any())


def in_order(usage: Usage, values: Sequence[Value]) -> bool:
    """Whether what the steps take is x[t] or x[:, t] of what the user hands over, or the whole of it in every step."""
    given = [tensor for _, tensor in tensors((usage.args, usage.kwargs))]
    if usage.outside or not given or len(values) == 1:
        return True
    if len(given) >= len(values) and all(_is(v, tensor) for v, tensor in zip(values, given, strict=False)):
        return True  # a list of steps
    return any(all(_is(value, tensor) for value in values) or any(
        tensor.shape[axis] >= len(values) and all(_is(v, tensor.select(axis, t)) for t, v in enumerate(values))
        for axis in range(min(3, tensor.ndim))) for tensor in given)


def _is(value: Value, tensor: Tensor) -> bool:
    return value.tensor is not None and value.tensor.numel() == tensor.numel() and torch.equal(
        value.tensor.detach().reshape(-1).double().cpu(), tensor.detach().reshape(-1).double().cpu())
