"""An integer NIR graph as a `.net` file, which Lava's netx loads.

The file (HDF5) holds a chain of convolutional and dense layers with one kind of neuron each, as lava-dl 0.6.0's
`lava.lib.dl.netx.hdf5` reads it. Beside what netx reads it has, ignored by netx, each layer's `name` and the host's
`readout`. Whatever netx or lava-nc 0.10.0 would compute wrongly without a word is refused here.
"""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import h5py
import nir
import numpy as np

from hardspike import HardspikeError
from targets import hdf5
from targets.chips import limits_of
from targets.graph import Plan, plan
from targets.graph.shapes import array, conv_arguments
from targets.loihi import rules
from targets.loihi.chips import LOIHI2
from targets.loihi.layers import Layer, Network, split

SUBTRACT = b"CUBA_SUBTRACT"  # as in targets/lava/softlif, which needs Lava to be imported
HELD = replace(limits_of(LOIHI2), chip="Lava", resets=("zero", "subtract"))
"""What of Loihi 2 Lava simulates: a reset that leaks with the membrane takes microcode; no neuron of Lava has it."""
_INT8 = 127
"""lava-nc keeps the geometry of a convolution in int8: 128 groups compute nothing, without an error."""
_INPUT_BITS = 1 << 23
"""Where the input of a neuron wraps (Conv) or leaves the 24 bits of its current (Dense)."""


def write_net(graph: nir.NIRGraph, path: Path, dt: float | None = None) -> list[Layer]:
    """Write the integer `graph` as a `.net` file; returns its layers in order. `dt` as in `targets.graph.plan`.

    Raises:
        HardspikeError: the graph is not integer, not a chain of layers, or nothing that Lava computes exactly; names
            the node, the value, the limit and what to do.
    """
    layout = plan(graph, dt)
    network = split(layout)
    rules.require(network, HELD)
    layers = _chain(network)
    readout = _readout(network)
    hdf5.write(path, lambda made: _write(made, layout, layers, readout))
    return layers


def _write(made: BytesIO, layout: Plan, layers: list[Layer], readout: tuple[np.ndarray, np.ndarray] | None) -> None:
    """The whole file, in memory."""
    with h5py.File(made, "w") as file:
        shape, number = layout.output_shape[layout.input], 1
        file["layer/0/type"], file["layer/0/shape"] = b"input", np.array(shape)
        for layer in layers:
            linear = layer.connections[0].linear
            if len(shape) > len(layout.input_shape[linear]):
                if number > 1:  # in front of the first layer netx would drop it; the input comes flat there
                    file[f"layer/{number}/type"] = b"flatten"
                    number += 1
                shape = (int(np.prod(shape)),)
            if shape != layout.input_shape[linear]:
                raise HardspikeError(f"node '{linear}': takes {layout.input_shape[linear]}, where the layer before has "
                                     f"shape {shape}; netx only flattens to one axis")
            _write_layer(file.create_group(f"layer/{number}"), layout, layer)
            shape, number = layout.output_shape[linear], number + 1
        if readout:
            file["readout/weight"], file["readout/bias"] = readout


def _chain(network: Network) -> list[Layer]:
    """The layers, if each one hears nothing but the one before, without delay."""
    source, layers = network.plan.input, list(network.layers.values())
    if not layers:
        raise HardspikeError("graph has no layer of spiking neurons; a `.net` file needs one")
    for layer in layers:
        label = f"layer '{layer.name}'"
        if network.recurrent(layer):
            raise HardspikeError(f"{label}: is recurrent; a `.net` file holds a chain of layers, run it on loihi2")
        if len(layer.connections) > 1:
            raise HardspikeError(f"{label}: is fed over {len(layer.connections)} connections (by "
                                 f"{', '.join(c.source for c in layer.connections)}); a `.net` file holds a chain of "
                                 "layers, run it on loihi2")
        connection = layer.connections[0]
        if connection.source != source:
            raise HardspikeError(f"{label}: is fed by '{connection.source}', not by '{source}' before it; a `.net` "
                                 "file holds a chain of layers without branches, run it on loihi2")
        if connection.delay:
            raise HardspikeError(f"{label}: hears '{source}' {connection.delay} steps late; delays are not written to "
                                 "`.net` files, run it on loihi2")
        source = layer.name
    return layers


