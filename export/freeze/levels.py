"""I-LIF as NIR nodes: D neurons with a threshold each on one membrane, whose spikes meet.

A unit that gives s = 0..D in training is D binary neurons `NAME_1` .. `NAME_D`, the i-th with threshold
(i - 1/2)*theta: it spikes where s >= i. A factor `NAME_grade`, 1/norm, stands behind them, which the passes take into
the next layer's weights. Without memory nothing else is needed; with it all D take their part off the membrane,
as the reset leaks with it: u[t] = beta*u[t-1] + I[t] - beta*theta*(s_1 + .. + s_D)[t-1].
"""

import nir
import numpy as np

from export.freeze.layers import Layer, Piece, refusal, to_array
from export.freeze.neurons import integrator
from trainer.neurons.levels import LevelLeaky


def level_names(name: str, neuron: LevelLeaky) -> list[str]:
    """The nodes of the layer `name`, lowest threshold first."""
    return [f"{name}_{i}" for i in range(1, neuron.levels + 1)]


def level_neuron(layer: Layer) -> Piece:
    """The nodes of one I-LIF layer.

    Raises:
        HardspikeError: a reset to zero is asked for.
    """
    neuron, name, shape = layer.module, layer.name, layer.shape
    names, beta = level_names(name, neuron), float(neuron.beta.clamp(0, 1))
    nodes: dict[str, nir.NIRNode] = {each: nir.Threshold(np.full(shape, threshold)) for each, threshold in
                                     zip(names, to_array(neuron.thresholds()), strict=True)}
    edges: list[tuple[str, str]] = []
    membrane, exit = f"{name}_membrane", f"{name}_grade"
    if beta:
        if layer.lossy_reset:
            raise refusal(layer, "one membrane has several thresholds, which no reset to zero stands for; leave "
                                 "--lossy_reset out")
        reset = f"{name}_reset"
        nodes |= {membrane: integrator(np.full(shape, beta)),
                  reset: nir.Scale(np.full(shape, -beta * float(neuron.threshold)))}
        edges += [(membrane, each) for each in names] + [(each, reset) for each in names] + [(reset, membrane)]
    nodes[exit] = nir.Scale(np.full(shape, 1 / neuron.norm))
    edges += [(each, exit) for each in names]
    return Piece(nodes, shape, exit=exit, edges=edges, entries=() if beta else tuple(names), entry=membrane)
