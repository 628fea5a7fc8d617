"""Untrained networks that spike, for tests of what comes after training."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.checkpoint import Checkpoint, save
from trainer.config import FitConfig
from trainer.data import DataConfig
from trainer.networks import Network, NetworkConfig, build
from trainer.neurons.spikes import Surrogate

THEORY = {"phi(-theta)": 0.0, "q_loose": 1.9, "q_tight": 0.9, "theory_aligned": False, "why_not": "untrained"}
"""Of a checkpoint that nobody trained."""
SHAPE = (2, 34, 34)
BUSY = {"layers": "6c5s2-ap2-8c3-32", "gain": 6.0, "batch_norm": False, "surrogate": Surrogate("arctan")}


def settled(network: Network, frames: Callable[[], Tensor], gain: float, times: int) -> Network:
    """`network`, of hard spikes, whose BatchNorm has `gain` and has seen `times` draws of frames, so that all fires."""
    network.set_mode(True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, gain)
            module.momentum = 0.5
    with torch.no_grad():
        for _ in range(times):
            network(frames())
    return network.eval()


def busy_network(**options) -> Network:
    """An untrained network that spikes in every layer, with BatchNorm statistics that are not the initial ones."""
    options = {**BUSY, **options}
    network = build(NetworkConfig(**options), SHAPE, 10)
    for name, value in [*network.named_buffers(), *network.named_parameters()]:
        if "running" in name:
            value.uniform_(0.3, 0.9)
        elif "norm" in name and name.endswith(("weight", "bias")):
            value.data.uniform_(0.2, 2.5)
        elif options.get("readout") == "spikes" and name == "layers.readout.bias":
            value.data += 0.5
    return network.eval()


def frames(steps: int = 12, batch: int = 6) -> torch.Tensor:
    return (torch.rand(steps, batch, *SHAPE) < 0.3).float()


def busy_checkpoint(path: Path, data: DataConfig, **options) -> Path:
    """`busy_network` as a checkpoint of a run on `data`."""
    network = busy_network(**options)
    config = FitConfig(data=data, network=NetworkConfig(**{**BUSY, **options}))
    save(Checkpoint(config, network, SHAPE, 10, 1, [], THEORY), path)
    return path
