"""What the networks share: the table that they are entered in, samples, two dense layers."""

import snntorch as snn
import torch
from torch import nn

T, B = 11, 5
OWN = {}
"""name -> (build, expected): see `tests.export.own`."""


def own(expected: str | None = None):
    def keep(build):
        OWN[build.__name__] = build, expected
        return build
    return keep


def spikes(*shape, p=0.3, steps=T):
    return (torch.rand(steps, B, *shape) < p).float()


def loud(network: nn.Module, factor: float = 3.0) -> nn.Module:
    """Weights that make untrained neurons fire."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data *= factor
    return network


class Two(nn.Module):
    """Two dense layers; subclasses differ in forward."""

    def __init__(self, i=20, h=24, o=6, **options):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(i, h), snn.Leaky(beta=0.9, **options)
        self.fc2, self.lif2 = nn.Linear(h, o), snn.Leaky(beta=0.8, **options)
        loud(self)
