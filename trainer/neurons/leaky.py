"""snnTorch's Leaky neuron, run over all time steps at once."""

import snntorch as snn
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from trainer.neurons.scan import lif_scan
from trainer.neurons.spikes import Surrogate
from trainer.neurons.windows import Windows

LEAKY_RESET = "subtract_leaky"


class _Complement(nn.Module):
    """The leak 1 - sigmoid(a) of a learned a."""

    def forward(self, a: Tensor) -> Tensor:
        """The leak."""
        return 1 - a.sigmoid()

    def right_inverse(self, beta: Tensor) -> Tensor:
        """a of a leak."""
        return (1 - beta).logit()


class Leaky(snn.Leaky):
    """`snntorch.Leaky` with the same parameters and state dict, called once with (T, B, ...) instead of once a step.

    In hard mode its spikes equal snnTorch's bit for bit; with a detached reset so does its gradient.

    Args:
        beta: leak per step, in [0, 1] (clamped, as snnTorch does).
        threshold: firing threshold theta.
        surrogate: forward in smooth mode, backward in hard mode.
        hard: forward with the hard threshold.
        detach_reset: no gradient through the reset path (snnTorch's way; wrong in smooth mode).
        plif: the leak is 1 - sigmoid(a) of a learned a, and the input is multiplied by sigmoid(a) (Fang et al. 2021,
            eq. 7); `beta`, between 0 and 1, is the first leak.
        options: `learn_beta`, `learn_threshold`, `reset_mechanism` of `snntorch.Leaky`; of the latter also
            "subtract_leaky" (A2SG eqs. A1-A3), for which snnTorch has no word: its state dict says "subtract".

    The attribute `windows`, where a method sets it, is the backward in hard mode instead of `surrogate`.
    """

    def __init__(self, beta: float | Tensor = 0.9, threshold: float | Tensor = 1.0, surrogate: Surrogate | None = None,
                 hard: bool = False, detach_reset: bool = False, plif: bool = False, **options):
        leaky_reset = options.get("reset_mechanism") == LEAKY_RESET
        if leaky_reset:
            options["reset_mechanism"] = "subtract"
        if plif:
            options["learn_beta"] = True
        # snnTorch makes an integer buffer of `threshold=1`; tensors keep their dtype
        super().__init__(*(v if isinstance(v, Tensor) else torch.tensor(float(v)) for v in (beta, threshold)),
                         **options)
        self.leaky_reset, self.plif = leaky_reset, plif
        if plif:
            register_parametrization(self, "beta", _Complement())
        self.surrogate = surrogate or Surrogate()
        self.hard = hard
        self.detach_reset = detach_reset
        self.windows: Windows | None = None

    def thresholds(self) -> Tensor:
        """theta, (1,)."""
        return self.threshold.reshape(1)

    def windows_of(self, steps: int) -> int:
        """How many backward windows the layer has in a run of `steps` steps: one a step."""
        return steps

    @property
    def reset(self) -> str:
        """What a spike does to the membrane: `reset_mechanism`, or "subtract_leaky"."""
        return LEAKY_RESET if self.leaky_reset else self.reset_mechanism

    @property
    def learned_leak(self) -> nn.Parameter | None:
        """What is learned of the leak: the leak itself, or PLIF's a."""
        if self.plif:
            return self.parametrizations.beta.original
        return self.beta if self.beta.requires_grad else None

    @property
    def gain(self) -> Tensor:
        """What the input is multiplied by."""
        return 1 - self.beta if self.plif else torch.ones_like(self.beta)

    def forward(self, current: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membrane before the reset, (T, B, ...) each, of input current (T, B, ...); the state starts at
        zero in every call."""
        # mixed precision ends here: a membrane sums many small currents
        current = current.to(torch.promote_types(current.dtype, self.threshold.dtype))
        if self.plif:
            current = current * self.gain
        return lif_scan(current, self.beta.clamp(0, 1), self.threshold, self.surrogate, hard=self.hard,
                        reset=self.reset, detach_reset=self.detach_reset,
                        windows=self.windows if self.hard else None)
