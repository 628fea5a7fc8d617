"""The target `loihi2`: Lava's fixed-point model. Its neurons are programmable, so they may also subtract."""

import nir
from torch import Tensor

from targets.loihi import fixed_point, rules
from targets.loihi.limits import LOIHI2 as LIMITS
from targets.recording import Recording, Transmit
from targets.violation import Violation

NAME = "loihi2"
DESCRIPTION = "Loihi 2 in integers, bit for bit as Lava; reset to zero or by subtraction"


def check(graph: nir.NIRGraph, dt: float | None = None) -> list[Violation]:
    """What Loihi 2 cannot hold of `graph`."""
    return rules.check(graph, LIMITS, dt)


def run(graph: nir.NIRGraph, spikes: Tensor, dt: float | None = None, membrane: bool = False,
        transmit: Transmit | None = None) -> Recording:
    """Run an integer `graph` on `spikes` (T, B, *Input); see `targets.loihi.fixed_point.run`."""
    return fixed_point.run(graph, spikes, LIMITS, dt, membrane, transmit)
