"""The first spike at which two runs part, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from eval.explain.cause import Pair, Place, cause
from eval.explain.terms import Side
from hardspike import UsageError, few
from targets.graph import Graph, plan
from targets.recording import Recording
from targets.target import Target

NEAR = 1e-12
"""Of the largest term so far: membranes of float64 that differ by less are equal."""


@dataclass(frozen=True)
class Ran:
    """One run: a graph on a target on recordings (T, B, *Input)."""

    name: str
    graph: Graph
    target: Target
    frames: Tensor


@dataclass(frozen=True)
class Spike:
    """The first spike that one run has and the other has not.

    Args:
        sample, step: from 0.
        layers: what the layer is called in A and in B.
        neuron: its index in its layer.
        fired: whether it did in A and in B.
        membranes, thresholds: at that step, in the graph's own units; membranes are None where a target gives none.
        parted: the first step at which the two membranes differ.
        unit: what terms are counted in.
        terms: of step `parted`.
        cause: one of `eval.explain.cause.CAUSES`, or "unknown" where a target gives no membranes.
        words: what is behind it.
    """

    sample: int
    step: int
    layers: tuple[str, str]
    neuron: tuple[int, ...]
    fired: tuple[bool, bool]
    membranes: tuple[float | None, float | None]
    thresholds: tuple[float, float]
    parted: int
    unit: str
    terms: list[Pair]
    cause: str
    words: str


@dataclass(frozen=True)
class Explanation:
    """What two runs have in common, and where they part.

    Args:
        spikes: of A and of B, over the layers that both have.
        differ: spikes of A that B has not, and the other way round.
        samples: in which any spike differs.
        layers: pairs of layers that were compared.
        first: None where no spike differs.
    """

    spikes: tuple[int, int]
    differ: int
    samples: int
    layers: list[tuple[str, str]] = field(default_factory=list)
    first: Spike | None = None


def measure(one: Ran, other: Ran) -> Explanation:
    """Where two runs on as many recordings part, and why.

    Raises:
        UsageError: they have no layer in common, or other numbers of recordings.
        HardspikeError: a target refuses its graph.
    """
    if one.frames.shape[1] != other.frames.shape[1]:
        raise UsageError(f"A runs on {one.frames.shape[1]} recordings, B on {other.frames.shape[1]}; give as many")
    whole = [ran.target.run_in_chunks(ran.graph, ran.frames) for ran in (one, other)]
    layers = paired(one.graph, other.graph, whole)
    a, b = ({pair: recording.spikes[pair[i]] for pair in layers} for i, recording in enumerate(whole))
    steps = min(len(one.frames), len(other.frames))
    wrong = {pair: (a[pair][:steps] != b[pair][:steps].reshape(a[pair][:steps].shape)) for pair in layers}
    total = (sum(int(s.sum(dtype=torch.int64)) for s in a.values()), sum(int(s.sum(dtype=torch.int64))
                                                                         for s in b.values()))
    differ = sum(int(w.sum()) for w in wrong.values())
    if not differ:
        return Explanation(total, 0, 0, layers)
    parted = torch.stack([w.flatten(2).any(2) for w in wrong.values()])  # layers, T, B
    samples = int(parted.any(0).any(0).sum())
    step = int(parted.any(2).any(0).nonzero()[0])
    layer, sample = (int(n) for n in parted[:, step].nonzero()[0])
    pair = layers[layer]
    neuron = wrong[pair][step, sample].nonzero()[0].tolist()
    first = _spike((one, other), sample, step, pair, neuron)
    return Explanation(total, differ, samples, layers, first)


def paired(one: Graph, other: Graph, recordings: Sequence[Recording]) -> list[tuple[str, str]]:
    """Layers of both graphs, in A's order: those of one name, or where names are all others, in their order.

    Raises:
        UsageError: there is none.
    """
    mine, theirs = recordings[0].spikes, recordings[1].spikes
    sizes = [{name: spikes[0, 0].numel() for name, spikes in part.items()} for part in (mine, theirs)]
    shared = [(name, name) for name in mine if sizes[1].get(name) == sizes[0][name]]
    if shared:
        return shared
    if list(sizes[0].values()) == list(sizes[1].values()) and mine:
        return list(zip(mine, theirs, strict=True))
    raise UsageError(f"A has the layers {few(mine) or 'none'}, B {few(theirs) or 'none'}; no two of one name and size")


def _spike(runs: tuple[Ran, Ran], sample: int, step: int, layers: tuple[str, str], neuron: list[int]) -> Spike:
    """What is known of the first spike; a run of that sample alone gives the membranes."""
    sides = [_side(ran, sample) for ran in runs]
    shape = plan(runs[0].graph).output_shape[layers[0]]
    flat = int(np.ravel_multi_index(neuron, shape))
    thresholds = (sides[0].threshold(layers[0], flat), sides[1].threshold(layers[1], flat))
    fired = tuple(bool(side.spikes(layer, flat)[step]) for side, layer in zip(sides, layers, strict=True))
    known = all(layer in side.recording.membrane for side, layer in zip(sides, layers, strict=True))
    found = Spike(sample, step, layers, tuple(neuron), (fired[0], fired[1]), (None, None), thresholds, step, "", [],
                  "unknown", "a target gives no membranes; run the graph on one that does, as loihi2 for Lava")
    if not known:
        return found
    alike = runs[0].graph is runs[1].graph or (sides[0].parts, sides[0].chip) == (sides[1].parts, sides[1].chip)
    place = Place((sides[0], sides[1]), layers, flat, (1.0, 1.0) if alike else thresholds)
    one, other = (side.membrane(layer, flat) for side, layer in zip(sides, layers, strict=True))
    parted = _parted(place, [one, other], step)
    why, words = _cause(place, [one, other], parted, step, fired[0] == fired[1])
    return replace(found, membranes=(float(one[step]), float(other[step])), parted=parted,
                   unit="the graph's unit" if alike else "thresholds", terms=place.pairs(parted), cause=why,
                   words=words)


def _cause(place: Place, membranes: list[np.ndarray], parted: int, step: int, alone: bool) -> tuple[str, str]:
    a, b = (place.sides[i].threshold(place.layers[i], place.neuron) / place.units[i] for i in (0, 1))
    if membranes[0][parted] / place.units[0] == membranes[1][parted] / place.units[1] and a != b:
        return "threshold", f"{a:.9g} in A, {b:.9g} in B, and the membranes are equal"
    if alone:
        return "rounding", "run alone, the sample gives the same spike in both: a target rounds otherwise where it " \
            "runs others beside it"
    if a != b and abs(a - b) > abs(membranes[0][step] / place.units[0] - membranes[1][step] / place.units[1]):
        return "threshold", f"{a:.9g} in A, {b:.9g} in B, further apart than the membranes"
    return cause(place, parted)


def _parted(place: Place, membranes: list[np.ndarray], step: int) -> int:
    """The first step in which the membranes differ by more than float64 rounds; `step` where they never do."""
    a, b = (membrane[:step + 1] / unit for membrane, unit in zip(membranes, place.units, strict=True))
    largest = np.maximum.accumulate(np.maximum(np.abs(a), np.abs(b)))
    apart = np.flatnonzero(np.abs(a - b) > NEAR * largest)
    return int(apart[0]) if len(apart) else step


def _side(ran: Ran, sample: int) -> Side:
    frames = ran.frames[:, sample:sample + 1]
    ran_again = ran.target.run(ran.graph, frames, membrane=ran.target.records_membranes)
    return Side(ran.name, ran.graph, ran.target, frames, ran_again)
