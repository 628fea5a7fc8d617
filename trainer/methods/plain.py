"""The two baselines: one gradient of one minibatch."""

from typing import TYPE_CHECKING

from trainer.methods.method import Method, State

if TYPE_CHECKING:
    from torch import Tensor


def gradient(network, loss, batch, draw, config, state: State) -> "Tensor":
    """Leave dL/dw of `batch` in the parameters' `.grad`; see `trainer.methods.method.Method`."""
    from trainer import distributed

    network.zero_grad(set_to_none=True)
    value = loss(batch)
    value.backward()
    value = value.detach()
    distributed.average([value, *(p.grad for p in network.parameters() if p.grad is not None)])
    state.gradient_evaluations += 1
    return value


SURROGATE = Method("smooth forward, exact gradient (SAST's baseline)", hard=False, gradient=gradient)
HARD = Method("hard forward, surrogate backward", hard=True, gradient=gradient)
