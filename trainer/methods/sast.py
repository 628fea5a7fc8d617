"""SAST: sharpness-aware training of the smooth network (SAST alg. 1), and the variants its Table III asks for."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardspike import UsageError, choice
from trainer.methods import plain
from trainer.methods.method import Method, State, of_form

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.networks import Network

_CHOICES = {"second_batch": ("independent", "reused", "previous"), "ascent": ("gradient", "momentum"),
            "adaptive": ("none", "kwon", "authors")}
_MOMENTUM = 0.9
_RADIUS, _ADAPTIVE_RADIUS = 0.05, 0.5
_ETA = 0.01


@dataclass
class SastConfig:
    """Sharpness-aware training.

    Args:
        rho: radius of the ascent step (the paper's best: 0.30 on N-MNIST, 0.40 on DVS Gesture); without it 0.05, and
            0.5 for ASAM, whose radius is in units of the weights' sizes and so another quantity
        second_batch: where the ascent direction comes from: independent (the paper's: a further minibatch, drawn for
            it), previous (the minibatch of the step before, which is loaded already: ascent and descent still on
            different recordings; in an epoch's first step as independent) or reused (the step's own, as in SAM)
        adaptive: none, or ASAM, which measures the radius relative to each weight's size: kwon (its paper's formula,
            all parameters alike) or authors (its authors' code: parameters called `weight`, the others as in SAM)
        every: perturb in every n-th step only, plain steps between
        ascent: gradient (one more gradient evaluation a step) or momentum (ascend along the running mean of past
            gradients: no further evaluation; with BatchNorm one more pass forward)
    """

    rho: float | None = None
    second_batch: str = "independent"
    adaptive: bool | str = "none"
    every: int = 1
    ascent: str = "gradient"

    def __post_init__(self):
        if isinstance(self.adaptive, bool):  # what it was before there were two kinds
            self.adaptive = "kwon" if self.adaptive else "none"
        for key, known in _CHOICES.items():
            choice(key, getattr(self, key), known)
        if self.rho is not None and not 0 <= self.rho < float("inf"):
            raise UsageError(f"rho {self.rho}: a radius is >= 0 and finite")
        if self.every < 1:
            raise UsageError(f"every {self.every}: must be 1 (each step) or more")

    @property
    def radius(self) -> float:
        """rho, or what it is without being said."""
        if self.rho is None:
            return _RADIUS if self.adaptive == "none" else _ADAPTIVE_RADIUS
        return self.rho


def perturbation(weights: Sequence["Tensor"], direction: Sequence["Tensor"], rho: float,
                 scales: Sequence["Tensor"] | None = None) -> Sequence["Tensor"]:
    """eps = rho * g / ||g||_2 over all weights together (SAST alg. 1); with `scales` T, ASAM's
    eps = rho * T^2 g / ||T g||_2 (Kwon et al. 2021, eq. 5)."""
    import torch

    if scales is not None:
        direction = torch._foreach_mul(scales, direction)
    # a zero gradient has no direction: no perturbation, rather than 0/0
    factor = rho / torch.nn.utils.get_total_norm(direction).clamp_min(1e-12)
    if scales is not None:
        direction = torch._foreach_mul(scales, direction)
    return torch._foreach_mul(direction, factor)


def asam_scales(network, adaptive: str) -> Sequence["Tensor"] | None:
    """ASAM's T of every weight that is trained, |w| + 0.01; None for SAM.

    The paper scales every parameter (its eq. 5 and sec. 3). Its authors' code (github.com/SamsungLabs/ASAM) does so
    only where the parameter's name holds "weight", which BatchNorm's gains are too, and takes T = 1 for the others.
    """
    import torch

    if adaptive == "none":
        return None
    return [weight.detach().abs() + _ETA if adaptive == "kwon" or "weight" in name else torch.ones_like(weight)
            for name, weight in network.named_parameters() if weight.requires_grad]


@dataclass
class SastState(State):
    """Between the steps of SAST.

    Args:
        step: number of the last step, from 0 over the whole run.
        direction: ascent momentum: the running mean of past gradients, one a weight.
        previous: second_batch previous: the minibatch of the step before, in the same epoch.
    """

    step: int = -1
    direction: list["Tensor"] | None = None
    previous: "tuple[Tensor, Tensor] | None" = None

    def fits(self, network: "Network", steps: int) -> bool:
        """As `State.fits`; of a minibatch nothing is kept beyond its epoch."""
        weights = [p for p in network.parameters() if p.requires_grad]
        directed = self.direction is None or (
            isinstance(self.direction, list | tuple) and len(self.direction) == len(weights)
            and all(of_form(m, tuple(w.shape)) for m, w in zip(self.direction, weights, strict=True)))
        return super().fits(network, steps) and type(self.step) is int and directed and self.previous is None

    def forget_weights(self) -> None:
        """See `State.forget_weights`."""
        self.direction = None


def gradient(network, loss, batch, draw, config, state: SastState) -> "Tensor":
    """Leave the gradient at w + eps in `.grad`, with w itself restored bit for bit.

    eps comes from a minibatch of its own (`draw()`), the update from `batch`; every pass starts from resting neurons,
    since a network call holds no state. BatchNorm's running statistics are those at w, which is what is evaluated, so
    they are taken in the first pass; a step along the running mean has none, and runs `batch` forward for them, in a
    network with BatchNorm. See `trainer.methods.method.Method`.
    """
    import torch

    from trainer.layers.norm import frozen_statistics, has_statistics

    options: SastConfig = config.sast
    weights = [p for p in network.parameters() if p.requires_grad]
    state.step += 1
    momentum = options.ascent == "momentum"
    mean = None
    if state.direction is not None:  # on the CPU after a resume
        mean = [m.to(w.device) for m, w in zip(state.direction, weights, strict=True)]
    if state.step % options.every:
        direction = None
    elif momentum:
        direction = mean
        if direction is not None and has_statistics(network):
            with torch.no_grad():
                loss(batch)
    else:
        direction = _ascent(network, loss, batch, draw, options, state)
    if options.second_batch == "previous":
        state.previous = batch

    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        if direction is not None:
            torch._foreach_add_(weights, perturbation(weights, direction, options.radius,
                                                      asam_scales(network, options.adaptive)))
    with nullcontext() if direction is None else frozen_statistics(network):
        value = plain.gradient(network, loss, batch, draw, config, state)
    with torch.no_grad():
        torch._foreach_copy_(weights, before)
        if momentum:
            mean = mean or [torch.zeros_like(weight) for weight in weights]
            state.direction = [_MOMENTUM * m + (1 - _MOMENTUM) * w.grad for m, w in zip(mean, weights, strict=True)]
    return value


def _ascent(network, loss, batch, draw, options: SastConfig, state: SastState) -> Sequence["Tensor"]:
    """The gradient on the minibatch that the ascent direction comes from."""
    import torch

    from trainer import distributed

    if options.second_batch == "reused":
        other = batch
    elif options.second_batch == "previous" and state.previous is not None:
        other = state.previous
    else:
        other = draw()
    direction = torch.autograd.grad(loss(other), [p for p in network.parameters() if p.requires_grad])
    distributed.average(direction)
    state.gradient_evaluations += 1
    return direction


def end(state: SastState, config) -> None:
    """An epoch's last minibatch is not kept for the next epoch."""
    state.previous = None


SAST = Method("smooth forward, sharpness-aware step (SAST alg. 1)", hard=False, gradient=gradient, state=SastState,
              options=SastConfig, end=end, lower=("lr", "network.gain", "sast.rho"))
