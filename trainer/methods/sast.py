"""SAST: sharpness-aware training of the smooth network (SAST alg. 1), and the variants its Table III asks for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hardspike import UsageError, nearest
from trainer import distributed
from trainer.methods import plain

_CHOICES = {"second_batch": ("independent", "reused", "previous"), "ascent": ("gradient", "momentum")}
_MOMENTUM = 0.9


@dataclass
class SastConfig:
    """Sharpness-aware training.

    Args:
        rho: radius of the ascent step (the paper's best: 0.30 on N-MNIST, 0.40 on DVS Gesture)
        second_batch: where the ascent direction comes from: independent (the paper's: a further minibatch, drawn for
            it), previous (the minibatch of the step before, which is loaded already: ascent and descent still on
            different recordings; in an epoch's first step as independent) or reused (the step's own, as in SAM)
        adaptive: ASAM: the radius is measured relative to each weight's size
        every: perturb in every n-th step only, plain steps between
        ascent: gradient (one more gradient evaluation a step) or momentum (ascend along the running mean of past
            gradients: no further evaluation)
    """

    rho: float = 0.05
    second_batch: str = "independent"
    adaptive: bool = False
    every: int = 1
    ascent: str = "gradient"

    def __post_init__(self):
        for key, known in _CHOICES.items():
            value = getattr(self, key)
            if value not in known:
                raise UsageError(f"{key} '{value}' is unknown{nearest(value, known)}; known: {', '.join(known)}")
        if not 0 <= self.rho < float("inf"):
            raise UsageError(f"rho {self.rho}: a radius is >= 0 and finite")
        if self.every < 1:
            raise UsageError(f"every {self.every}: must be 1 (each step) or more")


def perturbation(weights: Sequence[Tensor], direction: Sequence[Tensor], rho: float,
                 adaptive: bool) -> Sequence[Tensor]:
    """eps = rho * g / ||g||_2 over all weights together (SAST alg. 1); with `adaptive`, ASAM's
    eps = rho * W^2 g / ||W g||_2, W = |w| + 0.01 (Kwon et al. 2021, eq. 5)."""
    if adaptive:
        scales = [weight.detach().abs() + 0.01 for weight in weights]
        direction = torch._foreach_mul(scales, direction)
    # a zero gradient has no direction: no perturbation, rather than 0/0
    factor = rho / torch.nn.utils.get_total_norm(direction).clamp_min(1e-12)
    if adaptive:
        direction = torch._foreach_mul(scales, direction)
    return torch._foreach_mul(direction, factor)


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """BatchNorm's running statistics stay as they are: they belong to the weights of the descent pass."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def gradient(network, loss, batch, draw, config, state) -> Tensor:
    """Leave the gradient at w + eps in `.grad`, with w itself restored bit for bit.

    eps comes from a minibatch of its own (`draw()`), the update from `batch`; every pass starts from resting neurons,
    since a network call holds no state. See `trainer.methods.Method`.
    """
    options: SastConfig = config.sast
    weights = [p for p in network.parameters() if p.requires_grad]
    step = state["step"] = state.get("step", -1) + 1
    momentum = options.ascent == "momentum"
    # on the CPU after a resume
    mean = [m.to(w.device) for m, w in zip(state["direction"], weights, strict=True)] if "direction" in state else None
    if step % options.every:
        direction = None
    elif momentum:
        direction = mean
    else:
        if options.second_batch == "reused":
            other = batch
        elif options.second_batch == "previous" and "previous" in state:
            other = state["previous"]
        else:
            other = draw()
        with frozen_statistics(network):
            direction = torch.autograd.grad(loss(other), weights)
        distributed.average(direction)
        state["gradient_evaluations"] = state.get("gradient_evaluations", 0) + 1
    if options.second_batch == "previous":
        state["previous"] = batch

    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        if direction is not None:
            torch._foreach_add_(weights, perturbation(weights, direction, options.rho, options.adaptive))
    value = plain.gradient(network, loss, batch, draw, config, state)
    with torch.no_grad():
        torch._foreach_copy_(weights, before)
        if momentum:
            mean = mean or [torch.zeros_like(weight) for weight in weights]
            state["direction"] = [_MOMENTUM * m + (1 - _MOMENTUM) * w.grad for m, w in zip(mean, weights, strict=True)]
    return value
