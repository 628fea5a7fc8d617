"""Quantise a graph for an integer target: weights to a few bits, thresholds and biases to the same integer units.

A layer u' = lambda*u + W*s + b, fire at u > theta, spikes alike when W, b and theta are multiplied by one scale, which
decides everything: weights become m * 2^e with m of the asked number of bits and e filling the target's weight
range, so that thresholds and biases keep that range's full resolution. Leaks are rounded to 4096ths.

Scaling by the largest weight (`max_abs`) wastes the few levels on outliers. `searched` tries scales around it, clipping
the largest weights, and then thresholds around theta, runs each candidate on the target's own integer arithmetic on
real samples, with all layers before it already quantised, and keeps the one whose spikes differ least from those of the
float network: what a layer hands on is what counts, not the weights' error. Layers that differ by their thresholds
alone, the levels of an I-LIF neuron, get one scale.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import networkx as nx
import nir
import numpy as np
import torch
from torch import Tensor

from export.passes.levels import fired, forgets, levels, summed
from export.passes.rewrite import Edit
from export.passes.round_leaks import round_leaks
from export.passes.straighten import drop
from hardspike import HardspikeError, UsageError, nearest, progress
from hardspike.grid import TRIMS, clips, grid, least_error, rounded
from targets import metadata, reference
from targets.chips import limits_of
from targets.graph import LINEAR, ends, is_row, plan
from targets.graph.shapes import array
from targets.limits import Limits
from targets.loihi.layers import DECAY_UNIT, Layer, Network, split, taken_off
from targets.metadata import Quantised
from targets.target import Target

SCALES = ("searched", "max_abs")
LOWEST_THRESHOLD = 1
"""In integer units; a threshold of 0 would fire at rest."""


@dataclass
class QuantisedLayer:
    """What quantising did to one layer (report).

    Args:
        layer: its neurons.
        bits: of a weight.
        step: weights are multiples of this (2^e).
        scale: integer units per float unit.
        threshold: largest threshold, integer.
        threshold_trim: integer threshold over scale * float threshold, less 1.
        bias: largest |bias|, integer.
        leak: leak per step as it is now (largest change in `leak_error`).
        leak_error: largest |leak - float leak|.
        clipped: share of weights that were clipped.
        spikes: of the float network on the samples used.
        mismatches: spikes that differ there, all layers before it quantised too.
    """

    layer: str
    bits: int
    step: int
    scale: float
    threshold: int
    threshold_trim: float
    bias: int
    leak: float
    leak_error: float
    clipped: float
    spikes: int
    mismatches: int


@dataclass(frozen=True)
class _Task:
    """What the layers of one graph share: it in floats, and that it spikes as `wanted` on `spikes` (T, B, ...).

    `done`: spikes of the quantised layers so far, in no loop, and of the Input once the chip took them.
    """

    graph: nir.NIRGraph
    network: Network
    spikes: Tensor
    wanted: dict[str, Tensor]
    chip: Target
    bits: int
    done: dict[str, Tensor] = field(default_factory=dict)

    @property
    def limits(self) -> Limits:
        """Of the chip."""
        return limits_of(self.chip)


def quantise(graph: nir.NIRGraph, spikes: Tensor, chip: Target, bits: int = 8,
             scale: str = "searched") -> tuple[nir.NIRGraph, list[QuantisedLayer]]:
    """An integer graph for a chip, and what changed.

    Args:
        graph: folded (no BatchNorm, no pooling, gains 1).
        spikes: real samples (T, B, ...) to choose scales on; training ones.
        chip: whose limits hold, and whose own arithmetic the candidates run in.
        bits: of a weight, 2 to 8.
        scale: searched or max_abs.

    Returns:
        a valid NIR graph in integer units, its readout included, with `quantised` in its metadata; one row a layer.

    Raises:
        UsageError: bits or scale out of range.
        HardspikeError: a layer that no scale fits into the chip's limits, or a graph that is no layers of neurons.
    """
    if not 2 <= bits <= 8:
        raise UsageError(f"bits {bits}: a weight has 2 to 8 bits")
    if scale not in SCALES:
        raise UsageError(f"scale '{scale}' is unknown{nearest(scale, SCALES)}; known: {', '.join(SCALES)}")
    network, limits = split(plan(graph)), limits_of(chip)
    if network.problems:
        problem = str(network.problems[0]).removeprefix("error: ")
        raise HardspikeError(f"{limits.chip} cannot hold this graph: {problem}")
    for name, layer in network.layers.items():
        if layer.threshold.min() <= 0:
            raise HardspikeError(f"layer '{name}': threshold {layer.threshold.min():g}; {limits.chip} compares with "
                                 f"{LOWEST_THRESHOLD} or more: train with positive thresholds")
    task = _Task(graph, network, spikes, reference.run(graph, spikes).spikes, chip, bits)
    current, rows, first = round_leaks(graph, network), [], {}
    for name, layer in network.layers.items():  # all at once first: in a loop, each is another's input
        current, first[name] = _fitted(task, current, layer)
    for layers in progress(levels(network), f"quantise to {bits} bits"):
        clips, trims = (_clips(graph, layers[0]), TRIMS) if scale == "searched" else ((), ())
        clips = (*{first[layer.name]: None for layer in layers}, *clips)
        current, found = _searched(task, current, layers, clips, trims)
        rows += found
    current = _quantise_readout(current, network, bits, limits)
    mark = Quantised(limits.chip, bits, scale, {row.layer: row.scale for row in rows})
    return metadata.mark_quantised(current, mark), rows


def _fitted(task: _Task, current: nir.NIRGraph, layer: Layer) -> tuple[nir.NIRGraph, float]:
    """`current` with one layer scaled by its largest weight, or by less where its threshold or bias then fits."""
    for factor in (1 / 1.25, 1.25):  # down until threshold and bias are small enough, else up until large enough
        clip = 1.0
        while 1e-3 < clip < 1e5:
            candidate = _apply(task, current, layer, clip, 1.0)
            if candidate is not None:
                return candidate, clip
            clip *= factor
    limits = task.limits
    largest, bias = _largest(task.graph, layer), np.abs(layer.bias).max(initial=0)
    low, high = layer.threshold.min(), layer.threshold.max()
    if high / low > limits.threshold.value:
        advice = "train with thresholds that are closer to one another"
    elif bias / high > limits.bias.value / LOWEST_THRESHOLD or bias > high:
        advice = "train with smaller biases"
    else:
        advice = "train with a lower threshold"
    raise HardspikeError(
        f"layer '{layer.name}': no scale brings its weights (largest {largest:.3g}), bias (largest {bias:.3g}) and "
        f"threshold ({high:.3g}) into the ranges of {limits.chip}; {advice}")


def _clips(graph: nir.NIRGraph, layer: Layer) -> np.ndarray:
    """Candidates of the scale of a layer."""
    return clips(np.concatenate([np.abs(array(graph.nodes[name].weight)).ravel() for name in _linear(layer)]))


def _searched(task: _Task, current: nir.NIRGraph, layers: list[Layer], clips: Sequence[float],
              trims: Sequence[float]) -> tuple[nir.NIRGraph, list[QuantisedLayer]]:
    """The best of `clips` with the thresholds as they are, then of `trims` of the thresholds; and the report.

    Args:
        layers: that get one scale, see `levels`.

    Raises:
        HardspikeError: no scale fits all of them.
    """
    best: tuple[int, float, float, dict[str, Tensor]] | None = None
    spikes_of = _at_once(task, current, layers) or _on_chip(task, current, layers)

    def consider(clip: float, trim: float) -> None:
        nonlocal best
        if any(_threshold(task, layer, clip, trim) is None for layer in layers):
            return
        got = spikes_of(clip, trim)
        mismatches = sum(int((got[layer.name] != task.wanted[layer.name]).sum()) for layer in layers)
        if best is None or mismatches < best[0]:
            best = mismatches, clip, trim, got

    for candidate in clips:
        consider(candidate, 1.0)
    if best is None:
        raise HardspikeError(f"layers {', '.join(repr(layer.name) for layer in layers)}: no scale brings all of their "
                             f"thresholds into the range of {task.limits.chip}; train with thresholds that are closer "
                             "to one another")
    for trim in trims:
        consider(best[1], trim)
    _, clip, trim, got = best
    for layer in layers:
        chosen = _apply(task, current, layer, clip, trim)
        assert chosen is not None  # it was tried
        current = chosen
        if not task.network.recurrent(layer):
            task.done[layer.name] = got[layer.name]
    return current, [_row(task, current, layer, clip, trim, got[layer.name]) for layer in layers]


def _on_chip(task: _Task, current: nir.NIRGraph, layers: list[Layer]) -> Callable[[float, float], dict[str, Tensor]]:
    """Spikes of layers at a scale and a trim, of the chip itself, all layers before them included."""
    names = [layer.name for layer in layers]

    def run(clip: float, trim: float) -> dict[str, Tensor]:
        graph: nir.NIRGraph | None = current
        for layer in layers:
            graph = _apply(task, graph, layer, clip, trim)
            assert graph is not None  # thresholds fit
        found = task.chip.run(_ancestors(graph, names), task.spikes, layers=names).spikes
        task.done[task.network.plan.input] = task.spikes  # the chip takes them
        return found
    return run


def _at_once(task: _Task, current: nir.NIRGraph,
             layers: list[Layer]) -> Callable[[float, float], dict[str, Tensor]] | None:
    """The same for neurons without a memory behind layers that are done; None for others, and for chips that compute
    otherwise than Lava."""
    network = task.network
    sources = {c.source for layer in layers for c in layer.connections}
    if not task.chip.like_lava or not sources <= task.done.keys() \
            or not all(forgets(network, layer) for layer in layers):
        return None
    sums: dict[float, Tensor | None] = {}

    def run(clip: float, trim: float) -> dict[str, Tensor]:
        if clip not in sums:
            sums.clear()  # trims come after all scales
            scale = _scale(task, layers[0], clip)
            nodes = {name: _rounded(task, name, scale) for name in _linear(layers[0])}
            sums[clip] = summed(network.plan, layers[0], nodes, task.done)
        total = sums[clip]
        if total is None:
            return _on_chip(task, current, layers)(clip, trim)
        return {layer.name: fired(total, threshold) for layer in layers
                if (threshold := _threshold(task, layer, clip, trim)) is not None}
    return run


def _row(task: _Task, graph: nir.NIRGraph, layer: Layer, clip: float, trim: float, got: Tensor) -> QuantisedLayer:
    """The report of one layer as it is in `graph`."""
    done, wanted = split(plan(graph)).layers[layer.name], task.wanted[layer.name]
    step, levels = _grid(task.bits, task.limits)
    scale = _scale(task, layer, clip)
    weights = np.concatenate([np.abs(array(task.graph.nodes[name].weight)).ravel() for name in _linear(layer)])
    leak, moved = 1 - done.v_decay / DECAY_UNIT, np.abs(done.v_decay - layer.v_decay) / DECAY_UNIT
    return QuantisedLayer(
        layer.name, task.bits, step, float(scale), int(done.threshold.max()), float(trim - 1),
        int(np.abs(done.bias).max(initial=0)), float(leak.max()), float(moved.max()),
        float((weights * scale > (levels + 0.5) * step).mean()), int(wanted.sum(dtype=torch.int64)),
        int((got != wanted).sum()))


def _linear(layer: Layer) -> list[str]:
    """The linear nodes that feed a layer, once each."""
    return list(dict.fromkeys(c.linear for c in layer.connections))


def _largest(graph: nir.NIRGraph, layer: Layer) -> float:
    """The largest |weight| that feeds a layer.

    Raises:
        HardspikeError: there is none but zero.
    """
    largest = max(float(np.abs(array(graph.nodes[name].weight)).max()) for name in _linear(layer))
    if not largest > 0:
        raise HardspikeError(f"layer '{layer.name}': all weights are zero; train again, or remove the layer")
    return largest


def _grid(bits: int, limits: Limits) -> tuple[int, int]:
    """(2^e, largest m): weights are m * 2^e, filling the target's range."""
    return grid(bits, limits.weight_max.known)


