"""From trained modules to a NIR graph with hard thresholds.

The network's forward pass, one time step of it, is traced; each module class has one converter in CONVERTERS, which
gives the NIR nodes that do exactly what the module does in evaluation mode. An addition becomes edges that meet.
"""

import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import networkx as nx
import nir
import numpy as np
import snntorch as snn
import torch
from nirtorch.torch_tracer import NIRTorchTracer
from torch import fx, nn
from torch.nn import functional

from export import layers, neurons
from export.layers import Layer, Piece, refusal
from export.neurons import DT
from export.stepwise import inference_copy
from hardspike import HardspikeError
from targets.graph import plan
from trainer.networks import Network

CONVERTERS: dict[type[nn.Module], Callable[[Layer], Piece]] = {**layers.CONVERTERS, **neurons.CONVERTERS}

_ADVICE = {
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d),
                    "use average pooling (ap2) or a strided convolution and train again"),
    nn.AdaptiveAvgPool2d: "use AvgPool2d with the size of the picture",
    nn.Unflatten: "flatten later, or not at all",
    **dict.fromkeys((nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d), "it has no fixed factors; use BatchNorm and train "
                    "again"),
    **dict.fromkeys((nn.ReLU, nn.Sigmoid, nn.Tanh), "put a spiking neuron in its place"),
    snn.Lapicque: "use snn.Leaky with the same beta and put time_step / C into the weights before it",
}


def freeze(network: nn.Module | Mapping[str, nn.Module], shape: tuple[int, ...], metadata: dict | None = None,
           lossy_reset: bool = False) -> nir.NIRGraph:
    """The NIR graph of a network of snnTorch neurons, float64 parameters, thresholds hard.

    Args:
        network: an `nn.Sequential`, a module whose forward does one time step (branches may meet in additions), a
            `trainer.networks.Network`, or name -> module in order. Nodes are called like the modules.
        shape: of the input, without batch and time.
        metadata: kept in the graph beside `dt`.
        lossy_reset: write every reset as NIR's LIF or CubaLIF, which reset to zero: other spikes, but more readers.

    Raises:
        HardspikeError: a layer or an operation that NIR cannot hold exactly; names it and says what to do.
    """
    if isinstance(network, Network):
        network = network.layers
    if isinstance(network, Mapping | nn.ModuleDict):
        network = nn.Sequential(OrderedDict(network.items()))
    elif type(network) in CONVERTERS:
        network = nn.Sequential(network)
    build = _Build(inference_copy(network), tuple(int(size) for size in shape), lossy_reset)
    for node in _trace(build.network).nodes:
        build.values[node] = _OPERATIONS[node.op](build, node)
    names = {"Input": build.input, "Output": _free("output", build)}
    nodes = {build.input: nir.Input({"input": np.array(build.shape)}), **build.nodes,
             names["Output"]: nir.Output({"output": np.array(build.output.shape)})}
    edges = [*build.edges, *((source, names["Output"]) for source in build.output.sources)]
    _check_all_used(build, edges, names["Output"])
    graph = nir.NIRGraph(nodes, edges, metadata={"dt": DT, **(metadata or {})}, type_check=False)
    plan(graph)
    return graph
