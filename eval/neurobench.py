"""The metrics of NeuroBench 2.3 (neurobench.ai) that follow from counts, in its words and with its definitions.

Its MembraneUpdates count membranes that a step changed; here every neuron is updated at every step, which bounds them.
Its Footprint is the bytes of a module's parameters and buffers: for a graph of integers that is every weight in whole
bytes, and 4 bytes for each bias and each of a neuron's parameters.
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from eval.mode import Mode
from eval.operations.counts import NeuronCounts
from eval.operations.measure import Operations
from eval.subject import Subject, weight_bits
from export.passes.rewrite import flatten
from targets.graph import LINEAR, Graph
from targets.graph.shapes import array

FLOAT_BYTES = 4
PARAMETERS = ("bias", "tau", "tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in", "threshold",
              "scale")
"""Of NIR's nodes, beside weights."""


@dataclass(frozen=True)
class NeuroBench:
    """One run in NeuroBench's terms; counts are those of one recording.

    Args:
        mode: what ran where.
        accuracy: in [0, 1]; None where this run's is not known.
        footprint: bytes.
        connection_sparsity: share of the weights that are 0.
        activation_sparsity: share of neurons and steps without a spike.
        dense, macs, acs: synaptic operations.
        updates: of membranes, at most.
    """

    mode: Mode
    accuracy: float | None
    footprint: int
    connection_sparsity: float
    activation_sparsity: float
    dense: float
    macs: float
    acs: float
    updates: float


def measure(subject: Subject, run: Operations, accuracy: float | None) -> NeuroBench:
    """The metrics of a run whose operations were counted."""
    counts = run.counts
    firing = [layer for layer in counts.layers if isinstance(layer, NeuronCounts)]
    states = sum(layer.updates for layer in firing)
    if run.mode.target is None:
        network = subject.model.trained.network
        weights = [layer.weight.detach().numpy() for layer in network.modules()
                   if isinstance(layer, nn.Conv2d | nn.Linear)]
        footprint = sum(value.numel() * value.element_size() for value in (*network.parameters(), *network.buffers()))
    else:
        weights = [array(node.weight) for node in flatten(subject.model.graph).nodes.values()
                   if isinstance(node, LINEAR)]
        footprint = _bytes(subject.model.graph, -(-(weight_bits(subject.model) or 8 * FLOAT_BYTES) // 8))
    size = sum(weight.size for weight in weights)
    return NeuroBench(
        run.mode, accuracy, footprint, 1 - sum(int(np.count_nonzero(weight)) for weight in weights) / max(1, size),
        1 - counts.total("spikes") / max(1, states), counts.total("dense") / counts.samples,
        counts.total("macs") / counts.samples, counts.total("acs") / counts.samples, states / counts.samples)


def _bytes(graph: Graph, each: int) -> int:
    """Bytes of a graph with weights of `each` bytes."""
    total = 0
    for node in flatten(graph).nodes.values():
        total += each * array(node.weight).size if isinstance(node, LINEAR) else 0
        total += FLOAT_BYTES * sum(array(getattr(node, key)).size for key in PARAMETERS
                                   if getattr(node, key, None) is not None)
    return total