def _scale(task: _Task, layer: Layer, clip: float) -> float:
    """Integer units per float unit where the largest weight is `clip` times the largest level."""
    step, levels = _grid(task.bits, task.limits)
    return clip * levels * step / _largest(task.graph, layer)


def _rounded(task: _Task, name: str, scale: float) -> nir.NIRNode:
    """A linear node in integers."""
    node = copy.copy(task.graph.nodes[name])
    node.weight = rounded(array(node.weight), scale, *_grid(task.bits, task.limits))
    if hasattr(node, "bias"):
        node.bias = np.round(array(node.bias) * scale)
    return node


def _threshold(task: _Task, layer: Layer, clip: float, trim: float) -> np.ndarray | None:
    """The threshold of a layer in integers; None where it or the bias leave their range."""
    scale = _scale(task, layer, clip)
    threshold = np.round(layer.threshold * scale * trim)
    fits = (threshold.min() >= LOWEST_THRESHOLD and threshold.max() <= task.limits.threshold.known
            and np.abs(layer.bias * scale).max(initial=0) + 1 <= task.limits.bias.known)
    return threshold if fits else None


def _apply(task: _Task, current: nir.NIRGraph, layer: Layer, clip: float, trim: float) -> nir.NIRGraph | None:
    """`current` with one layer in integers; None where its threshold or bias leave their range."""
    threshold = _threshold(task, layer, clip, trim)
    if threshold is None:
        return None
    edit, scale = Edit(current), _scale(task, layer, clip)
    _put_back(edit, task.graph, layer)
    for name in _linear(layer):
        edit.nodes[name] = _rounded(task, name, scale)
    _drop_zeros(edit, layer)
    fire = copy.copy(edit.nodes[layer.name])
    threshold = np.broadcast_to(threshold, layer.shape).copy()
    setattr(fire, "threshold" if isinstance(fire, nir.Threshold) else "v_threshold", threshold)
    edit.nodes[layer.name] = fire
    for name in layer.members:
        if isinstance(edit.nodes[name], nir.Scale):
            edit.nodes[name] = nir.Scale(-taken_off(threshold, np.round(layer.v_decay), layer.reset))
    return edit.graph()


