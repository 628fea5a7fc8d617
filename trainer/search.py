"""Scales and thresholds with which a trained network begins in a chip's integers; as `export quantise` chooses them.

Layer by layer, all layers before it in integers already: the scale of `hardspike.grid.CLIPS`, then the threshold of
`TRIMS`, whose spikes differ least from those of the network in floats. The readout's scale is the one that changes its
weights least.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from hardspike import HardspikeError, progress
from hardspike.grid import TRIMS, clips, grid, least_error
from trainer.layers.sparse import weighted
from trainer.networks.integers import (
    READOUT,
    IntegerNetwork,
    Integers,
    Units,
    Wiring,
    exact_float32,
    folded,
    leak_on_grid,
    rounded,
    wiring,
)
from trainer.networks.network import Network
from trainer.neurons.dynamics import Dynamics
from trainer.neurons.fixed import Fixed
from trainer.neurons.leaky import Leaky
from trainer.neurons.levels import LevelLeaky, highest
from trainer.neurons.scan import scan
from trainer.quantise import BIAS, THRESHOLD, WEIGHT

CHUNK = 16
"""Recordings that run in float64 at once."""


@torch.no_grad()
def to_integers(network: Network, frames: Tensor, target: str, bits: int) -> IntegerNetwork:
    """`network`, BatchNorm folded, in integers of `bits` bits, scales and thresholds chosen on `frames` (T, B, ...).

    Raises:
        HardspikeError: a layer that no scale fits into the chip's ranges, or that has no form in integers.
    """
    plain, wanted = folded(network).eval(), _hard_spikes(network, frames)
    wires = wiring(plain)
    search = _Search(plain, wires, frames, target, bits)
    with exact_float32():
        layers = {name: search.layer(name, plain.layers[name], wanted[name])
                  for name in progress(wires.inputs, f"{bits} bits")}
    readout = search.readout() if READOUT in wires.neurons else 0.0
    return IntegerNetwork(plain, Integers(target, bits, layers, readout)).train(network.training)


def _hard_spikes(network: Network, frames: Tensor) -> dict[str, Tensor]:
    """Spikes (T, B, ...) of every layer in float64, as bytes; a few recordings at a time."""
    exact = copy.deepcopy(network).double().eval()
    parts: dict[str, list[Tensor]] = {}
    with exact.mode(hard=True):
        for part in frames.split(CHUNK, 1):
            record: dict[str, Tensor] = {}
            exact(part.double(), record)
            for name, spikes in record.items():
                parts.setdefault(name, []).append(spikes.to(torch.uint8))
    return {name: torch.cat(found, 1) for name, found in parts.items()}


class _Search:
    """The layers of a folded network, and what those before the current one gave in integers.

    Args:
        network: folded, in evaluation mode.
        wiring: its.
        frames: (T, B, ...).
        target, bits: as in `Integers`.
    """

    def __init__(self, network: Network, wiring: Wiring, frames: Tensor, target: str, bits: int):
        self.network, self.wiring, self.target = network, wiring, target
        self.step, self.levels = grid(bits, WEIGHT)
        self.values: dict[str, Tensor] = {}
        before = None
        for name, layer in network.layers.items():  # pooling of the frames themselves
            if not isinstance(layer, nn.AvgPool2d | nn.Flatten | nn.Identity):
                break
            x = frames if before is None else self.values[before]
            self.values[name], before = self._passed(layer, x), name
        self.frames = frames

    def _passed(self, layer: nn.Module, x: Tensor) -> Tensor:
        """`x` (T, B, ...) behind pooling, in sums, or a flattening; what feeds a linear layer is asked of it later."""
        if isinstance(layer, nn.AvgPool2d):
            return nn.functional.avg_pool2d(x.flatten(0, 1), layer.kernel_size, divisor_override=1).unflatten(
                0, x.shape[:2])
        return x.flatten(2) if isinstance(layer, nn.Flatten) else x

    def layer(self, name: str, neuron: Leaky, wanted: Tensor) -> Units:
        """Scale and threshold of one layer of neurons, whose spikes then stand in `values`.

        Raises:
            HardspikeError: nothing fits into the chip's ranges.
        """
        if not neuron.threshold.min() > 0:
            raise HardspikeError(f"layer '{name}': threshold {neuron.threshold.min():g}; a chip compares with 1 or "
                                 "more: train with positive thresholds")
        weights = self._weights(name)
        largest = float(weights.max())
        if not largest > 0:
            raise HardspikeError(f"layer '{name}': all weights are zero; train again, or remove the layer")
        best: tuple[int, Units, Tensor] | None = None

        def consider(scale: float, trim: float, arriving: tuple[Tensor, Tensor] | None = None) -> None:
            nonlocal best
            units = self._units(name, neuron, scale, trim)
            if units:
                spikes = self._run(neuron, units, *(arriving or self._arriving(name, units)))
                mismatches = int((spikes - wanted).abs().sum(dtype=torch.float64))
                if best is None or mismatches < best[0]:
                    best = mismatches, units, spikes

        full = self.levels * self.step / largest
        first = self._first(name, neuron, full)
        for clip in (first, *clips(weights)):
            consider(clip * full, 1.0)
        assert best is not None  # the first one fits
        scale, arriving = best[1].scale, self._arriving(name, best[1])
        for trim in TRIMS:
            consider(scale, trim, arriving)
        self._keep(name, best[2])
        return best[1]

    def _weights(self, name: str) -> np.ndarray:
        """|weight| of all that feeds a layer, one a place: those behind pooling are spread over their window."""
        found = [np.repeat(self.network.layers[linear].weight.detach().double().abs().numpy().ravel() / area, area)
                 for linear in self.wiring.linear(name) for area in [self.wiring.areas[linear]]]
        found += [np.full(self.wiring.areas[source], 1 / self.wiring.areas[source])
                  for source in self.wiring.shortcuts(name)]
        return np.concatenate(found)

    def _first(self, name: str, neuron: Leaky, full: float) -> float:
        """The largest weight onto the largest level, or less where threshold and bias then fit; else more."""
        for factor in (1 / 1.25, 1.25):
            clip = 1.0
            while 1e-3 < clip < 1e5:
                if self._units(name, neuron, clip * full, 1.0):
                    return clip
                clip *= factor
        raise HardspikeError(f"layer '{name}': no scale brings its weights, biases and threshold "
                             f"({neuron.threshold.max():.3g}) into a chip's ranges; train with smaller biases or "
                             "another threshold")

    def _units(self, name: str, neuron: Leaky, scale: float, trim: float) -> Units | None:
        """The layer at this scale; None where something leaves the chip's range, or a shortcut vanishes."""
        part = 2 if isinstance(neuron, LevelLeaky) else 1  # the lowest of its thresholds is half of it
        threshold = part * int(np.round(neuron.threshold.item() * scale * trim / part))
        bias = sum((self.network.layers[linear].bias.detach().double() for linear in self.wiring.linear(name)
                    if self.network.layers[linear].bias is not None), torch.zeros(1, dtype=torch.float64))
        if threshold < 1 or highest(neuron, threshold) > THRESHOLD or bias.abs().max().item() * scale + 1 > BIAS:
            return None
        shortcut = 0
        for source in self.wiring.shortcuts(name):
            steps = int(np.round(scale / (self.wiring.areas[source] * self.step)))
            shortcut = self.step * min(steps, self.levels)
            if not shortcut:
                return None
        return Units(float(scale), threshold, shortcut)

    def _arriving(self, name: str, units: Units) -> tuple[Tensor, Tensor]:
        """Integer current (T, B, ...) of a layer, and the biases in it."""
        current = bias = None
        for source in self.wiring.inputs[name]:
            if source in self.wiring.neurons:
                layer, x = self.network.layers[source], self._input(source)
                weight = rounded(layer.weight, units.scale / self.wiring.areas[source], self.step, self.levels)
                own = torch.zeros(len(weight)) if layer.bias is None else rounded(
                    layer.bias, units.scale, 1, BIAS // len(self.wiring.linear(name)))
                part = weighted(layer, x.flatten(0, 1), weight, own).unflatten(0, x.shape[:2])
                own = own.view(-1, *[1] * (part.dim() - 3))
                bias = own if bias is None else bias + own
            else:
                part = self.values[source] * units.shortcut
            current = part if current is None else current + part
        return current, bias

    def _input(self, linear: str) -> Tensor:
        """What a linear layer gets."""
        names = list(self.network.layers)
        at = names.index(linear)
        before = self.network.sums[linear][0] if linear in self.network.sums else names[at - 1] if at else None
        return self.frames if before is None else self.values[before]

    def _run(self, neuron: Leaky, units: Units, current: Tensor, bias: Tensor) -> Tensor:
        if isinstance(neuron, LevelLeaky):
            return neuron.in_integers(current, Fixed(units.scale, units.threshold, bias))[0]
        beta = leak_on_grid(neuron.beta, self.target)
        dynamics = Dynamics(neuron.surrogate, True, neuron.reset,
                            fixed=Fixed(units.scale, units.threshold, bias))
        return scan(current, beta, neuron.threshold, dynamics)[0]

    def _keep(self, name: str, spikes: Tensor) -> None:
        """Spikes of a layer, and what pooling behind it makes of them."""
        self.values[name] = spikes
        before = name
        for after, layer in list(self.network.layers.items())[list(self.network.layers).index(name) + 1:]:
            if not isinstance(layer, nn.AvgPool2d | nn.Flatten):
                return
            self.values[after] = self._passed(layer, self.values[before])
            before = after

    def readout(self) -> float:
        """The readout's scale."""
        weight = self.network.layers[READOUT].weight.detach().double().numpy()
        return float(least_error(weight / self.wiring.areas[READOUT], self.step, self.levels))
