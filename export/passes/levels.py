"""Layers that differ by their thresholds alone: the D levels of an I-LIF neuron, which share one weight and one scale.

Without a memory their membrane is what comes in, so it is summed once for a scale and compared with every threshold
that is tried, where a chip's integers neither wrap nor clip: the same spikes as the chip's, without the layers before.
"""

from collections import Counter
from collections.abc import Mapping

import nir
import numpy as np
import torch
from torch import Tensor

from targets.graph import LINEAR, Plan
from targets.graph.shapes import array
from targets.loihi.layers import DECAY_UNIT, Connection, Layer, Network
from targets.nodes import stateless

_SHAPES = ("input_type", "output_type", "metadata", "input_shape")
LARGEST = 1 << 16
"""Sums of weights up to there are far from the 17 bits beyond which Lava's integers wrap and clip."""


def levels(network: Network) -> list[list[Layer]]:
    """The layers in order, those together that hear the same over the same weights and have no memory."""
    groups: dict[object, list[Layer]] = {}
    for layer in network.layers.values():
        alone = network.recurrent(layer) or not forgets(network, layer)
        groups.setdefault(layer.name if alone else _heard(network, layer), []).append(layer)
    return list(groups.values())


def forgets(network: Network, layer: Layer) -> bool:
    """Whether the membrane is what comes in, and nothing else."""
    return (isinstance(network.plan.nodes[layer.name], nir.Threshold) and layer.reset == "zero"
            and bool((layer.v_decay == DECAY_UNIT).all() and (layer.i_decay == DECAY_UNIT).all()))


def _heard(network: Network, layer: Layer) -> tuple:
    """What a layer hears, over which weights: equal for layers that hear the same."""
    def said(name: str) -> tuple:
        node = network.plan.nodes[name]
        return (type(node).__name__, network.plan.input_shape[name],
                *((key, value if isinstance(value, str) else array(value).tobytes())
                  for key, value in vars(node).items() if key not in _SHAPES and value is not None))

    return layer.shape, frozenset(Counter((c.source, c.delay, *map(said, c.nodes)) for c in layer.connections).items())


@torch.no_grad()
def summed(layout: Plan, layer: Layer, nodes: Mapping[str, nir.NIRNode], spikes: Mapping[str, Tensor]) -> Tensor | None:
    """What comes into a layer, biases included, (T, B, *shape) in whole numbers.

    Args:
        nodes: the layer's linear nodes in integers, by name.
        spikes: of all its sources, (T, B, ...).

    Returns:
        None where it is so large that a chip may wrap or clip it.
    """
    ways: dict[tuple[str, tuple[str, ...], int], list[Connection]] = {}
    for c in layer.connections:
        ways.setdefault((c.linear, c.nodes, c.delay), []).append(c)
    total: Tensor | None = None
    biased: set[str] = set()
    for (linear, path, delay), heard in ways.items():
        x = torch.stack([spikes[c.source] for c in heard]).sum(0, dtype=torch.float64)
        x = torch.cat([torch.zeros_like(x[:delay]), x[:max(len(x) - delay, 0)]]) if delay else x
        steps, x = x.shape[:2], x.flatten(0, 1)
        for name in path:
            node = nodes.get(name, layout.nodes[name])
            bias = not (isinstance(node, LINEAR) and linear in biased)
            x = stateless.apply(name, node, x, layout.input_shape[name], bias)
        biased.add(linear)
        total = x.unflatten(0, steps) if total is None else total + x.unflatten(0, steps)
    return None if total is None or total.abs().max() > LARGEST else total


def fired(total: Tensor, threshold: np.ndarray) -> Tensor:
    """Spikes (T, B, *shape) of a membrane and integer thresholds that broadcast against one step."""
    return (total > torch.from_numpy(threshold)).to(torch.uint8)