def _put_back(edit: Edit, graph: nir.NIRGraph, layer: Layer) -> None:
    """The connections of a layer that another scale rounded away."""
    for connection in layer.connections:
        for name in connection.nodes:
            edit.nodes.setdefault(name, graph.nodes[name])
    missing = [tuple(edge) for edge in graph.edges if tuple(edge) not in set(edit.edges)]
    edit.edges += [edge for edge in missing if edge[0] in edit.nodes and edge[1] in edit.nodes
                   and any(end in connection.nodes for connection in layer.connections for end in edge)]


def _drop_zeros(edit: Edit, layer: Layer) -> None:
    """Connections whose weights all round to zero: Lava has none such. Their biases go to one that stays."""
    linear = _linear(layer)
    kept = next((name for name in linear if array(edit.nodes[name].weight).any()), None)
    for name in linear if kept else ():
        if array(edit.nodes[name].weight).any():
            continue
        bias = array(getattr(edit.nodes[name], "bias", np.zeros(1)))
        if bias.any():
            rest = copy.copy(edit.nodes[kept])
            if isinstance(rest, nir.Linear):
                rest = nir.Affine(rest.weight, np.zeros(len(array(rest.weight))))
            rest.bias = array(rest.bias) + bias
            edit.nodes[kept] = rest
        drop(edit, name)