def _readout(network: Network) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight (out, in) and bias (out,) of the linear node between the last layer and the Output."""
    layout, last = network.plan, list(network.layers)[-1]
    linear = None
    for name in network.readout:
        node = layout.nodes[name]
        for edge in layout.sources(name):
            if edge.source not in (last, *network.readout) or edge.delayed:
                raise HardspikeError(f"node '{name}': reads '{edge.source}'; the host reads the last layer, '{last}', "
                                     "without delay")
        if isinstance(node, nir.Linear | nir.Affine) and linear is None:
            linear = node
        elif not isinstance(node, nir.Flatten | nir.Output):
            raise HardspikeError(f"node '{name}' ({type(node).__name__}): lies behind the last spikes, where the host "
                                 "computes one Linear or Affine; merge them into one")
    if linear is None:
        return None
    weight = array(linear.weight).astype(np.float64)
    return weight, np.broadcast_to(array(getattr(linear, "bias", 0.0)).astype(np.float64), len(weight))


def _write_layer(group: h5py.Group, layout: Plan, layer: Layer) -> None:
    name = layer.connections[0].linear
    node, shape = layout.nodes[name], layout.output_shape[name]
    label = f"node '{name}' ({type(node).__name__})"
    weight = array(node.weight).astype(np.int64)
    largest = int(np.abs(weight).reshape(len(weight), -1).sum(1).max())
    if largest >= _INPUT_BITS:
        raise HardspikeError(f"{label}: its weights sum to {largest} for one neuron, where 24 bits hold "
                             f"{_INPUT_BITS - 1}; use smaller weights")
    if isinstance(node, nir.Conv1d):
        raise HardspikeError(f"{label}: netx has convolutions over (C, H, W) only; write it as Conv2d of height 1")
    conv = isinstance(node, nir.Conv2d)
    datasets = conv_datasets(label, node, weight) if conv else dense_datasets(label, weight)
    group["type"], group["shape"], group["name"] = b"conv" if conv else b"dense", np.array(shape), layer.name
    if layer.bias.any():
        bias = np.broadcast_to(layer.bias, layer.shape).reshape(shape)  # of Conv2d or Affine: one value a channel
        datasets["bias"] = bias.reshape(len(weight), -1)[:, 0].astype(np.int64)
    for key, values in datasets.items():
        group[key] = values
    group["neuron/type"] = SUBTRACT if layer.reset == "subtract" else b"CUBA"
    for key, values in (("iDecay", layer.i_decay), ("vDecay", layer.v_decay), ("vThMant", layer.threshold)):
        different = np.unique(np.round(values))
        if len(different) > 1:
            raise HardspikeError(f"layer '{layer.name}': {key} has {len(different)} values ({different[0]:g} to "
                                 f"{different[-1]:g}); a `.net` file holds one a layer: train one, or run on loihi2")
        group[f"neuron/{key}"] = int(different[0])


def dense_datasets(label: str, weight: np.ndarray) -> dict:
    """What Lava is told of a matrix.

    netx shifts weights up to 8 bits; where none is positive, -2^n becomes -256, which Lava clips to -255.

    Raises:
        HardspikeError: Lava would compute something else.
    """
    low = int(weight.min())
    if weight.max() <= 0 and (-low).bit_count() == 1:
        raise HardspikeError(f"{label}: no weight is positive and the lowest is {low}, a power of two, which Lava's "
                             f"Dense clips; raise it to {low + 1}, or one weight to 1")
    return {"weight": weight}


def conv_datasets(label: str, node: nir.Conv2d, weight: np.ndarray) -> dict:
    """What Lava is told of a convolution.

    Raises:
        HardspikeError: Lava would compute something else.
    """
    arguments = conv_arguments(label, node)
    kernel = np.array(weight.shape[2:])
    if arguments["padding"] == "same":
        total = np.array(arguments["dilation"]) * (kernel - 1)
        if (total % 2).any():
            raise HardspikeError(f"{label}: padding 'same' for a kernel of {tuple(kernel)} is uneven, and netx "
                                 "pads both sides alike; use an odd kernel, or write the padding in numbers")
        arguments["padding"] = total // 2
    geometry = {key: np.array(arguments[key]) for key in ("stride", "padding", "dilation")}
    for key, value in {**geometry, "kernel": kernel, "groups": np.array(arguments["groups"])}.items():
        if value.max() > _INT8:
            raise HardspikeError(f"{label}: {key} {value.max()}; Lava keeps it in 8 bits, up to {_INT8}, and computes "
                                 "something else beyond; split the layer")
    return {"weight": weight, **geometry, "groups": arguments["groups"]}
