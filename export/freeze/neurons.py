"""snnTorch's neurons as NIR nodes that give the same spikes, step by step.

Time is counted in steps of `DT`; a leak lambda per step becomes tau = DT/(1 - lambda) with R = tau/DT, for which
forward Euler gives u' = lambda*u + I back. NIR knows one reset: LIF puts u to zero in the step of the spike. With
u the membrane, I the input current of step t, and s, r the spikes of this step and the step before, snnTorch 1.0 has

    reset                    membrane                               form here
    none                     u' = lambda*u + I                      LI -> Threshold
    subtract                 u' = lambda*u + I - theta*r            the same and a loop that subtracts theta
    subtract, not delayed    u' = lambda*u + I; s; u' -= theta*s    a loop through Delays (see `_subtract_at_once`)
    zero (Leaky)             u' = lambda*(1 - r)*u + I              LIF
    zero, not delayed        u' = lambda*u + I; s; u' *= 1 - s      LIF
    zero (all others)        u' = (1 - r)*(lambda*u + I)            LIF that is made to fire (see `_zero_and_deaf`)

Lapicque has lambda = 1 - dt/(R C) and takes dt/C times its input. Alpha is two LI (see `_alpha`).
"""

from collections.abc import Callable

import nir
import numpy as np
import snntorch as snn
import torch
from snntorch._neurons import rleaky, rsynaptic
from torch import Tensor, nn

from export.freeze import layers
from export.freeze.layers import Layer, Piece, refusal, to_array
from hardspike import one_line
from trainer.neurons.leaky import Leaky

DT = 1e-4
"""Seconds a step: what the NIR paper used and what snnTorch's importer assumes."""

SLOWEST = 2.0**60
"""Steps of a tau that stands for no leak beside neurons that leak: in float64, 1 - 1/SLOWEST is 1."""

KICK = 2.0**100
"""A current that makes any neuron fire; float32 holds it, and it leaves no trace since the reset follows."""

_SURROGATES = {"Sigmoid": "sigmoid", "FastSigmoid": "fast_sigmoid", "ATan": "atan", "Triangular": "triangular",
               "StraightThroughEstimator": "straight_through_estimator", "SpikeRateEscape": "spike_rate_escape",
               "LeakySpikeOperator": "LSO", "SparseFastSigmoid": "SFS", "StochasticSpikeOperator": "SSO"}


def neuron(layer: Layer) -> Piece:
    """Leaky, Lapicque, Synaptic, Alpha, RLeaky or RSynaptic.

    The node called like the layer has the layer's spikes.

    Raises:
        HardspikeError: a setting that NIR cannot hold.
    """
    module = layer.module
    check(layer)
    theta, leak, gain = _full(layer, "threshold", module.threshold), _leak(layer), None
    if isinstance(module, snn.Lapicque):
        gain = _full(layer, "C", module.R * (1 / (module.R * module.C)) * module.time_step)
    piece = _forgetful(layer, theta) if layer.forgets else _remembering(layer, theta, leak)
    if gain is not None and (gain != 1).any():
        current = f"{layer.name}_current"
        piece.nodes[current] = nir.Scale(gain)
        piece.edges.append((current, piece.entry or layer.name))
        piece.entry = current
    return _graded(layer, piece)


def _remembering(layer: Layer, theta: np.ndarray, leak: np.ndarray) -> Piece:
    """The neuron without what its spikes are multiplied with."""
    module, name = layer.module, layer.name
    reset = _reset(layer, theta)
    if isinstance(module, snn.Alpha):
        return _alpha(layer, leak, theta, reset)
    alpha = _full(layer, "alpha", module.alpha).clip(0, 1) if hasattr(module, "alpha") else None
    if alpha is not None and reset is _zero:
        return _cuba_lif(name, alpha, leak, theta)
    piece = reset(name, leak, theta)
    if alpha is not None:
        synapse = f"{name}_synapse"
        piece.nodes[synapse] = integrator(alpha)
        piece.edges.append((synapse, piece.entry or name))
        piece.entry = synapse
    return piece