def _ancestors(graph: nir.NIRGraph, names: list[str]) -> nir.NIRGraph:
    """The part of `graph` that decides about the spikes of `names`, of one shape, with an Output there."""
    whole = nx.DiGraph(graph.edges)
    keep = set(names).union(*(nx.ancestors(whole, name) for name in names))
    end = Edit(graph).fresh("output")
    nodes = {n: node for n, node in graph.nodes.items() if n in keep} | {end: nir.Output({"output": None})}
    edges = [(a, b) for a, b in graph.edges if a in keep and b in keep] + [(name, end) for name in names]
    return nir.NIRGraph(nodes, edges, metadata=dict(graph.metadata), type_check=False)


def _quantise_readout(graph: nir.NIRGraph, network: Network, bits: int, limits: Limits) -> nir.NIRGraph:
    """The host's linear readout in integers; the class is an argmax, so the unit of a single one does not matter.

    Several readout layers would need one unit, and of a picture, which is no row of classes, the unit matters to who
    takes it on: the host computes those in floats, as they are.
    """
    edit = Edit(graph)
    step, levels = _grid(bits, limits)
    linear = [name for name in network.readout if isinstance(edit.nodes[name], LINEAR)]
    for name in linear if len(linear) == 1 and is_row(ends(graph)[1]) else ():
        node = edit.nodes[name]
        weight = array(node.weight).astype(np.float64)
        scale = least_error(weight, step, levels)
        node = copy.copy(node)
        node.weight = rounded(weight, scale, step, levels)
        if hasattr(node, "bias"):
            node.bias = np.round(array(node.bias) * scale)
        edit.nodes[name] = node
    return edit.graph()
