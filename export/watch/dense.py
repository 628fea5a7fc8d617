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

from export.freeze.assembly import MOST_VALUES, few_values
from export.watch.again import again
from export.watch.fold import Apply, Expr, Fixed, exprs
from export.watch.values import transform
from hardspike import HardspikeError

LARGEST = 2**25
"""Weights of one matrix: 256 MB in float64, enough for the transposed convolutions of snnTorch's autoencoder."""
_TOLERANCE = 1e-9


@dataclass
class Affine:
    """y = sum of weights[k] x_k + offset, on flattened samples."""

    weights: list[np.ndarray]
    offset: np.ndarray

    def values(self, given: tuple[float, ...]) -> tuple[float, ...]:
        """The few values of what comes out, where each of it hangs on one of `given` alone; () where they are not."""
        joined = np.concatenate(self.weights, 1)
        if not given or ((joined != 0).sum(1) > 1).any():
            return ()
        pairs = np.unique(np.stack([joined.sum(1), self.offset], 1), axis=0)
        return few_values(pairs[:, :1] * np.array(given) + pairs[:, 1:]) if len(pairs) <= MOST_VALUES else ()


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


def runner(expr: Apply, sources: list[Expr]) -> Callable[[list[Tensor]], Tensor]:
    """An expression as a function of values for each of its sources, float64 with the batch.

    Raises (when it is called):
        HardspikeError: it does not take these values, or gives another shape for them.
    """
    def run(parts: list[Tensor]) -> Tensor:
        given = {id(source): part.reshape(source.shape()).to(source.values[0].dtype)
                 for source, part in zip(sources, parts, strict=True)}
        result = evaluate(expr, given)
        if tuple(result.shape) != expr.shape():
            raise HardspikeError("gives another shape for other values; a graph's shapes are fixed")
        return result.double()

    return run


def affine(expr: Apply, sources: list[Expr]) -> Affine:
    """The matrices and the offset of an expression.

    Args:
        sources: the expressions in it that are its inputs.

    Raises:
        HardspikeError: it is not linear, mixes samples, or its matrix is too large; says which.
    """
    batch, sizes = expr.shape()[0], [int(np.prod(source.shape()[1:])) for source in sources]
    out, on_parts = int(np.prod(expr.shape()[1:])), runner(expr, sources)
    if odd := [source for source in sources if source.shape()[:1] != (batch,)]:
        if not {*odd[0].shape()[:1]} <= {*expr.shape()}:
            raise HardspikeError("mixes the samples of a batch; a graph knows no batch")
        raise HardspikeError("moves the batch from the first axis; keep samples there")

    def run(flat: Tensor) -> Tensor:
        return on_parts(list(flat.split(sizes, 1))).reshape(batch, -1)

    with torch.no_grad():
        offset = run(torch.zeros(batch, sum(sizes), dtype=torch.float64))
        if not torch.equal(offset, offset[:1].expand_as(offset)) or not offset.isfinite().all():
            raise HardspikeError("gives every sample an offset of its own; a graph knows no batch")
        _require_apart(run, offset, batch, sum(sizes))
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
        if not close(run(probe) - offset, probe @ matrix.T):  # as of `x == 1`: nothing, on random values
            raise HardspikeError("")
    return Affine([part.numpy() for part in matrix.split(sizes, 1)], offset[0].numpy())


def _require_apart(run: Callable[[Tensor], Tensor], offset: Tensor, batch: int, size: int) -> None:
    """Nothing of one sample reaches another."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(size, dtype=torch.float64, generator=generator)
    for first in (values, (values > 0).double()):
        one = torch.zeros(batch, size, dtype=torch.float64)
        one[0] = first
        if batch > 1 and not close(run(one)[1:], offset[1:]):
            raise HardspikeError("mixes the samples of a batch; a graph knows no batch")


def _require_linear(run: Callable[[Tensor], Tensor], offset: Tensor, batch: int, size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    one, other = (torch.randn(batch, size, dtype=torch.float64, generator=generator) for _ in range(2))
    f, g = run(one) - offset, run(other) - offset
    for tried, expected in ((one + other, f + g), (-one, -f), (3 * other, 3 * g), (other - 2 * one, g - 2 * f)):
        if not close(run(tried) - offset, expected):
            raise HardspikeError("")
    for scale in (1e-4, 1e3, 1e6):  # a clamp is the identity as long as nothing reaches it
        if not close((run(scale * one) - offset) / scale, f):
            raise HardspikeError("is linear for small values alone (a clamp, a threshold?)")


def close(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding in float64."""
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
