"""Training methods: how the gradient of one step is computed. One file each; one line in METHODS."""

from collections.abc import Callable
from dataclasses import dataclass

from trainer.methods import a2sg, plain, sast


@dataclass(frozen=True)
class Method:
    """A training method.

    Args:
        gradient: `(network, loss, batch, draw, config, state) -> loss value`; leaves the gradient of the step in the
            parameters' `.grad`. `loss(batch)` is the differentiable loss of a minibatch, `draw()` an independent
            further minibatch, `config` the FitConfig, `state` a dict of plain values and tensors that lives in the
            checkpoint (so that a resumed run goes on exactly); each evaluation of a gradient is counted in its
            "gradient_evaluations". The loop writes "epoch" (from 1) and "batch" (from 0) into it before each call; what
            a method writes into its "measured" (layer -> values of the epoch) goes to the history; "previous", kept
            from one step for the next, lives until the epoch's end. In several processes `batch` is this one's shard,
            and what is left in `.grad` is the joint minibatch's gradient (`trainer.distributed`).
        hard: forward with hard spikes (surrogate backward); else the smooth network, with its exact gradient.
        description: one line.
    """

    gradient: Callable
    hard: bool
    description: str


METHODS = {
    "surrogate": Method(plain.gradient, hard=False, description="smooth forward, exact gradient (SAST's baseline)"),
    "hard": Method(plain.gradient, hard=True, description="hard forward, surrogate backward"),
    "sast": Method(sast.gradient, hard=False, description="smooth forward, sharpness-aware step (SAST alg. 1)"),
    "a2sg": Method(a2sg.gradient, hard=True, description="hard forward, backward window of searched width (A2SG)"),
}
