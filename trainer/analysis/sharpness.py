"""How sharp the loss is around a trained network, and how its logits lean on inputs and weights (SAST sec. V-D, A-B).

Everything is measured in evaluation mode, in the mode (smooth or hard) that the network is in; with hard spikes the
gradients are those of the surrogate backward, which are no derivatives of anything. `double` makes a network for it:
in float32 the difference of two gradients is mostly rounding. Frames are (T, B, C, H, W), the loss is the mean
cross-entropy, all parameters that are trained count as one vector w.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainer.analysis.theory import contraction
from trainer.networks import Network

CHUNK = 64
"""Recordings that run at once."""
LENGTH = 0.01
"""||d|| of the secants that a run logs."""


def double(network: Network) -> Network:
    """A copy in float64 and evaluation mode."""
    return copy.deepcopy(network).double().eval()


def spread(values: Tensor) -> dict[str, float]:
    """Mean, standard deviation (n - 1), median and quartiles of (N,) values (SAST app. B)."""
    low, median, high = values.double().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    deviation = values.std().item() if len(values) > 1 else 0.0
    return {"mean": values.mean().item(), "sd": deviation, "median": median, "q1": low, "q3": high}


def trained_weights(network: Network) -> list[Tensor]:
    """The parameters that count as w, in the order of every direction here."""
    return [weight for weight in network.parameters() if weight.requires_grad]


@torch.no_grad()
def loss(network: Network, frames: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy in nats."""
    return sum(cross_entropy(network(part), truth, reduction="sum").item() for part, truth in
               zip(frames.split(CHUNK, 1), labels.split(CHUNK), strict=True)) / len(labels)


def gradient(network: Network, frames: Tensor, labels: Tensor) -> list[Tensor]:
    """dL/dw of the mean cross-entropy, one tensor a parameter."""
    weights = trained_weights(network)
    total = [torch.zeros_like(weight) for weight in weights]
    with torch.enable_grad():
        for part, truth in zip(frames.split(CHUNK, 1), labels.split(CHUNK), strict=True):
            value = cross_entropy(network(part), truth, reduction="sum") / len(labels)
            torch._foreach_add_(total, torch.autograd.grad(value, weights))
    return total


def _length(direction: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.get_total_norm(direction)


def random_direction(network: Network, generator: torch.Generator) -> list[Tensor]:
    """A unit vector of w, even over the sphere."""
    drawn = [torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w) for w in trained_weights(network)]
    return torch._foreach_div(drawn, _length(drawn))


@contextmanager
def moved(network: Network, direction: Sequence[Tensor], length: float) -> Iterator[None]:
    """w + length*direction within the block; w itself, bit for bit, afterwards."""
    weights = trained_weights(network)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        torch._foreach_add_(weights, direction, alpha=length)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(weights, before)


def sam_gaps(network: Network, frames: Tensor, labels: Tensor, radii: Sequence[float], directions: int = 4,
             seed: int = 0) -> list[dict[str, float]]:
    """The SAM gap L(w + eps) - L(w), eps = rho*g/||g||, of each radius (SAST sec. V-D, i).

    Returns:
        one row a radius, in nats: radius; gap; first_order, rho*||g||, which the gap is for small rho (corollary
        IV.10); random, the mean gap along `directions` random vectors of the same length.
    """
    slope = gradient(network, frames, labels)
    norm = _length(slope)
    unit = torch._foreach_div(slope, norm.clamp_min(torch.finfo(norm.dtype).tiny))  # a gradient of 0 points nowhere
    generator = torch.Generator().manual_seed(seed)
    others = [random_direction(network, generator) for _ in range(directions)]
    here, rows = loss(network, frames, labels), []

    def gap(direction: Sequence[Tensor], radius: float) -> float:
        with moved(network, direction, radius):
            return loss(network, frames, labels) - here

    for radius in radii:
        rows.append({"radius": radius, "gap": gap(unit, radius), "first_order": radius * norm.item(),
                     "random": sum(gap(other, radius) for other in others) / max(directions, 1)})
    return rows


