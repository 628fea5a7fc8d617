"""Which values an integer layer can reach, from its weights and its input: what widths it needs."""

import math
from dataclasses import dataclass

import numpy as np

from hardspike import HardspikeError
from targets.graph.shapes import array
from targets.loihi.layers import DECAY_UNIT, Connection, Network

SHIFT = 64
"""Lava's `<< 6` of input, bias and threshold."""
STATE = 1 << 23
"""Where the current wraps; the membrane saturates one below."""
ONE_WRAP = 1 << 18
"""A current within 24 bits and an input of at most that (<< 6) wrap back into 24 bits at once."""


@dataclass(frozen=True)
class Proof:
    """What is proven of a layer.

    Args:
        arriving: a neuron's input of one step, in weights, is at most that.
        largest: neither current nor membrane grow beyond it, were they not held in 24 bits.
        small: they never leave 24 bits: nothing wraps or saturates.
    """

    arriving: float
    largest: float
    small: bool


def prove(network: Network, steps: float, largest: int) -> dict[str, Proof]:
    """For each layer, what it can reach within `steps` (infinity: ever) on inputs of at most `largest`.

    Raises:
        HardspikeError: sums may leave the 24 bits in which synaptic input arrives, or a current 32 bits, so that
            nothing is proven.
    """
    proofs = {}
    for name, layer in network.layers.items():
        arriving = sum(largest_sum(network, c) * (largest if c.source == network.plan.input else 1)
                       for c in layer.connections)
        u = SHIFT * arriving * _steps_kept(layer.i_decay, steps)
        taken = layer.threshold.max() if layer.reset == "subtract" else 0  # the others only bring v nearer to zero
        v = (u + SHIFT * (np.abs(layer.bias).max() + taken)) * _steps_kept(layer.v_decay, steps)
        small = bool(u < STATE and v < STATE - 1)
        if arriving >= STATE:
            raise HardspikeError(f"layer '{name}': input may sum to {arriving:g} a step, where 24 bits hold "
                                 f"{STATE - 1}; use smaller weights or spike counts")
        if arriving > ONE_WRAP and u >= 1 << 31:  # it may grow from step to step, since it wraps once in a step
            within = f"{steps:g} steps" if steps < math.inf else "any number of steps"
            raise HardspikeError(f"layer '{name}': its current may reach {u / SHIFT:g} within {within}, where "
                                 f"32 bits hold {(1 << 31) // SHIFT - 1}; use smaller weights or spike counts, or "
                                 f"a sum of at most {ONE_WRAP} a step")
        proofs[name] = Proof(float(arriving), float(max(u, v)), small)
    return proofs


def largest_sum(network: Network, connection: Connection) -> float:
    """Most that one neuron can get over `connection` in a step, when every source gives 1."""
    weight = array(network.plan.nodes[connection.linear].weight)
    return float(np.abs(weight).reshape(len(weight), -1).sum(1).max())


def _steps_kept(decay: np.ndarray, steps: float) -> float:
    """Sum of the powers of a leak over `steps`: how many steps of full input a state can hold."""
    slowest = decay.min() / DECAY_UNIT
    return min(steps, 1 / slowest) if slowest > 0 else steps
