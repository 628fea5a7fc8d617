"""Operator norms of a network's linear blocks, as they act: strides, padding and pooling included.

A block is what lies between one layer of neurons and the next (SAST remark II.2: convolution, the affine scaling of an
inference-mode normalisation, linear downsampling), the last one being the readout.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hardspike import HardspikeError
from trainer.networks import Network
from trainer.neurons.leaky import Leaky
from trainer.neurons.recurrent import Recurrent

ITERATIONS = 2000
TOLERANCE = 1e-9
"""Relative change of a norm in one step of the power iteration that ends it."""


@dataclass(frozen=True)
class Block:
    """A linear block in float64 and evaluation mode.

    Args:
        name: of the neurons that it drives, or "readout".
        layers: what it consists of, in order; a flatten for the readout's or a dense layer's sake included.
        given: shape of what comes in, without time and batch.
        made: shape of what goes out.
    """

    name: str
    layers: nn.Sequential
    given: tuple[int, ...]
    made: tuple[int, ...]

    def norm(self) -> float:
        """||A||: the most by which the block lengthens a difference of inputs (one time step, Euclidean)."""
        return operator_norm(self.layers, self.given)


def blocks(network: Network, shape: tuple[int, ...]) -> list[Block]:
    """The linear blocks of a network, in order.

    Args:
        shape: of one time step of a recording, (C, H, W).

    Raises:
        HardspikeError: the network is no chain of linear blocks: branches meet, or it has MaxPool.
    """
    if network.sums:
        raise HardspikeError(f"{next(iter(network.sums))}: branches meet here, and SAST eq. 3 is a chain of layers; "
                             "its bounds say nothing of this network")
    found, pending, shape = [], [], tuple(shape)
    for name, layer in network.layers.items():
        if isinstance(layer, Recurrent):
            raise HardspikeError(f"{name}: hears itself, and SAST eq. 3 is a chain of layers; its bounds say nothing "
                                 "of this network")
        if isinstance(layer, nn.MaxPool2d):
            raise HardspikeError(f"{name}: MaxPool is not linear (SAST remark II.2); its bounds say nothing of this "
                                 "network; take average pooling")
        if not isinstance(layer, Leaky):
            pending.append(layer)
        if pending and (isinstance(layer, Leaky) or name == "readout"):
            layers = copy.deepcopy(nn.Sequential(*pending)).double().cpu().eval().requires_grad_(False)
            made = tuple(layers(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
            found.append(Block(name, layers, shape, made))
            pending, shape = [], made
    return found


def operator_norm(function: Callable[[Tensor], Tensor], shape: tuple[int, ...], seed: int = 0) -> float:
    """Largest singular value of the linear part of an affine function, by power iteration on A^T A.

    A^T comes from the function's own backward: no matrix is built. (Miyato et al. 2018, sec. 2.1, reshape a
    convolution's kernel to a matrix instead, which is another number.)

    Args:
        function: (1, *shape) float64 -> (1, ...).
        shape: without the batch.
        seed: of the vector that it begins with.

    Returns:
        the norm; what the iteration stops at is never above it.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    with torch.enable_grad():
        offset, norm = function(torch.zeros_like(x)).detach(), 0.0
        for _ in range(ITERATIONS):
            length = x.norm()
            if not length:  # the function is constant
                return 0.0
            x = (x / length).detach().requires_grad_()
            y = function(x) - offset
            before, norm = norm, y.detach().norm().item()
            if norm - before <= TOLERANCE * norm:
                break
            x, = torch.autograd.grad(y, x, y.detach())
    return norm
