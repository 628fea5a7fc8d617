"""Spike-driven self-attention: products of spike trains, without a softmax."""

import math

from torch import Tensor, nn


class Attention(nn.Module):
    """o = (q k^T) v * 2/sqrt(c/heads), computed as q (k^T v): the same sums, linear in the number of places.

    The network hands it what three layers of neurons give. No node of NIR and no synapse multiplies two spike trains.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.scale = 2 / math.sqrt(channels / heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(N, C', H, W) of q, k (N, C, H, W) and v (N, C', H, W)."""
        queries, keys, values = (x.flatten(2).unflatten(1, (self.heads, -1)) for x in (q, k, v))
        products = keys @ values.transpose(2, 3)  # (N, heads, C/heads, C'/heads)
        return (products.transpose(2, 3) @ queries).mul(self.scale).reshape(v.shape)
