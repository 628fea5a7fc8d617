"""A network that runs in a chip's integers, and learns the floats that they are rounded from.

`folded` takes BatchNorm into the layer before it, as export does; `IntegerNetwork` then runs forward exactly as the
exported graph will on the chip: weights m * 2^e of a few bits and biases in integer units, one scale a layer, pooling
as sums over windows (the graph spreads the same integer over the window), neurons as `trainer.neurons.fixed`. Backward
is straight through every rounding. With smooth spikes, or for no chip, the same integers are run over the scale, in
floats.

What was folded is trained as it is: batch statistics in the forward would be another network than the deployed one.

Of an E-SpikeFormer the convolutional stages are in integers, each convolution once for all neurons that hear it
(`trainer.networks.connections`). What attends is the host's, in floats, with its BatchNorm.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from hardspike import HardspikeError, UsageError
from hardspike.grid import grid
from trainer.layers.sparse import weighted
from trainer.networks.connections import counts, own_connections
from trainer.networks.espikeformer import before_attention
from trainer.networks.network import Network
from trainer.neurons.dynamics import Dynamics
from trainer.neurons.fixed import DECAY_UNIT, Fixed
from trainer.neurons.leaky import Leaky
from trainer.neurons.levels import LevelLeaky
from trainer.neurons.recurrent import Recurrent
from trainer.neurons.scan import scan
from trainer.quantise import BIAS, WEIGHT

READOUT = "readout"


@dataclass(frozen=True)
class Units:
    """One layer of neurons in integers.

    Args:
        scale: integer units for 1.
        threshold: integer; even for neurons that count, whose thresholds are its odd halves.
        shortcut: weight of spikes that come in as they are, integer; 0 where none do.
    """

    scale: float
    threshold: int
    shortcut: int = 0


@dataclass(frozen=True)
class Integers:
    """How a network is in integers; plain values, for the checkpoint.

    Args:
        target: the chip, loihi1 or loihi2; none: neurons in floats.
        bits: of a weight.
        layers: of each layer of neurons.
        readout: scale of the host's readout; 0 where the last layer spikes, or the host has more than a readout.
    """

    target: str
    bits: int
    layers: dict[str, Units] = field(default_factory=dict)
    readout: float = 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """(step, levels) of the weights."""
        return grid(self.bits, WEIGHT)


@dataclass(frozen=True)
class Wiring:
    """What leads where in a folded network.

    Args:
        neurons: linear layer -> the neurons that it feeds; "" for the host's readout.
        inputs: neurons -> what their input is the sum of, linear layers and shortcuts.
        areas: layer -> places of its input that one window of pooling covers; D behind neurons that count to D.
    """

    neurons: dict[str, str]
    inputs: dict[str, tuple[str, ...]]
    areas: dict[str, int]

    def linear(self, neurons: str) -> list[str]:
        """The linear layers that feed `neurons`."""
        return [name for name in self.inputs[neurons] if name in self.neurons]

    def shortcuts(self, neurons: str) -> list[str]:
        """What feeds `neurons` without weights: other neurons, or pooling behind them."""
        return [name for name in self.inputs[neurons] if name not in self.neurons]


def folded(network: Network) -> Network:
    """A copy of `network` whose BatchNorm is in the weights and biases of the layer before it, as it is at inference.

    It computes what `network` does in evaluation mode, to rounding; what it holds is in the network's own precision.
    Currents that several layers of neurons hear, in a network that counts, have connections of their own, and BatchNorm
    stays in what attends.
    """
    layers: dict[str, nn.Module] = {}
    renamed: dict[str, str] = {}
    folding = before_attention(network)
    for name, layer in network.layers.items():
        if isinstance(layer, _BatchNorm) and name in folding:
            before = next(reversed(layers))
            layers[before], renamed[name] = _with_norm(layers[before], layer), before
        else:
            layers[name] = copy.deepcopy(layer)
    sums = {name: tuple(renamed.get(source, source) for source in sources) for name, sources in network.sums.items()}
    made = Network(layers, network.readout, sums)
    return (own_connections(made) if counts(made) else made).train(network.training)


@torch.no_grad()
def _with_norm(linear: nn.Module, norm: _BatchNorm) -> nn.Module:
    """`linear` with the normalisation behind it, computed in float64."""
    made = copy.deepcopy(linear)
    mean, variance, gain, shift = (value.double() for value in (norm.running_mean, norm.running_var, norm.weight,
                                                                norm.bias))
    factor = gain / (variance + norm.eps).sqrt()
    bias = shift - mean * factor
    if linear.bias is not None:
        bias += factor * linear.bias.double()
    weight = linear.weight.double() * factor.view(-1, *[1] * (linear.weight.dim() - 1))
    made.weight = nn.Parameter(weight.to(linear.weight.dtype))
    made.bias = nn.Parameter(bias.to(linear.weight.dtype))
    return made


def wiring(network: Network) -> Wiring:
    """What leads where in a folded network.

    Raises:
        HardspikeError: a layer that has no form in integers.
    """
    neurons: dict[str, str] = {}
    inputs: dict[str, tuple[str, ...]] = {}
    areas: dict[str, int] = {}
    given, before = {}, None  # layer -> places that one of its values is a sum of
    for name in before_attention(network):
        layer, sources = network.layers[name], network.sums.get(name, (before,) if before else ())
        area = given[sources[0]] if sources else 1
        before = name
        if isinstance(layer, Recurrent):
            raise HardspikeError(f"layer '{name}' hears itself, which is not trained in integers: train it in floats "
                                 "and quantise the graph (`hardspike export quantise`)")
        if isinstance(layer, Leaky):
            inputs[name], given[name] = sources, layer.norm if isinstance(layer, LevelLeaky) else 1
            neurons.update({source: name for source in sources if source in neurons})
        elif isinstance(layer, nn.AvgPool2d):
            areas[name], given[name] = area, area * math.prod(_pair(layer.kernel_size))
        elif isinstance(layer, nn.Flatten | nn.Identity):
            areas[name], given[name] = area, area
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            neurons[name], areas[name], given[name] = "", area, 1
        else:
            raise HardspikeError(f"layer '{name}' ({type(layer).__name__}): has no form in a chip's integers; use "
                                 "average pooling (ap2) or a strided convolution")
    shortcuts = {source for sources in inputs.values() for source in sources if source not in neurons}
    areas |= {source: given[source] for source in shortcuts}
    return Wiring(neurons, inputs, areas)


def require_pooling(network: Network, shape: tuple[int, int, int]) -> None:
    """Refuse pooling that no linear layer behind it can take in, as a chip, which has none, needs it.

    Args:
        shape: (C, H, W) of a frame.

    Raises:
        UsageError: pooling leaves pixels over, and the next convolution pads what is left of the picture.
    """
    sizes: dict[str, torch.Size] = {}
    hooks = [layer.register_forward_hook(lambda _, given, __, name=name: sizes.update({name: given[0].shape[-2:]}))
             for name, layer in network.layers.items() if isinstance(layer, nn.AvgPool2d)]
    with torch.no_grad(), network.evaluation():
        network(torch.zeros(1, 1, *shape))
    for hook in hooks:
        hook.remove()
    before = None
    for name, layer in network.layers.items():
        source = network.sums.get(name, (before,))[0]
        if isinstance(layer, nn.Conv2d) and source in sizes and any(layer.padding):
            size, kernel = sizes[source], _pair(network.layers[source].kernel_size)
            if any(n % k for n, k in zip(size, kernel, strict=True)):
                raise UsageError(f"layer '{source}': pools {tuple(size)} by {kernel}, which leaves pixels over, and "
                                 f"'{name}' pads the rest: no layer of a chip does that; choose sizes that divide "
                                 "evenly, or padding 0 in the convolution")
        before = name


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class _Rounded(torch.autograd.Function):
    """step * round(factor*x/step), at most `most` steps from zero; backward straight through, `factor` alone.

    Beyond the clip the gradient goes on as well: the search puts a good part of ternary weights there, which would
    otherwise never come back. Rounded from float32, so that a copy of other precision has the same integers.
    """

    @staticmethod
    def forward(ctx, x, factor, step, most):
        ctx.factor = factor
        return (x.detach().float() * (factor / step)).round_().clamp_(-most, most).mul_(step).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return grad * ctx.factor, None, None, None


def rounded(x: Tensor, factor: float, step: int, most: int) -> Tensor:
    """`x` in integer units, `factor` for 1, as the nearest multiple of `step`, at most `most` steps from zero."""
    return _Rounded.apply(x, factor, step, most)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Float32 that rounds no integer within the block, whatever the caller set: no Winograd, no bfloat16."""
    onednn = torch.backends.mkldnn
    operations = onednn.matmul, onednn.conv
    before = [operation.fp32_precision for operation in operations]
    for operation in operations:
        if operation.fp32_precision != "ieee":
            operation.fp32_precision = "ieee"
    try:
        with torch.backends.nnpack.flags(enabled=False):
            yield
    finally:
        for operation, precision in zip(operations, before, strict=True):
            if operation.fp32_precision != precision:
                operation.fp32_precision = "none"  # as the backend's, which may be what it was
            if operation.fp32_precision != precision:
                operation.fp32_precision = precision


