"""The two baselines: one gradient of one minibatch."""

from torch import Tensor


def gradient(network, loss, batch, draw, config, state) -> Tensor:
    """Leave dL/dw of `batch` in the parameters' `.grad`; see `trainer.methods.Method`."""
    network.zero_grad(set_to_none=True)
    value = loss(batch)
    value.backward()
    state["gradient_evaluations"] = state.get("gradient_evaluations", 0) + 1
    return value.detach()
