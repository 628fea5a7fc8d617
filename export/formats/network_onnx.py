"""A whole network with attention or a pyramid as an ONNX model, which NIR cannot hold, checked in onnxruntime.

The model is as those of `targets.onnx.model`: one step with explicit states, or a sequence. `NAME.spikes` of a layer
that counts to D are whole numbers; `output` is the readout of the step, and a run's logits are its mean over steps.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nir
import numpy as np
import onnx
import torch
from torch import Tensor, nn

from export.check import parity as parities
from export.check.attention import network_differences
from export.check.parity import Parity
from export.freeze.convert import convert
from export.freeze.integers import as_floats
from export.freeze.layers import Layer
from hardspike import HardspikeError, versions
from targets.graph.shapes import Shape, output_shape
from targets.onnx import runtime as onnx_runtime
from targets.onnx.model import assembled
from targets.onnx.nodes import OPERATORS, Emitter, Outputs
from targets.onnx.target import ONNXRUNTIME
from trainer.checkpoint import Checkpoint
from trainer.config import to_dict
from trainer.layers.attention import Attention
from trainer.networks import Network
from trainer.networks.integers import IntegerNetwork
from trainer.neurons.leaky import LEAKY_RESET, Leaky
from trainer.neurons.levels import LevelLeaky


def beyond_nir(network: nn.Module) -> bool:
    """Whether a layer multiplies spike trains or enlarges a picture."""
    return any(isinstance(module, Attention | nn.Upsample) for module in network.modules())


@dataclass(frozen=True)
class Parts:
    """What a file is written of.

    Args:
        build: makes the model.
        check: (file, frames (T, B, ...)) -> the file in onnxruntime against where it comes from.
        weights: whose hash the report holds.
        rounds: the file computes in floats what is exact elsewhere.
    """

    build: Callable[[], onnx.ModelProto]
    check: Callable[[Path, Tensor], Parity]
    weights: nir.NIRGraph
    rounds: bool


def network_parts(checkpoint: Checkpoint, unroll: int | None) -> Parts:
    """Those of a checkpoint's network; its description stands in the file's metadata."""
    network, shape = checkpoint.network, tuple(checkpoint.shape)
    if isinstance(network, IntegerNetwork):
        network = as_floats(network)
    said = {"hardspike": versions("hardspike")["hardspike"], "readout": network.readout,
            "data": json.dumps(to_dict(checkpoint.config)["data"]), "arithmetic": "float32"}
    return Parts(lambda: network_to_onnx(network, shape, said, unroll),
                 lambda path, frames: check_network_file(path, network, frames),
                 nir.NIRGraph(dict(nodes(network, shape)), [], type_check=False), rounds=True)


def nodes(network: Network, shape: Shape) -> list[tuple[str, nir.NIRNode]]:
    """Every layer that is one node of NIR, in evaluation mode, with its name."""
    shapes = layer_shapes(network, shape)
    return [(name, convert(Layer(name, layer, shapes[name])).nodes[name]) for name, layer in network.layers.items()
            if not isinstance(layer, Leaky | Attention | nn.Identity | nn.Upsample)]


@torch.no_grad()
def layer_shapes(network: Network, shape: Shape) -> dict[str, Shape]:
    """Layer -> shape of its first input, without batch and time."""
    found: dict[str, Shape] = {}
    hooks = [layer.register_forward_hook(
        lambda module, given, _, name=name: found.update(
            {name: tuple(given[0].shape[1 + isinstance(module, Leaky):])}))
        for name, layer in network.layers.items()]
    with network.evaluation():
        network(torch.zeros(1, 1, *shape).to(next(network.parameters())))
    for hook in hooks:
        hook.remove()
    return found


def network_to_onnx(network: Network, shape: Shape, properties: dict[str, str],
                    steps: int | None = None) -> onnx.ModelProto:
    """The hard network as a model of one step, or of `steps` steps.

    Args:
        shape: (C, H, W) of a frame.
        properties: its metadata.

    Raises:
        HardspikeError: neurons whose reset has no form here.
    """
    require_subtraction(network)
    parts, shapes = dict(nodes(network, shape)), layer_shapes(network, shape)

    def emit(e: Emitter, x: str) -> Outputs:
        results: Outputs = {}
        values: dict[str, str] = {}
        for name, layer in network.layers.items():
            given = [values[source] for source in network.sums.get(name, ())] or [x]
            e.scope = name
            if isinstance(layer, Attention):
                x = _attention(e, layer, given, [shapes[source] for source in network.sums[name]])
            else:
                x = e.total(given)
                if isinstance(layer, Leaky):
                    spikes = _neurons(e, layer, x, shapes[name])
                    results[f"{name}.spikes"] = spikes, shapes[name]
                    norm = layer.norm if isinstance(layer, LevelLeaky) else 1
                    x = spikes if norm == 1 else e.op("Mul", spikes, e.constant("grade", np.array(1 / norm)))
                elif isinstance(layer, nn.Upsample):
                    x = _upsample(e, layer, x, shapes[name])
                elif name in parts:
                    x = OPERATORS[type(parts[name])](e, x, parts[name], shapes[name])
            values[name] = x
        last = network.layers[name]
        results["output"] = x, (shapes[name][0], *last.size) if isinstance(last, nn.Upsample) else \
            output_shape(name, parts[name], shapes[name])
        return results

    return assembled(emit, shape, properties, steps)


def require_subtraction(network: Network) -> None:
    """Refuse neurons that do not reset by subtraction, or that scale what comes in.

    Raises:
        HardspikeError: names the layer.
    """
    for name, neuron in network.neurons().items():
        kind = "plif" if neuron.plif else f"reset {neuron.reset}"
        if neuron.plif or neuron.reset not in ("subtract", LEAKY_RESET):
            raise HardspikeError(f"layer '{name}': {kind} has no form in the ONNX model of a whole network; train with "
                                 "reset subtract or subtract_leaky")


def _neurons(e: Emitter, neuron: Leaky, x: str, shape: Shape) -> str:
    """s of a layer: its membrane where it has memory, compared with every threshold."""
    beta, theta = float(neuron.beta.detach().clamp(0, 1)), float(neuron.threshold)
    leaks = isinstance(neuron, LevelLeaky) or neuron.reset == LEAKY_RESET
    remembers = bool(beta) or not leaks
    if remembers:
        x = e.op("Add", e.state("v", shape), x)
    fired = [e.op("Cast", e.op("Greater", x, e.constant(f"threshold_{i}", np.array(each))), to=onnx.TensorProto.FLOAT)
             for i, each in enumerate(neuron.thresholds().double().tolist(), 1)]
    spikes = e.total(fired)
    if remembers:  # what is left of it for the next step
        kept = e.op("Mul", x, e.constant("beta", np.array(beta)))
        taken = e.op("Mul", spikes, e.constant("reset", np.array(beta * theta if leaks else theta)))
        e.update("v", e.op("Sub", kept, taken))
    return spikes


def _upsample(e: Emitter, layer: nn.Upsample, x: str, shape: Shape) -> str:
    """The nearest neighbour, as torch has it: pixel i of n' is pixel floor(i*n/n') of n."""
    rows, columns = (e.index(f"nearest_{axis}", [i * given // wanted for i in range(wanted)])
                     for axis, given, wanted in zip("yx", shape[1:], layer.size, strict=True))
    return e.op("Gather", e.op("Gather", x, rows, axis=2), columns, axis=3)


def _attention(e: Emitter, layer: Attention, given: list[str], shapes: list[Shape]) -> str:
    """q (k^T v) times the scale, head by head."""
    queries, keys, values = (
        e.op("Reshape", x, e.index(key, [0, layer.heads, channels // layer.heads, height * width]))
        for key, x, (channels, height, width) in zip("qkv", given, shapes, strict=True))
    products = e.op("MatMul", keys, e.op("Transpose", values, perm=[0, 1, 3, 2]))
    mixed = e.op("MatMul", e.op("Transpose", products, perm=[0, 1, 3, 2]), queries)
    scaled = e.op("Mul", mixed, e.constant("scale", np.array(layer.scale)))
    return e.op("Reshape", scaled, e.index("picture", [0, *shapes[2]]))


def check_network_file(path: Path, network: Network, frames: Tensor) -> Parity:
    """The file in onnxruntime against the hard network in float64.

    Args:
        frames: (T, B, C, H, W).
    """
    def chunk(part: Tensor) -> Parity:
        found = onnx_runtime.run_file(path, part)
        exact, float32 = network_differences(network, part, found.spikes, found.output)
        parity = parities.compare("hard network (float64)", ONNXRUNTIME.name, exact, found.spikes)
        parity.float32 = float32
        return parity

    return parities.in_chunks(frames, chunk)
