"""A delay between two layers of weights, as a delay of the spikes themselves, so that the weights can be multiplied.

W2 delay(W1 x) = W2 W1 delay(x), where W1 has no bias: before a delay is over there are zeros, not biases.
"""

import nir
import numpy as np

from export.passes.rewrite import Edit
from targets.graph import LINEAR, NEURONS, plan
from targets.graph.shapes import array


def delay_spikes(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A graph without delays between two linear layers, where what is delayed is weighted spikes; the same spikes."""
    edit, shapes = Edit(graph), plan(graph).input_shape
    for name, node in list(edit.nodes.items()):
        weights = edit.sources(name)
        if isinstance(node, nir.Delay) and not np.ptp(array(node.delay)) and _reaches_weights(edit, name) \
                and all(_weighs(edit, weight) for weight in weights):
            targets = edit.targets(name)
            edit.edges = [edge for edge in edit.edges if name not in edge]
            del edit.nodes[name]
            for weight in weights:
                late = edit.fresh(f"{weight}_late")
                edit.nodes[late] = nir.Delay(np.full(shapes[weight], array(node.delay).flat[0]))
                sources = edit.sources(weight)
                edit.edges = [edge for edge in edit.edges if edge[1] != weight]
                edit.edges += [*((source, late) for source in sources), (late, weight),
                               *((weight, target) for target in targets)]
    return edit.graph()


def _reaches_weights(edit: Edit, name: str) -> bool:
    """Whether a linear layer follows, straight or flattened."""
    return any(isinstance(edit.nodes[target], LINEAR) or (isinstance(edit.nodes[target], nir.Flatten) and
                                                          _reaches_weights(edit, target))
               for target in edit.targets(name))


def _weighs(edit: Edit, name: str) -> bool:
    """Whether it is a linear layer without a bias, heard by one node, on what neurons give or what goes in."""
    node = edit.nodes[name]
    return isinstance(node, LINEAR) and not np.any(array(getattr(node, "bias", 0.0))) \
        and len(edit.targets(name)) == 1 and all(isinstance(edit.nodes[source], (*NEURONS, nir.Input, nir.Delay))
                                                 for source in edit.sources(name))