def _leak(layer: Layer) -> np.ndarray:
    """What is left of the membrane after a step, as the neuron computes it."""
    module = layer.module
    if not isinstance(module, snn.Lapicque):
        return _full(layer, "beta", module.beta).clip(0, 1)
    leak = _full(layer, "R", 1 - module.time_step / (module.R * module.C))
    if (leak < 0).any():
        raise refusal(layer, f"time_step/(R C) is {1 - leak.min():g}, above 1: its membrane changes sign in every "
                             "step; take a smaller time_step or a larger R C")
    return leak


def _forgetful(layer: Layer, theta: np.ndarray) -> Piece:
    """A neuron whose states are made anew in every step compares what comes in with its threshold, and nothing else."""
    module = layer.module
    if isinstance(module, snn.Alpha):
        raise refusal(layer, "its states are made anew in every step, so that it fires at once or never: take the "
                             "reset out of the step")
    if (theta < 0).any():
        raise refusal(layer, f"threshold {theta.min():g}: below 0 snnTorch resets a neuron that has not fired yet; "
                             "keep thresholds at 0 or above")
    if isinstance(module, snn.RLeaky | snn.RSynaptic):
        silent = torch.zeros(1, *layer.shape, dtype=module.threshold.dtype)
        theta = theta - to_array(module.recurrent(silent))[0]
    return Piece({layer.name: nir.Threshold(theta)}, theta.shape)


def _alpha(layer: Layer, leak: np.ndarray, theta: np.ndarray, reset: Callable) -> Piece:
    """Two currents of opposite sign, exc' = alpha exc + I and inh' = beta inh - I, and u = tau (exc + inh)."""
    module, name = layer.module, layer.name
    if reset is not _no_reset:
        raise refusal(layer, f"reset_mechanism '{module.reset_mechanism}' empties two currents at once; no node of NIR "
                             "does: make it with reset_mechanism='none', or use snn.Synaptic, and train again")
    rise = _full(layer, "alpha", module.alpha).clip(0, 1)
    factor = np.log(rise) / (np.log(leak) - np.log(rise)) + 1
    if not np.isfinite(factor).all():
        raise refusal(layer, f"alpha {rise.min():g}, beta {leak.min():g}: its factor tau is not finite; keep both "
                             "above 0 and apart")
    excite, inhibit, up, down = (f"{name}_{part}" for part in ("excite", "inhibit", "up", "down"))
    return Piece({excite: integrator(rise), inhibit: integrator(leak), up: nir.Scale(factor),
                  down: nir.Scale(-factor), name: nir.Threshold(theta)}, theta.shape, entries=(excite, inhibit),
                 edges=[(excite, up), (inhibit, down), (up, name), (down, name)])


def _graded(layer: Layer, piece: Piece) -> Piece:
    """A factor behind the spikes, and what the layer hears of itself."""
    module, name = layer.module, layer.name
    grade = _full(layer, "graded_spikes_factor", module.graded_spikes_factor)
    if (grade == 0).any():
        raise refusal(layer, "graded_spikes_factor is 0 for some neurons, whose spikes reach nobody; leave them out")
    if (grade != 1).any():
        piece.exit = f"{name}_grade"
        piece.nodes[piece.exit] = nir.Scale(grade)
        piece.edges.append((name, piece.exit))
    if isinstance(module, snn.RLeaky | snn.RSynaptic) and not layer.forgets:
        _add_recurrence(layer, piece)
    return piece


