"""Whatever is linear, found out by trying: a recorded operation is run again on zeros, on random values and on units.

The result is taken as A x + b only if random values agree, every sample gets the same offset, and the batch stays where
it was; that covers slices, concatenation, permutations, products with weights, transposed convolutions and upsampling
alike, and refuses what only looks linear on spikes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export.watch.again import again
from export.watch.fold import Apply, Expr, Fixed, exprs
from export.watch.values import transform
from hardspike import HardspikeError

LARGEST = 2**24
"""Weights of one matrix: 128 MB in float64."""
_TOLERANCE = 1e-9


@dataclass
class Affine:
    """y = sum of weights[k] x_k + offset, on flattened samples."""

    weights: list[np.ndarray]
    offset: np.ndarray

    def selects(self) -> bool:
        """Whether every output is one of the inputs."""
        joined = np.concatenate(self.weights, 1)
        return not self.offset.any() and np.isin(joined, (0, 1)).all() and (joined.sum(1) == 1).all()


def evaluate(expr: Expr, given: dict[int, Tensor]) -> Tensor:
    """What a folded expression gives where some of the expressions in it are `given`, by id.

    Raises:
        HardspikeError: the operation does not take these values.
    """
    if id(expr) in given:
        return given[id(expr)]
    if isinstance(expr, Fixed):
        return expr.tensor
    args, kwargs = transform((expr.args, expr.kwargs), Expr, lambda child: evaluate(child, given))
    return again(expr.function, args, kwargs, expr.index)


def affine(expr: Apply, sources: list[Expr]) -> Affine:
    """The matrices and the offset of an expression.

    Args:
        sources: the expressions in it that are its inputs.

    Raises:
        HardspikeError: it is not linear, mixes samples, or its matrix is too large; says which.
    """
    batch, sizes = expr.shape()[0], [int(np.prod(source.shape()[1:])) for source in sources]
    out = int(np.prod(expr.shape()[1:]))
    if any(source.shape()[:1] != (batch,) for source in sources):
        raise HardspikeError("moves the batch from the first axis; keep samples there")

    def run(flat: Tensor) -> Tensor:
        parts = flat.split(sizes, 1)
        given = {id(s): part.reshape(s.shape()) for s, part in zip(sources, parts, strict=True)}
        result = evaluate(expr, given)
        if tuple(result.shape) != expr.shape():
            raise HardspikeError("gives another shape for other values; a graph's shapes are fixed")
        return result.double().reshape(batch, -1)

    with torch.no_grad():
        offset = run(torch.zeros(batch, sum(sizes), dtype=torch.float64))
        if not torch.equal(offset, offset[:1].expand_as(offset)) or not offset.isfinite().all():
            raise HardspikeError("gives every sample an offset of its own; a graph knows no batch")
        _require_linear(run, offset, batch, sum(sizes))
        if sum(sizes) * out > LARGEST:
            raise HardspikeError(f"is linear, but the matrix of {out} x {sum(sizes)} weights that it amounts to is "
                                 f"larger than {LARGEST}; use a convolution with a stride, or smaller pictures")
        columns = []
        for start in range(0, sum(sizes), batch):
            units = torch.zeros(batch, sum(sizes), dtype=torch.float64)
            count = min(batch, sum(sizes) - start)
            units[torch.arange(count), start + torch.arange(count)] = 1
            columns.append((run(units) - offset)[:count])
        matrix = torch.cat(columns).T.contiguous()
        probe = torch.randn(batch, sum(sizes), dtype=torch.float64)
        if not _close(run(probe) - offset, probe @ matrix.T):
            raise HardspikeError("mixes the samples of a batch; a graph knows no batch")
    return Affine([part.numpy() for part in matrix.split(sizes, 1)], offset[0].numpy())


def _require_linear(run: Callable[[Tensor], Tensor], offset: Tensor, batch: int, size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    one, other = (torch.randn(batch, size, dtype=torch.float64, generator=generator) for _ in range(2))
    f, g = run(one) - offset, run(other) - offset
    for tried, expected in ((one + other, f + g), (-one, -f), (3 * other, 3 * g), (other - 2 * one, g - 2 * f)):
        if not _close(run(tried) - offset, expected):
            raise HardspikeError("")
    for scale in (1e-4, 1e3, 1e6):  # a clamp is the identity as long as nothing reaches it
        if not _close((run(scale * one) - offset) / scale, f):
            raise HardspikeError("is linear for small values alone (a clamp, a threshold?)")


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= _TOLERANCE * max(1.0, float(other.abs().max())))


def source_of(expr: Apply, soft: Callable[[Expr], bool]) -> list[Expr]:
    """What an expression is a function of: the nearest expressions that have nodes of their own."""
    found: dict[int, Expr] = {}

    def visit(node: Expr) -> None:
        for child in exprs((node.args, node.kwargs)):
            if isinstance(child, Fixed):
                continue
            if isinstance(child, Apply) and soft(child):
                visit(child)
            else:
                found.setdefault(id(child), child)

    visit(expr)
    return list(found.values())
