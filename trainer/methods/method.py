"""What a training method is to the loop."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from hardspike import HardspikeError, shown

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.networks import Network

RETIRED = ("epoch", "batch")
"""Keys that every method's state had when states were dicts."""


@dataclass
class State:
    """What a method carries from one step to the next, and through the checkpoint: plain values and tensors.

    Args:
        gradient_evaluations: gradients taken so far; what a run costs.
    """

    gradient_evaluations: int = 0

    def forget_weights(self) -> None:
        """Other weights are trained from now on: drop what belongs to single ones."""

    def to_dict(self) -> dict:
        """For the checkpoint."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_dict(cls, values: dict, source: str) -> Self:
        """The state that `to_dict` gave, or an older version's dict; missing keys take their defaults.

        Raises:
            HardspikeError: no keys and values, or a key that this version does not know; `source` names the file.
        """
        if not isinstance(values, dict):
            raise HardspikeError(f"{source}: its training state is {shown(values)}, where keys and values are "
                                 "expected; train anew into another --out")
        known = {each.name for each in fields(cls)}
        if foreign := [key for key in values if key not in known and key not in RETIRED]:
            raise HardspikeError(f"{source}: its training state has '{foreign[0]}', which this version of the method "
                                 "does not know; train anew into another --out")
        return cls(**{key: value for key, value in values.items() if key in known})

    def fits(self, network: "Network", steps: int) -> bool:
        """Whether a run of `network` over `steps` time steps can go on from it, whatever file it came from."""
        return type(self.gradient_evaluations) is int and self.gradient_evaluations >= 0


def of_form(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether a stored value is a tensor of finite floats of this shape."""
    import torch

    return (isinstance(value, torch.Tensor) and tuple(value.shape) == shape and value.is_floating_point()
            and bool(value.isfinite().all()))


@dataclass
class Measured:
    """What a method measured in an epoch, for the history.

    Args:
        row: name -> value of the epoch, a column of metrics.csv each.
        layers: layer -> name -> value or list.
    """

    row: dict[str, float] = field(default_factory=dict)
    layers: dict[str, dict] = field(default_factory=dict)


def _nothing(state: State, *_) -> None:
    """A method that has nothing to do at an epoch's ends."""


@dataclass(frozen=True)
class Method:
    """A training method.

    Args:
        description: one line.
        hard: forward with hard spikes (surrogate backward); else the smooth network, with its exact gradient.
        gradient: `(network, loss, batch, draw, config, state) -> loss value`; leaves the gradient of the step in the
            parameters' `.grad`. `loss(batch)` is the differentiable loss of a minibatch, `draw()` an independent
            further minibatch, `config` the FitConfig; each evaluation of a gradient is counted in
            `state.gradient_evaluations`. In several processes `batch` is this one's shard, and what is left in `.grad`
            is the joint minibatch's gradient (`trainer.distributed`).
        state: the dataclass of its state.
        options: the dataclass of its options, where it has any; FitConfig's field of this type holds them.
        begin: `(state, epoch)`, before the first step of an epoch (from 1).
        end: `(state, config) -> Measured | None`, after the last one: what was measured, and time to forget what does
            not outlive an epoch.
        lower: options to lower where a run diverges.
    """

    description: str
    hard: bool
    gradient: Callable[..., "Tensor"]
    state: type[State] = State
    options: type | None = None
    begin: Callable[[State, int], None] = _nothing
    end: Callable[..., Measured | None] = _nothing
    lower: tuple[str, ...] = ("lr", "network.gain")
