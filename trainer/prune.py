"""Pruning for the chip: the smallest weights away, and what is zero stays zero while the rest is fine-tuned."""

from functools import partial

import torch
from torch import Tensor, nn

from trainer.networks.network import Network
from trainer.neurons.recurrent import Recurrent


def linear_weights(network: Network) -> dict[str, nn.Parameter]:
    """The weights of every linear layer on the chip; the host's readout is left alone."""
    found = {name: layer.weight for name, layer in network.layers.items() if isinstance(layer, nn.Conv2d | nn.Linear)
             and not (name == "readout" and network.readout == "linear")}
    return found | {f"{name}_recurrent": layer.recurrent.weight for name, layer in network.layers.items()
                    if isinstance(layer, Recurrent)}


@torch.no_grad()
def prune(network: Network, share: float) -> None:
    """Set the `share` of every layer's weights that are smallest in magnitude to zero.

    The number of weights that go is rounded down; of equal ones the first in memory go.
    """
    for weight in linear_weights(network).values():
        order = weight.abs().flatten().argsort(stable=True)
        weight.view(-1)[order[:int(share * weight.numel())]] = 0


def keep_zeros(network: Network) -> None:
    """From now on no gradient moves a weight that is zero; decay and averaging leave it there by themselves."""
    for weight in linear_weights(network).values():
        weight.register_hook(partial(_masked, weight))


def _masked(weight: Tensor, gradient: Tensor) -> Tensor:
    return gradient * (weight.detach() != 0)
