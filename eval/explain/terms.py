"""What a membrane is made of in one step: what it kept, what a reset took, and what each connection and bias gave."""

from dataclasses import dataclass
from functools import cached_property

import nir
import numpy as np
import torch
from torch import Tensor

from targets.chips import chip_of
from targets.graph import NEURONS, SPIKING, STATELESS, Graph, Plan, plan
from targets.graph.shapes import expand
from targets.nodes import stateless
from targets.nodes.neurons import STEPS, coefficients, delay_steps
from targets.onnx.target import ONNXRUNTIME
from targets.recording import Recording
from targets.reference import before_start
from targets.target import Target

KEPT, RESET, REST, WEIGHTS, BIAS, REMAINDER = "kept", "reset", "rest", "weights", "bias", "remainder"
"""Kinds of terms; the remainder is what the others do not sum up to: rounding, wraps and saturation."""


@dataclass(frozen=True)
class Term:
    """A part of a membrane, in the graph's own unit.

    Args:
        kind: one of the kinds above.
        node: that gives it: of `WEIGHTS` and `BIAS` the node that the neuron hears, of the others the neuron.
        values: in every step, (T,).
    """

    kind: str
    node: str
    values: np.ndarray


@dataclass(frozen=True)
class Side:
    """One of two runs: one sample of it.

    Args:
        name: in words.
        graph: as it ran.
        target: where.
        frames: (T, 1, *Input).
        recording: of these frames, with membranes.
    """

    name: str
    graph: Graph
    target: Target
    frames: Tensor
    recording: Recording

    @cached_property
    def layout(self) -> Plan:
        """The graph as it runs."""
        return plan(self.graph)

    @property
    def chip(self) -> bool:
        """Whether it ran in a chip's integers: a bias then by-passes the synaptic current."""
        return self.target.integers is not None or self.parts > 1

    @cached_property
    def parts(self) -> int:
        """Recorded membranes count so many to one of the graph's unit."""
        if self.target.integers:
            return self.target.membrane_parts
        held = chip_of(self.graph) if self.target.name == ONNXRUNTIME.name else None  # as that chip's integers
        return held.membrane_parts if held else 1

    def cell(self, layer: str) -> str:
        """The node that holds the membrane of a spiking node: itself, or the LI, I or CubaLI before a Threshold."""
        before = [edge.source for edge in self.layout.sources(layer)]
        held = len(before) == 1 and isinstance(self.layout.nodes[before[0]], NEURONS) \
            and not isinstance(self.layout.nodes[before[0]], SPIKING)
        return before[0] if held and isinstance(self.layout.nodes[layer], nir.Threshold) else layer

    def membrane(self, layer: str, neuron: int) -> np.ndarray:
        """(T,), before the reset, in the graph's unit."""
        return self.recording.membrane[layer].flatten(2)[:, 0, neuron].double().numpy() / self.parts

    def spikes(self, layer: str, neuron: int) -> np.ndarray:
        """(T,)."""
        return self.recording.spikes[layer].flatten(2)[:, 0, neuron].double().numpy()

    def constant(self, node: str, key: str, neuron: int) -> float | None:
        """A coefficient of a neuron (`targets.nodes.neurons.coefficients`); None where it has none."""
        layout = self.layout
        found = coefficients(node, layout.nodes[node], layout.input_shape[node], layout.dt)
        return float(found[key].expand(layout.input_shape[node]).flatten()[neuron]) if key in found else None

    def constant_of_scale(self, node: str, neuron: int) -> float:
        """What a Scale multiplies a neuron's spikes by."""
        shape = self.layout.input_shape[node]
        return float(np.broadcast_to(expand(node, self.layout.nodes[node].scale, shape), shape).ravel()[neuron])

    def threshold(self, layer: str, neuron: int) -> float:
        """Of a neuron, in the graph's unit."""
        found = self.constant(layer, "threshold", neuron)
        assert found is not None, layer
        return found

    @cached_property
    def signals(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What every node gives (T, 1, *shape), and what it would without any bias, for the spikes as they were."""
        return _signals(self, True), _signals(self, False)

    def resets(self, layer: str) -> list[str]:
        """The Scale nodes that take something off the membrane for a spike of the layer's own."""
        cell, layout = self.cell(layer), self.layout
        return [edge.source for edge in layout.sources(cell) if cell != layer
                and isinstance(layout.nodes[edge.source], nir.Scale)
                and [e.source for e in layout.sources(edge.source)] == [layer]]

    def terms(self, layer: str, neuron: int) -> list[Term]:
        """All terms of a neuron's membrane over time; they sum to it in every step."""
        cell, layout = self.cell(layer), self.layout
        v, fired = self.membrane(layer, neuron), self.spikes(layer, neuron)
        leak, gain = (self.constant(cell, key, neuron) for key in ("leak", "gain"))
        stateful = gain is not None
        leak = (1.0 if leak is None else leak) if stateful else 0.0
        past = np.concatenate([[0.0], v[:-1]])
        found = [Term(KEPT, cell, leak * past)] if stateful else []
        reset = self.constant(layer, "reset", neuron)
        if reset is not None:
            found.append(Term(RESET, layer, np.concatenate([[0.0], leak * fired[:-1] * (reset - v[:-1])])))
        if rest := self.constant(cell, "rest", neuron):
            found.append(Term(REST, cell, np.full(len(v), rest)))
        for edge in layout.sources(cell):
            whole, weighed = self._arriving(edge.source, edge.delayed, neuron)
            kind = RESET if edge.source in self.resets(layer) else WEIGHTS
            found.append(Term(kind, edge.source, self._filtered(cell, neuron, weighed) * (gain or 1.0)))
            if (whole != weighed).any():
                given = whole - weighed
                given = given if self.chip else self._filtered(cell, neuron, given)
                found.append(Term(BIAS, edge.source, given * (gain or 1.0)))
        total = np.sum([term.values for term in found], 0)
        return [*found, Term(REMAINDER, cell, v - total)]

    def _arriving(self, node: str, delayed: bool, neuron: int) -> tuple[np.ndarray, np.ndarray]:
        whole, weighed = (of[node].flatten(2)[:, 0, neuron].numpy() for of in self.signals)
        if delayed:
            first = before_start(self.layout)[node].flatten()[neuron].item()
            whole = np.concatenate([[first], whole[:-1]])
            weighed = np.concatenate([[0.0], weighed[:-1]])
        return whole, weighed

    def _filtered(self, cell: str, neuron: int, x: np.ndarray) -> np.ndarray:
        """Through the synaptic current, where there is one."""
        keep, gain = (self.constant(cell, key, neuron) for key in ("leak_syn", "gain_syn"))
        if keep is None or gain is None:
            return x
        made, current = [], 0.0
        for value in x:
            current = keep * current + gain * value
            made.append(current)
        return np.array(made)


def _signals(side: Side, bias: bool) -> dict[str, Tensor]:
    """Every node's value step by step, with spikes as recorded."""
    layout, frames = side.layout, side.frames.double()
    steps = len(frames)
    before = {name: value if bias else torch.zeros_like(value) for name, value in before_start(layout).items()}
    found = {name: torch.zeros(steps, 1, *layout.output_shape[name], dtype=torch.float64) for name in layout.nodes}
    found[layout.input] = frames
    applied = {name: stateless.prepare(name, node, torch.float64, layout.input_shape[name], bias)
               for name, node in layout.nodes.items() if isinstance(node, STATELESS)}
    neurons = {name: (STEPS[type(node)], coefficients(name, node, layout.input_shape[name], layout.dt))
               for name, node in layout.nodes.items() if type(node) in STEPS and not isinstance(node, SPIKING)}
    state = {name: (torch.zeros(1, *layout.input_shape[name], dtype=torch.float64),) * step[1]
             for name, (step, _) in neurons.items()}
    for name in side.recording.spikes:
        found[name] = side.recording.spikes[name].double()
    for t in range(steps):
        for name, node in layout.nodes.items():
            if isinstance(node, SPIKING) or name == layout.input:
                continue
            edges = layout.sources(name)
            if isinstance(node, nir.Delay):
                late = torch.from_numpy(delay_steps(name, node, layout.input_shape[name], layout.dt))
                for k in late.unique().tolist():
                    if k <= t:
                        given = sum((found[edge.source][t - k] for edge in edges), torch.zeros(()))
                        found[name][t] = torch.where(late == k, given, found[name][t])
                continue
            x = sum((found[edge.source][t] if not edge.delayed else found[edge.source][t - 1] if t
                     else before[edge.source] for edge in edges), torch.zeros(()))
            if name in neurons:
                (step, _), c = neurons[name]
                c = c if bias or "rest" not in c else {**c, "rest": torch.zeros_like(c["rest"])}
                found[name][t], _, state[name] = step(x, state[name], c)
            else:
                found[name][t] = applied[name](x) if name in applied else x
    return found

