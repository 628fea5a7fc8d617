"""From trained modules to a NIR graph with hard thresholds.

One time step of the network is traced; each module class has one converter in CONVERTERS, which gives the NIR nodes
that do exactly what the module does in evaluation mode. Where the forward pass adds, edges meet.
"""

from collections.abc import Callable, Mapping

import networkx as nx
import nir
import numpy as np
import snntorch as snn
from torch import nn

from export.check.stepwise import Chain, inference_copy
from export.freeze import layers, neurons
from export.freeze.layers import Layer, Piece, refusal
from export.freeze.neurons import DT
from export.freeze.trace import Signal, interpret
from hardspike import HardspikeError
from targets.graph import plan
from trainer.networks import Network

CONVERTERS: dict[type[nn.Module], Callable[[Layer], Piece]] = {**layers.CONVERTERS, **neurons.CONVERTERS}

_ADVICE = {
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d),
                    "use average pooling (ap2) or a strided convolution and train again"),
    nn.AdaptiveAvgPool2d: "use AvgPool2d with the size of the picture",
    **dict.fromkeys((nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d),
                    "its factors depend on the input: use BatchNorm and train again"),
    **dict.fromkeys((nn.ReLU, nn.Sigmoid, nn.Tanh), "put a spiking neuron in its place"),
    snn.Lapicque: "use snn.Leaky with beta = 1 - time_step/(R C), and time_step/C in the weights before it",
}


def freeze(network: nn.Module | Mapping[str, nn.Module], shape: tuple[int, ...], metadata: dict | None = None,
           lossy_reset: bool = False) -> nir.NIRGraph:
    """The NIR graph of a network of snnTorch neurons, float64 parameters, thresholds hard.

    Args:
        network: an `nn.Sequential`; a module whose forward does one time step, in which branches may meet in
            additions; a `trainer.networks.Network`; or the layers of a chain in order, name -> module. The node that
            gives a module's output is called like the module.
        shape: of the input, without batch and time.
        metadata: kept in the graph beside `dt`.
        lossy_reset: write every reset as NIR's LIF or CubaLIF, which reset to zero: other spikes, but more readers.

    Raises:
        HardspikeError: a layer or an operation that NIR cannot hold exactly; names it and says what to do.
    """
    if isinstance(network, Network):
        network = Chain(network.layers, network.sums)
    network = inference_copy(network)
    shape = tuple(int(size) for size in shape)
    nodes, edges, made = {}, [], {}
    taken = {name for name, _ in network.named_modules()}
    begin, end = (next(name for name in (kind, f"{kind}_", f"{kind}__") if name not in taken)
                  for kind in ("input", "output"))

    def layer(name: str, module: nn.Module, given: Signal) -> Signal:
        """The nodes of one call of a module, joined to what it is given."""
        piece = convert(Layer(name, module, given.shape, lossy_reset))
        if not piece.nodes:
            return Signal(given.sources, piece.shape)
        for node in piece.nodes:
            if node in nodes or node in (begin, end):
                raise HardspikeError(f"layer '{name}': its node '{node}' and one of another layer have the same name; "
                                     "rename the layer")
        made[name] = piece
        nodes.update(piece.nodes)
        edges.extend([*((source, piece.entry or name) for source in given.sources), *piece.edges])
        return Signal((piece.exit or name,), piece.shape, name, piece.membrane)

    output = interpret(network, Signal((begin,), shape), layer, tuple(CONVERTERS))
    edges.extend((source, end) for source in output.sources)
    useful = nx.ancestors(nx.DiGraph(edges), end)
    for name, piece in made.items():
        if useful.isdisjoint(piece.nodes):
            raise HardspikeError(f"layer '{name}': the output does not depend on it; NIR has one output here: let "
                                 "forward return it first, before any state, or take the layer out")
    nodes = {begin: nir.Input({"input": np.array(shape)}), **nodes,
             end: nir.Output({"output": np.array(output.shape)})}
    graph = nir.NIRGraph(nodes, edges, metadata={"dt": DT, **(metadata or {})}, type_check=False)
    plan(graph)
    return graph


def convert(layer: Layer) -> Piece:
    """The nodes of one module.

    Raises:
        HardspikeError: no converter, or a setting that has no exact form in NIR.
    """
    kind = next((kind for kind in type(layer.module).__mro__ if kind in CONVERTERS), None)
    if kind is None:
        advice = _ADVICE.get(type(layer.module), "replace it by layers that NIR holds, or add a converter in "
                                                 "export/freeze/layers.py")
        raise refusal(layer, f"NIR has no such operation; {advice}")
    for child in type(layer.module).__mro__[:type(layer.module).__mro__.index(kind)]:
        changed = [key for key in vars(child) if not key.startswith("__") and hasattr(kind, key)]
        if changed:
            raise refusal(layer, f"changes {', '.join(changed)} of {kind.__name__}, and what that does is not known "
                                 f"here; use {kind.__name__} itself, or add a converter in export/freeze/layers.py")
    return CONVERTERS[kind](layer)