def check(layer: Layer) -> None:
    """Refuse what changes spikes and has no node.

    Raises:
        HardspikeError: such a setting.
    """
    module = layer.module
    if module.inhibition:
        raise refusal(layer, "inhibition=True lets one neuron of the layer fire; NIR has no such rule: train without")
    if module.state_quant:
        raise refusal(layer, "state_quant rounds the membrane in every step; NIR has no such rule: train without, and "
                             "quantise the graph for a chip afterwards")
    if isinstance(module, snn.RSynaptic) and not getattr(module, "reset_delay", True):
        raise refusal(layer, "reset_delay=False: snnTorch 1.0 itself fails there; use reset_delay=True")
    if isinstance(module, snn.Lapicque) and not (hasattr(module, "R") and hasattr(module, "C")):
        raise refusal(layer, "beta, R and C given at once: snnTorch 1.0 itself fails there; give beta, or R and C")
    probe = torch.tensor([-1e9, -1.0, -1e-3, -1e-12, 0.0, 1e-12, 1e-3, 1.0, 1e9] * 20, dtype=torch.float64)
    if isinstance(module.spike_grad, type):
        raise refusal(layer, f"its spike_grad is the class {module.spike_grad.__name__}; give a function, "
                             f"surrogate.{_SURROGATES.get(module.spike_grad.__name__, 'atan')}()")
    try:
        spikes = module.spike_grad(probe)
    except Exception as error:  # a function of the user's own
        raise refusal(layer, f"its spike_grad fails ({one_line(error)}); give one that takes the membrane alone") \
            from error
    if not isinstance(spikes, Tensor):
        raise refusal(layer, f"its spike_grad gives a {type(spikes).__name__}; give one that returns the spikes alone")
    if not torch.equal(spikes.double(), (probe > 0).double()):
        raise refusal(layer, "its spike_grad is no step function (1 above the threshold, else 0) in the forward pass; "
                             "NIR fires at a hard threshold: use one of snntorch.surrogate and train again")


def _full(layer: Layer, key: str, value: Tensor) -> np.ndarray:
    """A parameter for every neuron; torch broadcasts it against (B, *shape)."""
    values = to_array(value)
    if not np.isfinite(values).all():
        raise refusal(layer, f"{key} is not finite (NaN or infinity); NIR holds numbers: for a neuron that never "
                             "fires, take a large threshold")
    try:
        return np.broadcast_to(values, (1, *layer.shape))[0].copy()
    except ValueError:
        raise refusal(layer, f"{key} of shape {values.shape} does not fit its input {layer.shape}; give one value, or "
                             "one a neuron") from None


def _reset(layer: Layer, theta: np.ndarray) -> Callable[[str, np.ndarray, np.ndarray], Piece]:
    """Which form holds the reset; snnTorch chooses its function when the module is made, not when it runs."""
    module = layer.module
    runs = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}[module.state_function.__name__]
    stored = next(key for key, value in module.reset_dict.items() if value == int(module.reset_mechanism_val))
    if not runs == stored == module.reset_mechanism:
        raise refusal(layer, f"reset_mechanism is '{stored}', but it was made with '{runs}', which is what snnTorch "
                             "runs; make the layer with the one you mean")
    if runs == "none":
        return _no_reset
    if layer.lossy_reset:
        return _zero
    delayed = getattr(module, "reset_delay", True)
    if runs == "subtract" and not delayed:
        return _subtract_at_once
    if runs == "zero" and delayed and isinstance(module, snn.Leaky):
        return _zero
    if (theta < 0).any():
        raise refusal(layer, f"threshold {theta.min():g}: below 0 snnTorch resets a neuron that has not fired yet, in "
                             "the first step; keep thresholds at 0 or above")
    if runs == "subtract":
        return _subtract
    return _zero if not delayed else _zero_and_deaf


def _no_reset(name: str, leak: np.ndarray, theta: np.ndarray) -> Piece:
    membrane = f"{name}_membrane"
    return Piece({membrane: integrator(leak), name: nir.Threshold(theta)}, theta.shape, membrane,
                 edges=[(membrane, name)], membrane=membrane)


def _subtract(name: str, leak: np.ndarray, theta: np.ndarray) -> Piece:
    piece = _no_reset(name, leak, theta)
    reset = f"{name}_reset"
    piece.nodes[reset] = nir.Scale(-theta)
    piece.edges += [(name, reset), (reset, piece.membrane)]
    return piece


def _subtract_at_once(name: str, leak: np.ndarray, theta: np.ndarray) -> Piece:
    """With p the membrane before the reset, p' = lambda*p + I - lambda*theta*r.

    Where the membrane that is left, p - theta*r, is above theta itself, snnTorch takes theta off once more before it
    compares (and adds it again afterwards): the node `_above` sees that, a step late.
    """
    piece = _no_reset(name, leak, theta)
    membrane, past, reset, before, taken, above, hold = (
        f"{name}_{part}" for part in ("membrane", "past", "reset", "before", "taken", "above", "hold"))
    step = np.full(theta.shape, DT)
    piece.nodes |= {past: nir.Delay(step), before: nir.Delay(step), above: nir.Threshold(theta),
                    reset: nir.Scale(-leak * theta), taken: nir.Scale(-theta), hold: nir.Scale(-theta)}
    piece.edges += [(name, past), (past, reset), (reset, membrane), (past, taken), (taken, above),
                    (membrane, before), (before, above), (above, hold), (hold, name)]
    piece.membrane, piece.past = None, past
    return piece


