"""How the neurons of one layer run, forward and backward: what every implementation of the scan is told."""

from dataclasses import dataclass

from trainer.neurons.fixed import Fixed
from trainer.neurons.spikes import Surrogate
from trainer.neurons.windows import Windows


@dataclass(frozen=True)
class Dynamics:
    """Everything about a layer of neurons but its tensors.

    Args:
        surrogate: phi; forward in smooth mode, backward in hard mode.
        hard: H instead of phi forward.
        reset: "subtract", "zero", "none" or "subtract_leaky".
        detach_reset: no gradient through the reset path.
        windows: in hard mode the backward instead of `surrogate`, or None.
        fixed: in hard mode the forward in a chip's integers instead of floats, or None.
    """

    surrogate: Surrogate
    hard: bool
    reset: str
    detach_reset: bool = False
    windows: Windows | None = None
    fixed: Fixed | None = None

    @property
    def through_reset(self) -> bool:
        """Whether a gradient flows through the reset path."""
        return not self.detach_reset and self.reset != "none"
