"""One time step of every NIR neuron, in float64, with explicit state.

NIR gives differential equations and no discretisation. Here it is forward Euler with the input constant during the
step, then the comparison `v > v_threshold` (strict), then the reset; state starts at zero. Each function maps
(current, state, coefficients) to (output, membrane, state): `membrane` is the value compared with the threshold,
before the reset. Tensors are (B, *shape).

With tau = dt / (1 - beta) and r = tau / dt this is snnTorch's `Leaky` with reset "zero". beta comes back as
1 - dt / tau, which float64 rounds at 1e-16, so two runs differ at most where a membrane comes as near as that to its
threshold; the input's gain is computed as r / (tau / dt), which gives exactly 1 back.
"""

from collections.abc import Callable

import nir
import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError
from targets.graph.shapes import Shape, array, expand

Coefficients = dict[str, Tensor]
State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Coefficients], tuple[Tensor, Tensor, State]]
DELAY_TOLERANCE = 1e-3
"""A delay may be off a whole number of steps by so much of a step (float32 files round by about 1e-5)."""


LONGEST_DELAY = 10**9
"""steps"""


def lif(current: Tensor, state: State, c: Coefficients) -> tuple[Tensor, Tensor, State]:
    """nir.LIF: tau dv/dt = (v_leak - v) + r I.

    v' = v + dt/tau (v_leak - v + r I); z = v' > v_threshold; v = v_reset where z.
    """
    return _fire(li(current, state, c)[1], c)


def li(current: Tensor, state: State, c: Coefficients) -> tuple[Tensor, Tensor, State]:
    """nir.LI: the same without threshold; the output is v."""
    v = c["leak"] * state[0] + c["gain"] * current + c["rest"]
    return v, v, (v,)


def integrate_and_fire(current: Tensor, state: State, c: Coefficients) -> tuple[Tensor, Tensor, State]:
    """nir.IF: dv/dt = r I.  v' = v + dt r I; z = v' > v_threshold; v = v_reset where z."""
    return _fire(state[0] + c["gain"] * current, c)


def integrator(current: Tensor, state: State, c: Coefficients) -> tuple[Tensor, Tensor, State]:
    """nir.I: dv/dt = r I.  v' = v + dt r I; the output is v."""
    v = state[0] + c["gain"] * current
    return v, v, (v,)


def cuba_lif(current: Tensor, state: State, c: Coefficients) -> tuple[Tensor, Tensor, State]:
    """nir.CubaLIF: tau_syn di/dt = -i + w_in I, tau_mem dv/dt = (v_leak - v) + r i, threshold and reset as LIF.

    i' = i + dt/tau_syn (w_in I - i), then v' = v + dt/tau_mem (v_leak - v + r i') with the *new* i: snnTorch's
    `Synaptic` and Lava do so, and the NIR paper's Braille networks were written by snnTorch. (norse decays v with
    the current before it decays.) Reset "zero" of `Synaptic` is not NIR's: it also loses the input of the next step.
    """
    _, v, (_, i) = cuba_li(current, state, c)
    spikes, membrane, (v,) = _fire(v, c)
    return spikes, membrane, (v, i)


def cuba_li(current: Tensor, state: State, c: Coefficients) -> tuple[Tensor, Tensor, State]:
    """nir.CubaLI: CubaLIF without threshold; the output is v."""
    i = c["leak_syn"] * state[1] + c["gain_syn"] * current
    v = c["leak"] * state[0] + c["gain"] * i + c["rest"]
    return v, v, (v, i)


def threshold(current: Tensor, state: State, c: Coefficients) -> tuple[Tensor, Tensor, State]:
    """nir.Threshold: z = I > threshold. No state."""
    return (current > c["threshold"]).to(current.dtype), current, ()


STEPS: dict[type[nir.NIRNode], tuple[Step, int]] = {
    nir.LIF: (lif, 1), nir.LI: (li, 1), nir.IF: (integrate_and_fire, 1), nir.I: (integrator, 1),
    nir.CubaLIF: (cuba_lif, 2), nir.CubaLI: (cuba_li, 2), nir.Threshold: (threshold, 0)}
"""Step function and number of state variables of each neuron."""


def _fire(v: Tensor, c: Coefficients) -> tuple[Tensor, Tensor, State]:
    spikes = v > c["threshold"]
    return spikes.to(v.dtype), v, (torch.where(spikes, c["reset"], v),)


def coefficients(name: str, node: nir.NIRNode, shape: Shape, dt: float) -> Coefficients:
    """What the step function of `node` multiplies with, in float64, to broadcast against (B, *shape).

    leak = 1 - dt/tau, gain = r dt/tau (r dt without tau), rest = v_leak dt/tau; threshold; reset.
    """
    p = {key: expand(f"node '{name}' ({type(node).__name__}): {key}", value, shape)
         for key, value in vars(node).items() if key not in ("input_type", "output_type", "metadata")}
    c = {}
    if "tau" in p or "tau_mem" in p:
        steps = p["tau" if "tau" in p else "tau_mem"] / dt
        c = {"leak": 1 - 1 / steps, "gain": p["r"] / steps, "rest": p["v_leak"] / steps}
    elif "r" in p:
        c = {"gain": p["r"] * dt}
    if "tau_syn" in p:
        steps = p["tau_syn"] / dt
        c |= {"leak_syn": 1 - 1 / steps, "gain_syn": p["w_in"] / steps}
    if "v_threshold" in p:
        c |= {"threshold": p["v_threshold"], "reset": p["v_reset"]}
    if "threshold" in p:
        c["threshold"] = p["threshold"]
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in c.items()}


def delay_steps(name: str, node: nir.Delay, shape: Shape, dt: float) -> np.ndarray:
    """Delay of every element in steps, in `shape`.

    Raises:
        HardspikeError: one is not a whole number of steps (within `DELAY_TOLERANCE`).
    """
    steps = np.broadcast_to(expand(f"node '{name}' (Delay): delay", node.delay, shape), shape) / dt
    if steps.max(initial=0) > LONGEST_DELAY:
        raise HardspikeError(f"node '{name}' (Delay): {array(node.delay).max():g} s is {steps.max():g} steps of dt = "
                             f"{dt:g} s; at most {LONGEST_DELAY}, which no run outlasts")
    whole = np.where(steps > 0, np.maximum(np.round(steps), 1), 0)
    off = abs(steps - whole).max(initial=0)
    if off > DELAY_TOLERANCE:
        raise HardspikeError(f"node '{name}' (Delay): {array(node.delay).max():g} s is not a whole number of steps of "
                             f"dt = {dt:g} s (off by {off:.3g} of a step); choose a dt that divides it")
    return whole.astype(np.int64)