def secants(network: Network, frames: Tensor, labels: Tensor, lengths: Sequence[float], directions: int = 4,
            seed: int = 0) -> list[dict]:
    """||grad L(w + d) - grad L(w)||/||d|| of each length ||d|| (SAST eq. 37).

    The paper takes random d alone. Most of the space is flat: along the gradient, where a step of training goes, and
    along the direction that this secant itself points in, it is much larger; all three are lower bounds of the same
    constant of smoothness.

    Returns:
        one row a length: length; random, one value for each of `directions` vectors; gradient, along dL/dw; curved,
        along grad L(w + d) - grad L(w) of the row's own gradient step, which is one step of power iteration on the
        Hessian.
    """
    here = gradient(network, frames, labels)
    generator = torch.Generator().manual_seed(seed)
    others = [random_direction(network, generator) for _ in range(directions)]

    def change(direction: Sequence[Tensor], length: float) -> list[Tensor]:
        with moved(network, direction, length):
            return torch._foreach_sub(gradient(network, frames, labels), here)

    def unit(direction: Sequence[Tensor]) -> Sequence[Tensor]:
        norm = _length(direction)
        return torch._foreach_div(direction, norm.clamp_min(torch.finfo(norm.dtype).tiny))

    rows = []
    for length in lengths:
        along = change(unit(here), length)
        rows.append({"length": length, "random": [_length(change(other, length)).item() / length for other in others],
                     "gradient": _length(along).item() / length,
                     "curved": _length(change(unit(along), length)).item() / length})
    return rows


@dataclass(frozen=True)
class Examples:
    """One value a recording, (N,) float64 each.

    Args:
        parameters: ||dl/dw|| of the recording's own loss l (SAST sec. V-D, iii).
        inputs: ||dl/dx||, over all time steps and pixels (iv).
        sensitivity: ||df/dx||, the local Lipschitz constant of the logits f.
        gram: smallest singular value of the logit Gram matrix J J^T, J = df/dw (classes, P) (eq. 47); its root is the
            smallest singular value of J. A trained bias of the readout alone adds the identity: then it is 1 or more,
            and assumption A.3 holds whatever the rest does.
    """

    parameters: Tensor
    inputs: Tensor
    sensitivity: Tensor
    gram: Tensor

    @property
    def mechanism(self) -> Tensor:
        """Right side of eq. 50, ||df/dx||/sigma_min(J) * ||dl/dw||, of which ||dl/dx|| is the left.

        Since dl/dx = (df/dx)^T r and dl/dw = J^T r with the same r = softmax(f) - y (eqs. 48, 49), it holds for every
        network, trained how it may be: what it says is how loose it is.
        """
        return self.sensitivity / self.gram.sqrt() * self.parameters


def examples(network: Network, frames: Tensor, labels: Tensor) -> Examples:
    """Gradients and Jacobians of each recording on its own, exactly: one backward a class.

    Args:
        frames, labels: (T, N, C, H, W) and (N,).
    """
    weights, rows = trained_weights(network), []
    for index in range(frames.shape[1]):
        with torch.enable_grad():
            x = frames[:, index:index + 1].detach().requires_grad_()
            logits = network(x)[0]
            found = [torch.autograd.grad(logit, [x, *weights], retain_graph=True) for logit in logits]
        by_input = torch.stack([row[0].flatten() for row in found])
        by_weights = torch.stack([torch.cat([part.flatten() for part in row[1:]]) for row in found])
        error = logits.detach().softmax(0)
        error[labels[index]] -= 1
        rows.append([(error @ by_weights).norm(), (error @ by_input).norm(), torch.linalg.matrix_norm(by_input, 2),
                     torch.linalg.svdvals(by_weights)[-1].square()])
    return Examples(*torch.tensor(rows, dtype=torch.float64).T)


def logged(network: Network, frames: Tensor, labels: Tensor, rho: float) -> dict[str, float]:
    """What the history of a run gets of sharpness: a few numbers of the network as it is in training.

    Args:
        frames, labels: (T, B, C, H, W) and (B,), without augmentation.
        rho: radius of the SAM gap.

    Returns:
        q_loose, q_tight: contraction at this epoch's slope and leaks (SAST eqs. 19, 20).
        sam_gap: L(w + eps) - L(w) at rho, in nats.
        secant_random, secant_gradient: eq. 37 along one random vector and along the gradient, at a hundredth of a unit.
    """
    copied = double(network)
    loose, tight = (max(column) for column in zip(*map(contraction, network.neurons().values()), strict=True))
    frames = frames.double()
    gap, = sam_gaps(copied, frames, labels, [rho], directions=0)
    row, = secants(copied, frames, labels, [LENGTH], directions=1)
    return {"q_loose": loose, "q_tight": tight, "sam_gap": gap["gap"], "secant_random": row["random"][0],
            "secant_gradient": row["gradient"]}
