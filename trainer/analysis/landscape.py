"""The loss around a trained network: its surface over two directions (A2SG fig. 1) and the Hessian's top eigenvalues.

The surface is of the loss itself and asks no derivative of it, so that it is drawn of hard spikes as well as of smooth
ones. Directions are random and filter-normalised (Li et al. 2018, `Visualizing the Loss Landscape of Neural Nets`, sec.
4): each filter of a direction is as long as the network's own, so that a step of 1 means the same whatever the scale of
the weights; biases and normalisation stay. A2SG moves the weights of one layer, Conv1.

A Hessian is one of the smooth network. The loss of hard spikes is a staircase in all weights but the readout's: where
it has a second derivative, that is 0, and what autograd gives for its gradient is the surrogate's, a field that is the
gradient of nothing and whose Jacobian is no Hessian (it is not even symmetric). So of a network that was trained with
hard spikes we have the top eigenvalues of the smooth network of the same weights (its `surrogate`), which is another
network; and of itself `rise`, differences of its own loss at a finite distance.

Networks are as `sharpness.double` makes them, in evaluation mode; frames (T, B, C, H, W), the loss is the mean
cross-entropy in nats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike import HardspikeError
from trainer.analysis.diagnostics import layer_weights
from trainer.analysis.sharpness import gradient, loss, moved, trained_weights
from trainer.networks import Network

STEP = 1e-4
"""Distance of the gradients whose difference is a product with the Hessian: the error is of its square, 1e-8."""
ITERATIONS = 30
"""Of Lanczos, at most."""
ACCURACY = 1e-4
"""Of eigenvalues, relative to the largest, at which Lanczos ends."""


def moving(network: Network, layer: str | None) -> list[bool]:
    """Which of `trained_weights` move: those of all layers' filters, or of one layer's.

    Raises:
        HardspikeError: there is no such layer.
    """
    layers = layer_weights(network)
    if layer is not None and layer not in layers:
        raise HardspikeError(f"layer '{layer}': the network has none of this name; it has {', '.join(layers)}")
    chosen = {id(weight) for name, weights in layers.items() if layer in (None, name) for weight in weights}
    return [id(weight) in chosen for weight in trained_weights(network)]


def filter_normalised(network: Network, generator: torch.Generator, layer: str | None = None) -> list[Tensor]:
    """A random direction, one tensor a parameter, each of whose filters is as long as the network's.

    A filter is what leads to one output channel or neuron. What is no filter (biases, BatchNorm) has a direction of 0.

    Args:
        layer: its weights alone; None for all.
    """
    found = []
    for weight, moves in zip(trained_weights(network), moving(network, layer), strict=True):
        if not moves:
            found.append(torch.zeros_like(weight))
            continue
        drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
        norms = [x.detach().flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1)) for x in (weight, drawn)]
        found.append(drawn * norms[0] / norms[1])
    return found


def surface(network: Network, frames: Tensor, labels: Tensor, directions: tuple[Sequence[Tensor], Sequence[Tensor]],
            grid: Sequence[float], each: Callable[[], None] = lambda: None) -> list[list[float]]:
    """L(w + x*d1 + y*d2) of every y (rows) and x (columns) of the grid.

    Args:
        directions: d1 and d2.
        grid: steps along both.
        each: called after every loss.
    """
    rows = []
    for y in grid:
        row = []
        for x in grid:
            with moved(network, directions[0], x), moved(network, directions[1], y):
                row.append(loss(network, frames, labels))
            each()
        rows.append(row)
    return rows


def rise(network: Network, frames: Tensor, labels: Tensor, directions: Sequence[Sequence[Tensor]],
         length: float) -> float:
    """Mean of (L(w + r*d) + L(w - r*d))/2 - L(w) over directions d, at r = `length`.

    For small r and a smooth loss this is r^2/2 times the curvature along d; of hard spikes it is what there is of it.
    """
    here, sides = loss(network, frames, labels), []
    for direction in directions:
        for side in (length, -length):
            with moved(network, direction, side):
                sides.append(loss(network, frames, labels))
    return sum(sides) / len(sides) - here


@dataclass(frozen=True)
class Eigenvalues:
    """The Hessian's largest eigenvalues, by magnitude, and how far each is from one at most."""

    values: list[float]
    residuals: list[float]


def hessian_eigenvalues(network: Network, frames: Tensor, labels: Tensor, count: int = 2, layer: str | None = None,
                        seed: int = 0) -> Eigenvalues:
    """Of the loss in the weights of the filters (`moving`), with smooth spikes whatever the network has now.

    A product with the Hessian is the difference of two exact gradients, central, at `STEP`: the neurons' backward has
    no derivative of its own.

    Args:
        count: how many.
        layer: the Hessian's block of one layer; None for the whole.
        seed: of the vector that Lanczos begins with.

    Raises:
        HardspikeError: there is no such layer; a gradient is infinite or no number.
    """
    which = moving(network, layer)
    weights = trained_weights(network)
    sizes = [weight.numel() for weight, moves in zip(weights, which, strict=True) if moves]

    def product(vector: Tensor) -> Tensor:
        parts = iter(vector.split(sizes))
        direction = [next(parts).view_as(weight) if moves else torch.zeros_like(weight)
                     for weight, moves in zip(weights, which, strict=True)]
        sides = []
        for step in (STEP, -STEP):
            with moved(network, direction, step):
                found = gradient(network, frames, labels)
            sides.append(torch.cat([part.flatten() for part, moves in zip(found, which, strict=True) if moves]))
        return (sides[0] - sides[1]) / (2 * STEP)

    with network.mode(hard=False):
        begin = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return lanczos(product, begin.to(weights[0].device), count)


def lanczos(product: Callable[[Tensor], Tensor], begin: Tensor, count: int) -> Eigenvalues:
    """The eigenvalues of largest magnitude of a symmetric matrix that is known by its products alone.

    Every new vector is made orthogonal to all before it, twice. It ends where the `count` values are good to `ACCURACY`
    of the largest, or the space is exhausted, or after `ITERATIONS`; the residuals say how good they are.

    Args:
        product: v -> A v, (P,) float64.
        begin: (P,), any but 0.
        count: how many; fewer where P is smaller.

    Raises:
        HardspikeError: a product is infinite or no number.
    """
    basis, diagonal, beside = [begin / begin.norm()], [], []
    while True:
        w = product(basis[-1])
        if not w.isfinite().all():
            raise HardspikeError("the gradient of the smooth network is infinite or no number: its weights are too "
                                 "large; train it again with a lower lr")
        diagonal.append((w @ basis[-1]).item())
        for _ in range(2):
            for vector in basis:
                w = w - (w @ vector) * vector
        beside.append(w.norm().item())
        small = torch.diag(torch.tensor(diagonal)).double()
        for index, value in enumerate(beside[:-1]):
            small[index, index + 1] = small[index + 1, index] = value
        values, vectors = torch.linalg.eigh(small)
        order = values.abs().argsort(descending=True)[:count]
        residuals = (beside[-1] * vectors[-1, order]).abs()
        largest = values.abs().max().item()
        exhausted = len(basis) == len(begin) or beside[-1] <= 1e-12 * largest
        good = len(order) == count and bool((residuals <= ACCURACY * largest).all())
        if exhausted or good or len(basis) == ITERATIONS:
            return Eigenvalues(values[order].tolist(), residuals.tolist())
        basis.append(w / beside[-1])
