"""Quantise a graph for an integer target: weights to a few bits, thresholds and biases to the same integer units.

A layer u' = lambda*u + W*s + b, fire at u > theta, spikes alike when W, b and theta are multiplied by one scale, which
decides everything: weights become m * 2^e with m of the asked number of bits and e filling the target's weight
range, so that thresholds and biases keep that range's full resolution. Leaks are rounded to 4096ths.

Scaling by the largest weight (`max_abs`) wastes the few levels on outliers. `searched` tries scales around it, clipping
the largest weights, and then thresholds around theta, runs each candidate on the target's own integer arithmetic on
real samples, with all layers before it already quantised, and keeps the one whose spikes differ least from those of the
float network: what a layer hands on is what counts, not the weights' error.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import nir
import numpy as np
import torch
from torch import Tensor

from export.passes.rewrite import Edit
from export.passes.straighten import drop
from hardspike import HardspikeError, UsageError, nearest, progress
from hardspike.grid import TRIMS, clips, grid, least_error, rounded
from targets import metadata, reference
from targets.chips import limits_of
from targets.graph import LINEAR, plan
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
    """What the layers of one graph share: it in floats, and that it spikes as `wanted` on `spikes` (T, B, ...)."""

    graph: nir.NIRGraph
    spikes: Tensor
    wanted: dict[str, Tensor]
    chip: Target
    bits: int

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
    task = _Task(graph, spikes, reference.run(graph, spikes).spikes, chip, bits)
    current, rows, first = _round_leaks(graph, network), [], {}
    for name, layer in network.layers.items():  # all at once first: in a loop, each is another's input
        current, first[name] = _fitted(task, current, layer)
    for name, layer in progress(network.layers.items(), f"quantise to {bits} bits"):
        current, row = _searched(task, current, layer, first[name],
                                 *((_clips(graph, layer), TRIMS) if scale == "searched" else ((), ())))
        rows.append(row)
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


def _searched(task: _Task, current: nir.NIRGraph, layer: Layer, clip: float, clips: Sequence[float],
              trims: Sequence[float]) -> tuple[nir.NIRGraph, QuantisedLayer]:
    """The best of `clip` and `clips` with the threshold as it is, then of `trims` of the threshold; and the report."""
    best: tuple[int, float, float, nir.NIRGraph] | None = None
    wanted = task.wanted[layer.name]

    def consider(clip: float, trim: float) -> None:
        nonlocal best
        candidate = _apply(task, current, layer, clip, trim)
        if candidate is not None:
            got = task.chip.run(_ancestors(candidate, layer.name), task.spikes, layers=[layer.name]).spikes[layer.name]
            mismatches = int((got != wanted).sum())
            if best is None or mismatches < best[0]:
                best = mismatches, clip, trim, candidate

    for candidate in (clip, *clips):
        consider(candidate, 1.0)
    assert best is not None  # `_fitted` found a scale
    for trim in trims:
        consider(best[1], trim)
    mismatches, clip, trim, chosen = best
    done = split(plan(chosen)).layers[layer.name]
    step, levels = _grid(task.bits, task.limits)
    scale = clip * levels * step / _largest(task.graph, layer)
    weights = np.concatenate([np.abs(array(task.graph.nodes[name].weight)).ravel() for name in _linear(layer)])
    leak, moved = 1 - done.v_decay / DECAY_UNIT, np.abs(done.v_decay - layer.v_decay) / DECAY_UNIT
    return chosen, QuantisedLayer(
        layer.name, task.bits, step, float(scale), int(done.threshold.max()), float(trim - 1),
        int(np.abs(done.bias).max(initial=0)), float(leak.max()), float(moved.max()),
        float((weights * scale > (levels + 0.5) * step).mean()), int(wanted.sum(dtype=torch.int64)), mismatches)


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


def _apply(task: _Task, current: nir.NIRGraph, layer: Layer, clip: float, trim: float) -> nir.NIRGraph | None:
    """`current` with one layer in integers; None where its threshold or bias leave their range."""
    step, levels = _grid(task.bits, task.limits)
    scale = clip * levels * step / _largest(task.graph, layer)
    edit = Edit(current)
    _put_back(edit, task.graph, layer)
    for name in _linear(layer):
        node = copy.copy(task.graph.nodes[name])
        node.weight = rounded(array(node.weight), scale, step, levels)
        if hasattr(node, "bias"):
            node.bias = np.round(array(node.bias) * scale)
        edit.nodes[name] = node
    _drop_zeros(edit, layer)
    threshold = np.round(layer.threshold * scale * trim)
    if threshold.min() < LOWEST_THRESHOLD:
        return None
    if (threshold.max() > task.limits.threshold.known
            or np.abs(layer.bias * scale).max(initial=0) + 1 > task.limits.bias.known):
        return None
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


def _round_leaks(graph: nir.NIRGraph, network: Network) -> nir.NIRGraph:
    """Leaks in 4096ths; a leak that rounds to none becomes an integrator, so that no tau is infinite."""
    edit, dt = Edit(graph), network.plan.dt
    for layer in network.layers.values():
        for name in layer.members:
            node = edit.nodes[name]
            if not isinstance(node, nir.LIF | nir.LI | nir.CubaLIF):
                continue
            shape = network.plan.input_shape[name]
            synapse = name == layer.synapse
            decay = np.broadcast_to(np.round(layer.i_decay if synapse else layer.v_decay), shape).copy()
            if (decay == 0).any() or (np.round(layer.i_decay) == 0).any():
                raise HardspikeError(f"layer '{name}': its leak rounds to 4096/4096, none at all; use beta 1 (no leak) "
                                     "or below 0.9998")
            node = copy.copy(node)
            tau = dt * DECAY_UNIT / decay
            if isinstance(node, nir.CubaLIF):
                node.tau_mem, node.tau_syn = tau, dt * DECAY_UNIT / np.broadcast_to(np.round(layer.i_decay), shape)
                node.w_in = node.tau_syn / dt
            else:
                node.tau = tau
            node.r = tau / dt
            edit.nodes[name] = node
    return edit.graph()


def _ancestors(graph: nir.NIRGraph, name: str) -> nir.NIRGraph:
    """The part of `graph` that decides about the spikes of `name`, with an Output there."""
    whole = nx.DiGraph(graph.edges)
    keep = nx.ancestors(whole, name) | {name}
    end = Edit(graph).fresh("output")
    nodes = {n: node for n, node in graph.nodes.items() if n in keep} | {end: nir.Output({"output": None})}
    edges = [(a, b) for a, b in graph.edges if a in keep and b in keep] + [(name, end)]
    return nir.NIRGraph(nodes, edges, metadata=dict(graph.metadata), type_check=False)


def _quantise_readout(graph: nir.NIRGraph, network: Network, bits: int, limits: Limits) -> nir.NIRGraph:
    """The host's linear readout in integers; the class is an argmax, so the unit of a single one does not matter.

    Several readout layers would need one unit; the host computes those in floats, as they are.
    """
    edit = Edit(graph)
    step, levels = _grid(bits, limits)
    linear = [name for name in network.readout if isinstance(edit.nodes[name], LINEAR)]
    for name in linear if len(linear) == 1 else ():
        node = edit.nodes[name]
        weight = array(node.weight).astype(np.float64)
        scale = least_error(weight, step, levels)
        node = copy.copy(node)
        node.weight = rounded(weight, scale, step, levels)
        if hasattr(node, "bias"):
            node.bias = np.round(array(node.bias) * scale)
        edit.nodes[name] = node
    return edit.graph()