class IntegerNetwork(Network):
    """A folded network in integers.

    Args:
        network: folded; its modules are taken over, for a chip with thresholds and leaks as the chip holds them.
        integers: how.
    """

    def __init__(self, network: Network, integers: Integers):
        super().__init__(dict(network.layers), network.readout, network.sums)
        self.integers, self.wiring = integers, wiring(self)
        self.chip = before_attention(self)
        self.host = list(self.layers)[len(self.chip):]
        self.train(network.training)
        for name, units in integers.layers.items():
            neuron = self.layers[name]
            if self.exact:
                with torch.no_grad():
                    neuron.threshold.fill_(units.threshold / units.scale)
                    if not neuron.beta.requires_grad:
                        neuron.beta.copy_(leak_on_grid(neuron.beta, integers.target))

    @property
    def exact(self) -> bool:
        """Whether neurons are a chip's."""
        return self.integers.target != "none"

    def first(self, names: list[str]) -> "IntegerNetwork":
        """As `Network.first`."""
        return IntegerNetwork(super().first(names), replace(self.integers, readout=0.0))

    def forward(self, frames: Tensor, record: dict[str, Tensor] | None = None,
                membranes: dict[str, Tensor] | None = None) -> Tensor:
        """As `Network.forward`; membranes are in floats."""
        with exact_float32():
            return self._forward(frames, record, membranes)

    def _forward(self, frames: Tensor, record: dict[str, Tensor] | None,
                 membranes: dict[str, Tensor] | None) -> Tensor:
        x, offset, steps = frames, None, len(frames)
        kept = {source for sources in self.sums.values() for source in sources}
        values: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name in self.chip:
            layer = self.layers[name]
            if isinstance(layer, Leaky):
                arriving = [values[source] for source in self.wiring.inputs[name]] if name in self.sums else [
                    (x, offset)]
                x, membrane = self._neurons(name, layer, arriving)
                offset = None
                if record is not None:
                    record[name] = x
                if membranes is not None:
                    membranes[name] = membrane
            else:
                if name in self.sums:
                    x, offset = values[self.sums[name][0]]
                if self.readout == "linear" and name == READOUT:
                    return self._read(layer, x.sum(0), steps)
                if isinstance(layer, nn.AvgPool2d):
                    x = nn.functional.avg_pool2d(x.flatten(0, 1), layer.kernel_size, divisor_override=1).unflatten(
                        0, (steps, -1))
                elif isinstance(layer, nn.Conv2d | nn.Linear):
                    weight, bias = self.weights(name)
                    x = weighted(layer, x.flatten(0, 1), weight, bias).unflatten(0, (steps, -1))
                    offset = None if bias is None else bias.detach().view(-1, *[1] * (x.dim() - 3))
                elif not self._read_as_it_lies(name):
                    x = layer(x.flatten(0, 1)).unflatten(0, (steps, -1))
            if name in kept:
                values[name] = x, offset
        last = self.layers[self.chip[-1]]
        if isinstance(last, LevelLeaky):
            x = x / last.norm
        return self._through(self.host, x, record, membranes) if self.host else x.sum(0)

    def weights(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Weights and biases of a linear layer in integers, differentiable in its own."""
        layer, neurons, scale = self.layers[name], self.wiring.neurons[name], self.scale(name)
        step, levels = self.integers.grid
        most = BIAS // len(self.wiring.linear(neurons)) if neurons else 1 << 24
        bias = None if layer.bias is None else rounded(layer.bias, scale, 1, most)
        return rounded(layer.weight, scale / self.wiring.areas[name], step, levels), bias

    def scale(self, name: str) -> float:
        """Integer units for 1 of what a linear layer gives."""
        neurons = self.wiring.neurons[name]
        return self.integers.layers[neurons].scale if neurons else self.integers.readout

    def _neurons(self, name: str, neuron: Leaky, arriving: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor]:
        """Spikes and membrane of neurons whose input is the sum of `arriving`: values, and the biases in them."""
        units = self.integers.layers[name]
        current, offset = None, None
        for source, (x, bias) in zip(self.wiring.inputs[name], arriving, strict=True):
            if source not in self.wiring.neurons:
                x = x * (units.shortcut if self.exact else units.scale / self.wiring.areas[source])
            current = x if current is None else current + x
            offset = bias if offset is None else offset if bias is None else offset + bias
        if not (self.exact and neuron.hard):
            return neuron(current / units.scale)
        if isinstance(neuron, LevelLeaky):
            return neuron.in_integers(current, Fixed(units.scale, units.threshold, offset))
        beta = neuron.beta
        if beta.requires_grad:
            beta = beta + (leak_on_grid(beta, self.integers.target) - beta).detach()
        dynamics = Dynamics(neuron.surrogate, True, neuron.reset, neuron.detach_reset, neuron.windows,
                            Fixed(units.scale, units.threshold, offset))
        return scan(current, beta, neuron.threshold, dynamics)

    def _read(self, layer: nn.Linear, sums: Tensor, steps: int) -> Tensor:
        """Logits of spikes summed over time; in float64, which holds the integers whose argmax the class is."""
        weight, bias = self.weights(READOUT)
        logits = nn.functional.linear(sums.flatten(1).double(), weight.double())
        if bias is not None:
            logits = logits + steps * bias.double()
        return logits / (steps * self.integers.readout)


def leak_on_grid(beta: Tensor, target: str) -> Tensor:
    """Leaks in whole 4096ths, within what the chip holds."""
    least = 1 if target == "loihi1" else 0
    return (beta.detach().clamp(0, 1) * DECAY_UNIT).round_().clamp_(least, DECAY_UNIT).div_(DECAY_UNIT)
