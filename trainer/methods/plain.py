"""The two baselines: one gradient of one minibatch."""

from torch import Tensor

from trainer import distributed


def gradient(network, loss, batch, draw, config, state) -> Tensor:
    """Leave dL/dw of `batch` in the parameters' `.grad`; see `trainer.methods.Method`."""
    network.zero_grad(set_to_none=True)
    value = loss(batch)
    value.backward()
    value = value.detach()
    distributed.average([value, *(p.grad for p in network.parameters() if p.grad is not None)])
    state["gradient_evaluations"] = state.get("gradient_evaluations", 0) + 1
    return value
