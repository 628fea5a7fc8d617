"""Any integer graph as Lava processes: Dense, Conv and LIF joined by ports, ways of different length evened out.

A `.net` file holds a chain. Lava itself holds branches and loops, but each of its connections is one step late
(`targets.loihi.latency`): a shorter way gets a wire of the steps that it lacks. What remains impossible is a loop whose
delays are fewer than its connections.
"""

import json
from pathlib import Path
from typing import Any

import nir
import numpy as np

from hardspike import HardspikeError, atomic_path
from targets.graph.shapes import array
from targets.lava.netx import conv_datasets, dense_datasets
from targets.loihi.latency import latencies, waiting
from targets.loihi.layers import Connection, Layer, Network

Shape = tuple[int, int, int]
_INPUT_BITS = 1 << 23


def describe(network: Network, interval: int, path: Path) -> dict[str, Layer]:
    """Write to `path` (.npz) what `worker.py processes` builds; the layers in order.

    Args:
        interval: steps of a sample.

    Raises:
        HardspikeError: nothing that Lava computes exactly; names the node, the value, the limit and what to do.
    """
    late, plan = latencies(network), network.plan
    if not network.layers:
        raise HardspikeError("graph has no layer of spiking neurons; Lava needs one")
    shapes = {plan.input: _image(plan.output_shape[plan.input])}
    shapes |= {name: _layer_image(network, layer) for name, layer in network.layers.items()}
    arrays: dict[str, np.ndarray] = {}
    layers: list[dict[str, Any]] = []
    connections: list[dict[str, Any]] = []
    for name, layer in network.layers.items():
        layers.append(_neurons(layer, shapes[name], late[name]))
        arrays[f"bias/{len(layers) - 1}"] = np.broadcast_to(layer.bias, layer.shape).reshape(shapes[name]) \
            .transpose(2, 1, 0).reshape(_lava(shapes[name])).astype(np.int32)
        for c in layer.connections:
            arrays[f"weight/{len(connections)}"], geometry = _synapses(network, c, shapes[c.source], shapes[name])
            connections.append({**geometry, "source": list(late).index(c.source) - 1, "target": len(layers) - 1,
                                "delay": c.delay, "late": waiting(late, name, c)})
    text = json.dumps({"input": _lava(shapes[plan.input]), "interval": interval, "layers": layers,
                       "connections": connections})
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        arrays["network"] = np.frombuffer(text.encode(), np.uint8)
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return network.layers


def _lava(shape: Shape) -> list[int]:
    """(W, H, C), or (N,) for a flat layer."""
    return [shape[0]] if shape[1:] == (1, 1) else list(shape[::-1])


def _image(shape: tuple[int, ...]) -> Shape:
    """(C, H, W)."""
    if len(shape) == 3:
        return shape
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (int(np.prod(shape)), 1, 1)


def _layer_image(network: Network, layer: Layer) -> Shape:
    for c in layer.connections:
        if isinstance(network.plan.nodes[c.linear], nir.Conv1d | nir.Conv2d):
            return _image(network.plan.output_shape[c.linear])
    return _image(layer.shape)


def _neurons(layer: Layer, shape: Shape, late: int) -> dict[str, Any]:
    found = {"name": layer.name, "shape": _lava(shape), "subtracts": layer.reset == "subtract", "late": late}
    for key, values in (("iDecay", layer.i_decay), ("vDecay", layer.v_decay), ("vThMant", layer.threshold)):
        different = np.unique(np.round(values))
        if len(different) > 1:
            raise HardspikeError(f"layer '{layer.name}': {key} has {len(different)} values ({different[0]:g} to "
                                 f"{different[-1]:g}); Lava's LIF holds one a layer: train one, or run on loihi2")
        found[key] = int(different[0])
    return found


def _order(shape: Shape) -> np.ndarray:
    """The (C, H, W) index of every element of Lava's (W, H, C)."""
    return np.arange(np.prod(shape)).reshape(shape).transpose(2, 1, 0).reshape(-1)


def _synapses(network: Network, c: Connection, source: Shape, target: Shape) -> tuple[np.ndarray, dict[str, Any]]:
    plan, node = network.plan, network.plan.nodes[c.linear]
    label = f"node '{c.linear}' ({type(node).__name__})"
    weight = array(node.weight).astype(np.int64)
    largest = int(np.abs(weight).reshape(len(weight), -1).sum(1).max())
    if largest >= _INPUT_BITS:
        raise HardspikeError(f"{label}: its weights sum to {largest} for one neuron, where 24 bits hold "
                             f"{_INPUT_BITS - 1}; use smaller weights")
    if isinstance(node, nir.Linear | nir.Affine):
        dense_datasets(label, weight)
        return weight[_order(target)][:, _order(source)], {"type": "dense"}
    inside, outside = _image(plan.input_shape[c.linear]), _image(plan.output_shape[c.linear])
    if inside != source or outside != target:
        raise HardspikeError(f"{label}: convolves spikes that lie otherwise in their layer ({source} to {target}, "
                             f"where it takes {inside} and gives {outside}); write it as Linear, or run on loihi2")
    if isinstance(node, nir.Conv1d):
        padding = node.padding if isinstance(node.padding, str) else (0, int(np.ravel(array(node.padding))[0]))
        stride, dilation = ((1, int(np.ravel(array(value))[0])) for value in (node.stride, node.dilation))
        node = nir.Conv2d(None, array(node.weight)[:, :, None], stride, padding, dilation, node.groups,
                          array(node.bias))
        weight = weight[:, :, None]
    geometry = conv_datasets(label, node, weight)
    return weight, {"type": "conv", "groups": int(geometry["groups"]), "from": list(inside[::-1]),
                    **{key: [int(v) for v in geometry[key]] for key in ("stride", "padding", "dilation")}}
