"""How far float32 can carry a membrane away from float64: the bound that every first difference has to respect.

Until the first spike that differs, both runs see the same spikes, so each membrane is one sum of known terms. If no
term passes through more than k roundings on its way into the sum, in whatever order, the sum errs by at most
k u / (1 - k u), u = 2^-24, times the sum of the terms' absolute values (Higham 2002, sec. 3.1). A term of the first
step passes the operations of every later step as well, so k grows by the operations of one step with every step.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx
import nir
import numpy as np
import torch
from torch import Tensor

from targets.graph import Plan, plan
from targets.graph.shapes import array
from targets.nodes import stateless as linear
from targets.nodes.neurons import STEPS, coefficients, delay_steps
from targets.recording import Recording
from targets.reference import before_start

UNIT_ROUNDOFF = 2.0**-24
"""Of float32."""


@dataclass
class FirstDifferences:
    """Where a float32 run parts from the float64 run.

    Args:
        samples: how many there are.
        differing: samples in which any spike differs.
        spikes: spikes that differ in all, knock-on effects included.
        beyond: first differences whose float64 membrane is further from the threshold than rounding can explain.
        worst: largest |membrane - threshold| / bound among the first differences (<= 1 when all are explained).
        largest_bound: the largest bound that any of them had, in units of the threshold's layer.
        outputs_beyond: values at the graph's Output, before a sample's first difference, that are further apart than
            rounding can explain.
    """

    samples: int
    differing: int
    spikes: int
    beyond: int
    worst: float
    largest_bound: float
    outputs_beyond: int = 0


def first_differences(graph: nir.NIRGraph, frames: Tensor, exact: Recording, spikes: dict[str, Tensor],
                      output: Tensor | None = None, dt: float | None = None) -> FirstDifferences:
    """Compare float32 `spikes` (layer -> (T, B, ...)) with `exact`, a float64 recording with membranes.

    A sample's first difference is the earliest step that differs, in the first layer (in graph order) that differs in
    it; every neuron there is judged. Later ones are consequences. Where `output` (T, B, ...) of the float32 run is
    given, it is judged as well, in the steps before the first difference: the readout has no spikes.

    Raises:
        HardspikeError: `graph` cannot be planned.
    """
    layout = plan(graph, dt)
    bounds = membrane_bounds(layout, frames, exact)
    names = [name for name in exact.spikes if name in spikes]  # an OR of spikes is no layer of the network's
    steps, samples = frames.shape[:2]
    differs = {name: exact.spikes[name] != spikes[name].to(exact.spikes[name].dtype) for name in names}
    result = FirstDifferences(samples, 0, sum(int(d.sum()) for d in differs.values()), 0, 0.0, 0.0)
    # (B, T * layers): time, then layer
    by_cell = torch.stack([d.flatten(2).any(2) for d in differs.values()], 2).transpose(0, 1).flatten(1) if names \
        else torch.zeros(samples, 0, dtype=torch.bool)
    for sample in range(samples):
        first = by_cell[sample].nonzero().flatten()[:1]
        t = int(first) // len(names) if len(first) else steps
        if output is not None:
            off = (output[:t, sample] - exact.output[:t, sample]).abs()
            result.outputs_beyond += int((~(off <= bounds[layout.output][:t, sample])).sum())
        if not len(first):
            continue
        result.differing += 1
        name = names[int(first) % len(names)]
        where = differs[name][t, sample]
        node = layout.nodes[name]
        threshold = coefficients(name, node, layout.input_shape[name], layout.dt)["threshold"]
        distance = (exact.membrane[name][t, sample] - threshold).abs()[where]
        allowed = bounds[name][t, sample][where]
        result.beyond += int((distance > allowed).sum())
        result.worst = max(result.worst, float((distance / allowed).max()))
        result.largest_bound = max(result.largest_bound, float(allowed.max()))
    return result


def membrane_bounds(layout: Plan, frames: Tensor, exact: Recording) -> dict[str, Tensor]:
    """|float32 - float64| of every spiking node's membrane and of the Output, (T, B, ...), given the spikes of `exact`.

    k u / (1 - k u) * M[t], with k = (t + 1) times the roundings of one step, and M what the same graph gives when every
    parameter and input is made positive and nothing is reset.
    """
    # Emitted spikes are known, so a spiking node is a source
    paths = nx.DiGraph((edge.source, edge.target) for edge in layout.edges if edge.source not in exact.spikes)
    bounds, factors = {}, {}
    for name in (*exact.spikes, layout.output):
        bounds[name] = torch.zeros(*frames.shape[:2], *layout.input_shape[name], dtype=torch.float64)
        behind = {name} | (nx.ancestors(paths, name) if name in paths else set())
        passed = sum(roundings(layout.nodes[n]) + len(layout.sources(n)) for n in behind)
        k = torch.arange(1, len(frames) + 1, dtype=torch.float64) * passed * UNIT_ROUNDOFF
        factors[name] = k / (1 - k).clamp(min=UNIT_ROUNDOFF)
    magnitudes = {name: _magnitude(layout, name) for name in layout.nodes}
    delays = {name: delay_steps(name, node, layout.input_shape[name], layout.dt)
              for name, node in layout.nodes.items() if isinstance(node, nir.Delay)}
    longest = max([1, *(int(steps.max()) for steps in delays.values())])  # an edge of a loop is a step late
    past = [{name: value.abs() for name, value in before_start(layout).items()}]
    for t, frame in enumerate(frames.double().abs()):
        # What every node gave 0, 1, ... steps ago
        ages = [{layout.input: frame, **{name: s[t].double() for name, s in exact.spikes.items()}}, *past]
        for name in layout.nodes:
            edges = layout.sources(name)
            if name in delays:
                x = sum((sum(ages[k][edge.source] for edge in edges) * torch.from_numpy(delays[name] == k)
                         for k in np.unique(delays[name]).tolist() if k <= t), torch.zeros(1, *delays[name].shape))
            elif edges:
                x = magnitudes[name](sum(ages[int(edge.delayed)][edge.source] for edge in edges))
            if name in bounds:
                bounds[name][t] = factors[name][t] * x
            ages[0].setdefault(name, x if edges else frame)
        past = ages[:longest]
    return bounds


def roundings(node: nir.NIRNode) -> int:
    """Most roundings that a term passes in one step of a node, those of the parameters and of the input included."""
    if isinstance(node, nir.Linear | nir.Affine | nir.Conv1d | nir.Conv2d):
        return int(np.prod(np.shape(node.weight)[1:])) + 2
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        return int(np.prod(node.kernel_size)) + 2
    return 12 if type(node) in STEPS else 2


def _magnitude(layout: Plan, name: str) -> Callable[[Tensor], Tensor]:
    """What computes a node's next value for non-negative input with its parameters' absolute values, never reset."""
    node, shape = layout.nodes[name], layout.input_shape[name]
    if isinstance(node, nir.Threshold | nir.Input | nir.Output | nir.Delay):
        return lambda x: x
    if type(node) not in STEPS:
        positive = copy.copy(node)
        for key in ("weight", "bias", "scale"):
            if hasattr(node, key):
                setattr(positive, key, np.abs(array(getattr(node, key)).astype(np.float64)))
        return lambda x: linear.apply(name, positive, x, shape)
    c = {key: v.abs() for key, v in coefficients(name, node, shape, layout.dt).items()}
    state = {"i": torch.zeros(()), "v": torch.zeros(())}

    def step(x: Tensor) -> Tensor:
        if "gain_syn" in c:
            x = state["i"] = c["leak_syn"] * state["i"] + c["gain_syn"] * x
        state["v"] = c.get("leak", 1) * state["v"] + c["gain"] * x + c.get("rest", 0) + c.get("reset", 0)
        return state["v"]

    return step
