"""From trained modules to a NIR graph with hard thresholds.

Each module class has one converter in `export.freeze.convert`, which gives the NIR nodes that do exactly what the
module does in evaluation mode. Where branches are added, edges meet.
"""

from collections.abc import Mapping
from dataclasses import replace

import nir
import snntorch as snn
import torch
from torch import nn

from export.freeze.assembly import BINARY, Assembly, Signal
from export.freeze.chain import Chain, inference_copy
from export.freeze.convert import CONVERTERS, convert
from export.freeze.layers import Layer
from export.freeze.neurons import require_runs
from export.freeze.pooling import MAXIMUM
from hardspike import HardspikeError, UsageError
from trainer.networks import Network

__all__ = ["convert", "freeze"]


def freeze(network: nn.Module | Mapping[str, nn.Module], shape: tuple[int, ...], metadata: dict | None = None,
           lossy_reset: bool = False) -> nir.NIRGraph:
    """The NIR graph of a network of snnTorch neurons, float64 parameters, thresholds hard.

    Layers in order are read as they stand; any other module is run on random spikes and watched (`export.watch`),
    which `export.formats.nir.write_checked` does on the user's own.

    Args:
        network: a `trainer.networks.Network`; an `nn.Sequential`, or the layers of a chain in order, name -> module;
            or a module whose forward does one time step or loops over them.
        shape: of the input, without batch and time.
        metadata: kept in the graph beside `dt`.
        lossy_reset: write every reset as NIR's LIF or CubaLIF, which reset to zero: other spikes, but more readers.

    Raises:
        HardspikeError: a layer or an operation that NIR cannot hold exactly; names it and says what to do.
    """
    if isinstance(network, Network):
        network = Chain(network.layers, network.sums)
    if isinstance(network, Mapping | nn.ModuleDict):
        network = Chain(network)
    elif isinstance(network, snn.SpikingNeuron):
        network = Chain({"0": network})
    shape = tuple(int(size) for size in shape)
    if not _is_chain(network):
        from export.watch.choice import chosen
        from export.watch.graph import watched_graph  # it builds on this package

        spikes = (torch.rand(5, 3, *shape) < 0.5).float()
        try:
            usage = chosen(network, spikes, None)
        except UsageError:  # these spikes are steps
            usage = chosen(network, spikes, "outside")
        return watched_graph(usage, metadata, lossy_reset)
    network = inference_copy(network)
    assembly = Assembly({name for name, _ in network.named_modules()})
    output = _chain(assembly, network, "", Signal((assembly.begin,), shape, shape), lossy_reset)
    return assembly.graph(shape, output, metadata)


def _is_chain(network: nn.Module) -> bool:
    """Whether it is layers in order, all the way down."""
    return type(network) in (nn.Sequential, Chain) and all(
        not list(child.children()) or isinstance(child, tuple(CONVERTERS)) or _is_chain(child)
        for child in network.children())


def _chain(assembly: Assembly, network: nn.Sequential, prefix: str, signal: Signal, lossy_reset: bool) -> Signal:
    """The layers of a chain, one after the other or where `sums` has them."""
    outputs = {}
    for key, module in network._modules.items():
        name = f"{prefix}{key}"
        if key in getattr(network, "sums", {}):
            branches = [outputs[source] for source in network.sums[key]]
            signal = replace(branches[0], sources=tuple(s for branch in branches for s in branch.sources), values=())
        if _is_chain(module):
            signal = _chain(assembly, module, f"{name}.", signal, lossy_reset)
        else:
            signal = _layer(assembly, name, module, signal, lossy_reset)
        outputs[key] = signal
    return signal


def _layer(assembly: Assembly, name: str, module: nn.Module, signal: Signal, lossy_reset: bool) -> Signal:
    if name in assembly.made:
        raise HardspikeError(f"layer '{name}': stands in the chain twice; give each place a layer of its own")
    if isinstance(module, snn.SpikingNeuron):
        require_runs(Layer(name, module, signal.shape))
    piece = convert(Layer(name, module, signal.shape, lossy_reset, signal.binary))
    graded = piece.exit.endswith("_grade")
    binary = (isinstance(module, snn.SpikingNeuron) and not graded) or isinstance(module, MAXIMUM) \
        or (signal.binary and (not piece.nodes or isinstance(module, nn.Flatten)))
    return Signal(assembly.add(name, piece, signal.sources), piece.shape, piece.shape, BINARY if binary else ())
