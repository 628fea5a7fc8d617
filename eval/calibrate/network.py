"""Calibration of a trained network for hard spikes: threshold multipliers by search, biases in closed form.

None of it changes a weight. What the smooth network has and the hard one lacks is phi(u - theta) below the threshold:
a neuron at rest gives phi(-theta), arctan .063, at every step, to the neurons behind it and to its own reset. With the
membrane u[t] = beta*u[t-1] + d[t] (snnTorch's, see `trainer.neurons.scan`), the drive d is what is new in a step:

    subtract:  d[t] = I[t] - theta*s[t-1]          zero:  d[t] = I[t] - beta*s[t-1]*u[t-1]

Where all rests and I = A s + b, the smooth mean drive is higher than the hard one by phi(-theta) times the sum of the
weights A, and lower by theta*phi(-theta). In general both means are measured, d[t] = u[t] - beta*u[t-1], and the bias
of each channel takes their difference,

    b  <-  b + mean(d_smooth) - mean(d_hard)        (mean over recordings, steps and a channel's places)

layer by layer in forward order, so that the hard means of a layer are those behind already calibrated ones. The shift
makes the layer itself spike differently, which moves d_hard through its reset; PASSES repeats find the point where the
means agree. A linear readout of mean spikes has no reset: its means agree after one.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from hardspike import HardspikeError, progress
from trainer.checkpoint import Checkpoint
from trainer.data import Data
from trainer.networks import Network, build

GRID = tuple(2.0 ** (k / 5) for k in range(-5, 6))
"""Multipliers to try, 15 % apart: a validation part of a hundred recordings tells no finer ones apart."""
SWEEPS = 2
PASSES = 3
BATCH = 64
_BIASED = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)


# -------------------------------------------------------------------------------------------- thresholds


def scaled(network: Network, multipliers: dict[str, float]) -> Network:
    """A copy whose layers (names as in `neurons()`) have their thresholds multiplied, in the reset as well."""
    network = copy.deepcopy(network)
    for name, factor in multipliers.items():
        network.neurons()[name].threshold.data.mul_(factor)
    return network


def search_global(layers: list[str], score: Callable[[dict[str, float]], int]) -> dict[str, float]:
    """One multiplier on all thresholds, the best of GRID; of equal scores the one nearest to 1.

    Args:
        layers: names of the spiking layers.
        score: multipliers -> right answers on the validation part.
    """
    return _best([dict.fromkeys(layers, factor) for factor in progress(GRID, "global multiplier")], score)


def search_layers(layers: list[str], score: Callable[[dict[str, float]], int]) -> dict[str, float]:
    """A multiplier a layer by coordinate search in forward order, until a sweep changes nothing, at most SWEEPS of
    them; of equal scores the one nearest to 1. Arguments as in `search_global`."""
    current = dict.fromkeys(layers, 1.0)
    for _ in range(SWEEPS):
        before = current
        for layer in progress(layers, "multiplier of each layer"):
            current = _best([current | {layer: factor} for factor in GRID], score)
        if current == before:
            break
    return current


def _best(candidates: list[dict[str, float]], score: Callable[[dict[str, float]], int]) -> dict[str, float]:
    return max(candidates, key=lambda m: (score(m), -sum(abs(math.log(factor)) for factor in m.values())))


# ------------------------------------------------------------------------------------------------ biases


def with_biases(stored: Checkpoint) -> Checkpoint:
    """A copy of a checkpoint in which every layer can take a bias: zero where there was none."""
    config = replace(stored.config, network=replace(stored.config.network, bias=True))
    with torch.random.fork_rng(devices=[]):  # its initial weights are drawn, and replaced
        network = build(config.network, stored.shape, stored.classes)
    missing = network.load_state_dict(stored.network.state_dict(), strict=False).missing_keys
    with torch.no_grad():
        for name in missing:
            network.get_parameter(name).zero_()
    for name, neuron in network.neurons().items():
        old = stored.network.neurons()[name]
        neuron.hard, neuron.surrogate = old.hard, old.surrogate
    return replace(stored, config=config, network=network.eval())


def biased(network: Network, data: Data, frames: Tensor) -> tuple[Network, dict[str, Tensor]]:
    """A copy with the closed-form biases of this module, and what was added: layer -> (channels,).

    BatchNorm stands behind its linear layer and takes the shift into its own bias; export folds it as ever.

    Args:
        network: in which every layer has a bias (`with_biases`), with the surrogate that it was trained with.
        data: says how frames become inputs.
        frames: recordings (N, T, C, H, W) to take the means on, training ones.

    Raises:
        HardspikeError: the current of a layer comes from one that holds no bias.
    """
    network = copy.deepcopy(network).eval()
    wanted = mean_drive(network, data, frames, hard=False)
    shifts = {}
    for name in progress(wanted, "bias of each layer"):
        bias = _bias_before(network, name)
        before = bias.clone()
        for _ in range(PASSES if name in network.neurons() else 1):
            bias += (wanted[name] - mean_drive(network, data, frames, hard=True)[name]).to(bias)
        shifts[name] = bias - before
    return network, shifts


@torch.inference_mode()
def mean_drive(network: Network, data: Data, frames: Tensor, hard: bool) -> dict[str, Tensor]:
    """Mean drive (channels,), float64, of each spiking layer, and the mean logits of a linear readout (`readout`).

    Arguments as in `biased`.
    """
    sums: dict[str, Tensor] = {}
    weight = next(network.parameters())
    with network.mode(hard):
        for part in frames.split(BATCH):
            membranes: dict[str, Tensor] = {}
            logits = network(data.to_input(part).to(weight), membranes=membranes)
            drives = {}
            for name, u in membranes.items():
                neuron = network.neurons()[name]
                beta = neuron.beta.clamp(0, 1)
                drive = u.sum(0, dtype=torch.float64) - beta * u[:-1].sum(0, dtype=torch.float64)  # (B, channels, ...)
                drive = drive / neuron.gain  # a bias comes in before it
                drives[name] = drive.transpose(0, 1).flatten(1).mean(1) / len(u)
            if network.readout == "linear":
                drives["readout"] = logits.double().mean(0)
            for name, mean in drives.items():
                sums[name] = sums.get(name, 0) + mean * len(part) / len(frames)
    return sums


def _bias_before(network: Network, name: str) -> Tensor:
    """The bias (channels,) that adds to the current of a layer, to change in place; of the readout, its own."""
    chain = dict(zip(list(network.layers)[1:], network.layers, strict=False))
    source = name if name == "readout" else network.sums.get(name, (chain.get(name),))[0]
    if source is None:
        raise HardspikeError(f"layer '{name}': takes the frames as they are, so that no bias can be added; use --kind "
                             "global or layers")
    layer = network.layers[source]
    if not isinstance(layer, _BIASED) or layer.bias is None:
        raise HardspikeError(f"layer '{name}': its current comes from '{source}' ({type(layer).__name__}), which holds "
                             "no bias to calibrate; use --kind global or layers")
    return layer.bias.data
