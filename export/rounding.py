"""How far float32 can carry a membrane away from float64: the bound that every first difference has to respect.

Until the first spike that differs, both runs see the same spikes, so each membrane is one sum of known terms. A float32
sum of n products errs by at most about n * 2^-24 times the sum of the terms' absolute values (Higham 2002, sec. 3.1);
over time the recurrence adds one such error a step, each leaking away no slower than the membrane itself.
"""

import copy
from dataclasses import dataclass

import nir
import numpy as np
import torch
from torch import Tensor

from targets import linear
from targets.graph import SPIKING, Plan, plan
from targets.neurons import coefficients
from targets.recording import Recording

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
    """

    samples: int
    differing: int
    spikes: int
    beyond: int
    worst: float
    largest_bound: float


def first_differences(graph: nir.NIRGraph, frames: Tensor, exact: Recording,
                      spikes: dict[str, Tensor]) -> FirstDifferences:
    """Compare float32 `spikes` (layer -> (T, B, ...)) with `exact`, a float64 recording with membranes.

    A sample's first difference is the earliest step that differs, in the first layer (in graph order) that differs in
    it; every neuron there is judged. Later ones are consequences.

    Raises:
        HardspikeError: `graph` cannot be planned.
    """
    layout = plan(graph)
    bounds = membrane_bounds(layout, frames, exact)
    names = list(exact.spikes)
    differs = {name: exact.spikes[name] != spikes[name].to(exact.spikes[name].dtype) for name in names}
    total = sum(int(d.sum()) for d in differs.values())
    result = FirstDifferences(frames.shape[1], 0, total, 0, 0.0, 0.0)
    by_cell = torch.stack([d.flatten(2).any(2) for d in differs.values()], 1)  # (T, layers, B): time, then layer
    for sample in by_cell.any(0).any(0).nonzero().flatten().tolist():
        result.differing += 1
        cell = int(by_cell[:, :, sample].flatten().nonzero()[0])
        t, name = cell // len(names), names[cell % len(names)]
        where = differs[name][t, sample]
        node = layout.nodes[name]
        threshold = coefficients(name, node, layout.input_shape[name], layout.dt)["threshold"].expand(where.shape)
        distance = (exact.membrane[name][t, sample] - threshold).abs()[where]
        allowed = bounds[name][t, sample][where]
        result.beyond += int((distance > allowed).sum())
        result.worst = max(result.worst, float((distance / allowed).max()))
        result.largest_bound = max(result.largest_bound, float(allowed.max()))
    return result


def membrane_bounds(layout: Plan, frames: Tensor, exact: Recording) -> dict[str, Tensor]:
    """|float32 membrane - float64 membrane| of every spiking node, (T, B, ...), given the spikes of `exact`.

    With M the membrane of the same graph whose every parameter and input is made positive, and n the number of terms
    summed since the last spikes: (t + 1) * (n + 8) * 2^-24 * M[t].
    """
    magnitude: dict[str, Tensor] = {layout.input: frames.double().abs()}
    terms = dict.fromkeys(layout.nodes, 0)
    bounds = {}
    # Emitted spikes are known, so a spiking node is a source and no order problem remains, loops included.
    emitted = {name: s.double() for name, s in exact.spikes.items()}

    def value(name: str) -> Tensor:
        if name in emitted:
            return emitted[name]
        if name not in magnitude:
            magnitude[name] = _magnitude(layout, name, inputs(name))
        return magnitude[name]

    def inputs(name: str) -> Tensor:
        total = 0
        for edge in layout.sources(name):
            x = value(edge.source)
            if edge.delayed:
                x = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
            total = total + x
            terms[name] += 1 + (0 if edge.source in emitted else terms[edge.source])
        terms[name] += _fan_in(layout.nodes[name])
        return total

    for name in exact.spikes:
        membrane = _magnitude(layout, name, inputs(name))
        steps = torch.arange(1, len(membrane) + 1, dtype=torch.float64).view(-1, *[1] * (membrane.ndim - 1))
        bounds[name] = steps * (terms[name] + 8) * UNIT_ROUNDOFF * membrane
    return bounds


def _fan_in(node: nir.NIRNode) -> int:
    """Terms in one output of a node."""
    if isinstance(node, nir.Linear | nir.Affine | nir.Conv1d | nir.Conv2d):
        return int(np.prod(np.shape(node.weight)[1:])) + 1
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        return int(np.prod(node.kernel_size))
    return 1


def _magnitude(layout: Plan, name: str, x: Tensor) -> Tensor:
    """The node's value for non-negative `x` (T, B, ...) with its parameters' absolute values, resets left out."""
    node, shape = layout.nodes[name], layout.input_shape[name]
    if isinstance(node, nir.Threshold):
        return x
    if not isinstance(node, (*SPIKING, nir.LI, nir.CubaLI, nir.I)):
        positive = copy.copy(node)
        for key in ("weight", "bias", "scale"):
            if hasattr(node, key):
                setattr(positive, key, np.abs(np.asarray(getattr(node, key), float)))
        return linear.apply(name, positive, x.flatten(0, 1), shape).unflatten(0, x.shape[:2])
    c = {key: v.abs() for key, v in coefficients(name, node, shape, layout.dt).items()}
    constant = c.get("rest", torch.zeros(())) + c.get("reset", torch.zeros(()))
    v = i = torch.zeros_like(x[0])
    out = torch.empty_like(x)
    for t in range(len(x)):
        i = c["leak_syn"] * i + c["gain_syn"] * x[t] if "gain_syn" in c else x[t]
        v = c.get("leak", 1) * v + c["gain"] * i + constant
        out[t] = v
    return out