def _zero(name: str, leak: np.ndarray, theta: np.ndarray) -> Piece:
    zero = np.zeros(theta.shape)
    node = (nir.IF(r=zero + 1 / DT, v_threshold=theta, v_reset=zero) if (leak == 1).all() else
            nir.LIF(tau=_tau(leak), r=_tau(leak) / DT, v_leak=zero, v_threshold=theta, v_reset=zero))
    return Piece({name: node}, theta.shape)


def _cuba_lif(name: str, alpha: np.ndarray, leak: np.ndarray, theta: np.ndarray) -> Piece:
    zero = np.zeros(theta.shape)
    node = nir.CubaLIF(tau_syn=_tau(alpha), tau_mem=_tau(leak), r=_tau(leak) / DT, v_leak=zero, v_threshold=theta,
                       w_in=_tau(alpha) / DT, v_reset=zero)
    return Piece({name: node}, theta.shape)


def _zero_and_deaf(name: str, leak: np.ndarray, theta: np.ndarray) -> Piece:
    """The step after a spike is lost: the membrane is zero at its end, whatever comes in.

    Only NIR's LIF empties a membrane, and only where it fires. So a spike makes the LIF fire once more in the step
    after it, and that second, made spike is taken out again: the layer's spikes are LIF - r above one half.
    """
    fires, kick, block = (f"{name}_{part}" for part in ("membrane", "reset", "block"))
    nodes = {fires: _zero(name, leak, theta).nodes[name], name: nir.Threshold(np.full(theta.shape, 0.5)),
             kick: nir.Scale(np.full(theta.shape, KICK)), block: nir.Scale(np.full(theta.shape, -1.0))}
    return Piece(nodes, theta.shape, fires, edges=[(fires, name), (name, kick), (kick, fires), (name, block),
                                                   (block, name)], compared=fires)


def _add_recurrence(layer: Layer, piece: Piece) -> None:
    """The layer's last spikes, through its recurrent module, join its input; before the first step, no spikes do."""
    recurrent, name = layer.module.recurrent, f"{layer.name}_recurrent"
    if type(recurrent) in (nn.Linear, nn.Conv2d):
        made = layers.CONVERTERS[type(recurrent)](Layer(name, recurrent, piece.shape))
    elif isinstance(recurrent, rleaky.RecurrentOneToOne | rsynaptic.RecurrentOneToOne):
        made = Piece({name: nir.Scale(_full(layer, "V", recurrent.V))}, piece.shape)
    else:
        raise refusal(layer, f"its recurrent layer is {type(recurrent).__name__}; Linear, Conv2d and V are carried")
    if made.shape != piece.shape:
        raise refusal(layer, f"its recurrent layer gives {made.shape}, its input is {piece.shape}; use an odd kernel")
    piece.nodes |= made.nodes
    piece.edges += [(piece.past or piece.exit or layer.name, name), (name, piece.entry or layer.name)]


def integrator(leak: np.ndarray) -> nir.NIRNode:
    if (leak == 1).all():
        return nir.I(r=np.full(leak.shape, 1 / DT))
    return nir.LI(tau=_tau(leak), r=_tau(leak) / DT, v_leak=np.zeros(leak.shape))


def _tau(leak: np.ndarray) -> np.ndarray:
    return DT / np.maximum(1 - leak, 1 / SLOWEST)


CONVERTERS: dict[type[nn.Module], Callable[[Layer], Piece]] = dict.fromkeys(
    (snn.Leaky, Leaky, snn.Lapicque, snn.Synaptic, snn.Alpha, snn.RLeaky, snn.RSynaptic), neuron)
"""`trainer.neurons.leaky.Leaky` is snnTorch's run over all steps at once."""
