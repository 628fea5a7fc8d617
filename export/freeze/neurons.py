"""snnTorch's neurons as NIR nodes that give the same spikes, step by step.

Time is counted in steps of `DT`; a leak lambda per step becomes tau = DT/(1 - lambda) with R = tau/DT, for which
forward Euler gives u' = lambda*u + I back. NIR knows one reset: LIF puts u to zero in the step of the spike. With
u the membrane, I the input current of step t, and s, r the spikes of this step and the step before, snnTorch 1.0 has

    reset                    membrane                               form here
    none                     u' = lambda*u + I                      LI -> Threshold
    subtract                 u' = lambda*u + I - theta*r            the same and a loop that subtracts theta
    subtract_leaky (ours)    u' = lambda*(u - theta*r) + I          the same, lambda*theta subtracted
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

from export.freeze import inhibition, layers
from export.freeze.layers import Layer, Piece, refusal, to_array
from hardspike import one_line
from trainer.neurons.leaky import Leaky
from trainer.neurons.recurrent import Recurrent

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
    elif isinstance(module, Leaky) and module.plif:
        gain = _full(layer, "beta", module.gain)
    piece = _alpha(layer, leak, theta) if isinstance(module, snn.Alpha) else _remembering(layer, theta, leak)
    if module.inhibition:
        piece = inhibition.largest(layer, theta, piece)
    if gain is not None and (gain != 1).any():
        _before(piece, layer.name, f"{layer.name}_current", nir.Scale(gain))
    return _graded(layer, piece)


def _before(piece: Piece, name: str, node_name: str, node: nir.NIRNode) -> None:
    """Put a node before what takes the input."""
    piece.nodes[node_name] = node
    piece.edges.append((node_name, piece.entry or name))
    piece.entry = node_name


def _remembering(layer: Layer, theta: np.ndarray, leak: np.ndarray) -> Piece:
    """The neuron without what its spikes are multiplied with; a state that is made anew is a leak of zero."""
    module, name = layer.module, layer.name
    reset = _reset(layer, theta)
    if reset is _no_reset and not leak.any() and not module.inhibition:
        reset = _no_memory
    alpha = _full(layer, "alpha", module.alpha).clip(0, 1) if hasattr(module, "alpha") else None
    if "syn" in layer.forgets:
        alpha = None
    if alpha is not None and reset in (_zero, _no_memory):
        return _cuba_lif(name, alpha, leak if reset is _zero else 0 * leak, theta)
    piece = reset(name, leak, theta)
    if alpha is not None:
        _before(piece, name, f"{name}_synapse", integrator(alpha))
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


def _alpha(layer: Layer, leak: np.ndarray, theta: np.ndarray) -> Piece:
    """Two currents of opposite sign, exc' = alpha exc + I and inh' = beta inh - I, and u = tau (exc + inh)."""
    module, name = layer.module, layer.name
    if layer.forgets >= {"syn_exc", "syn_inh"}:
        raise refusal(layer, "its states are made anew in every step, where its two currents cancel, so that it never "
                             "fires: take the reset out of the step")
    if _reset(layer, theta) not in (_no_reset, _no_memory):
        raise refusal(layer, f"reset_mechanism '{module.reset_mechanism}' empties two currents at once; no node of NIR "
                             "does: make it with reset_mechanism='none', or use snn.Synaptic, and train again")
    rise = _full(layer, "alpha", module.alpha).clip(0, 1)
    factor = np.log(rise) / (np.log(leak) - np.log(rise)) + 1
    if not np.isfinite(factor).all():
        raise refusal(layer, f"alpha {rise.min():g}, beta {leak.min():g}: its factor tau is not finite; keep both "
                             "above 0 and apart")
    excite, inhibit, up, down = (f"{name}_{part}" for part in ("excite", "inhibit", "up", "down"))
    rise, leak = (0 * a if role in layer.forgets else a for a, role in ((rise, "syn_exc"), (leak, "syn_inh")))
    return Piece({excite: integrator(rise), inhibit: integrator(leak), up: nir.Scale(factor),
                  down: nir.Scale(-factor), name: nir.Threshold(theta)}, theta.shape, entries=(excite, inhibit),
                 edges=[(excite, up), (inhibit, down), (up, name), (down, name)], membrane=(up, down))


def _graded(layer: Layer, piece: Piece) -> Piece:
    """A factor behind the spikes, and what the layer hears of itself."""
    module, name = layer.module, layer.name
    grade = _full(layer, "graded_spikes_factor", factor(module))
    if (grade == 0).any():
        raise refusal(layer, "graded_spikes_factor is 0 for some neurons, whose spikes reach nobody; leave them out")
    if (grade != 1).any():
        piece.exit = f"{name}_grade"
        piece.nodes[piece.exit] = nir.Scale(grade)
        piece.edges.append((name, piece.exit))
    if isinstance(module, snn.RLeaky | snn.RSynaptic | Recurrent):
        (_add_silence if "spk" in layer.forgets else _add_recurrence)(layer, piece)
    return piece


def check(layer: Layer) -> None:
    """Refuse what changes spikes and has no node.

    Raises:
        HardspikeError: such a setting.
    """
    module = layer.module
    if module.state_quant:
        raise refusal(layer, "state_quant rounds the membrane in every step; NIR has no such rule: train without, and "
                             "quantise the graph for a chip afterwards")
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


def require_runs(layer: Layer) -> None:
    """Refuse settings with which snnTorch 1.0 does not run.

    Raises:
        HardspikeError: such a setting.
    """
    module = layer.module
    if isinstance(module, snn.RSynaptic) and not getattr(module, "reset_delay", True):
        raise refusal(layer, "reset_delay=False: snnTorch 1.0 itself fails there; use reset_delay=True")
    if isinstance(module, snn.Lapicque) and not (hasattr(module, "R") and hasattr(module, "C")):
        raise refusal(layer, "beta, R and C given at once: snnTorch 1.0 itself fails there; give beta, or R and C")


def delayed(module: nn.Module) -> bool:
    """Whether a spike resets the membrane one step later.

    RSynaptic's reset_delay=False (where it runs: handed spikes of its input's shape) changes nothing in snnTorch 1.0.
    """
    return isinstance(module, snn.RSynaptic) or getattr(module, "reset_delay", True)


def factor(module: nn.Module) -> Tensor:
    """What a spike is multiplied with; inhibition leaves graded_spikes_factor out."""
    return torch.ones_like(module.threshold) if module.inhibition else module.graded_spikes_factor


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
    if "mem" in layer.forgets:
        _require_positive(layer, theta)
        return _no_leak if module.inhibition else _no_memory
    if isinstance(module, Leaky) and module.leaky_reset:
        return _zero if layer.lossy_reset else _subtract_leaky
    runs = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}[module.state_function.__name__]
    stored = next(key for key, value in module.reset_dict.items() if value == int(module.reset_mechanism_val))
    if not runs == stored == module.reset_mechanism:
        raise refusal(layer, f"reset_mechanism is '{stored}', but it was made with '{runs}', which is what snnTorch "
                             "runs; make the layer with the one you mean")
    if runs == "none":
        return _no_reset
    if layer.lossy_reset:
        return _zero
    if runs == "subtract" and not delayed(module):
        return _subtract_at_once
    if runs == "zero" and delayed(module) and isinstance(module, snn.Leaky):
        return _zero
    _require_positive(layer, theta)
    if runs == "subtract":
        return _subtract
    return _zero if not delayed(module) else _zero_and_deaf


def _require_positive(layer: Layer, theta: np.ndarray) -> None:
    if (theta < 0).any():
        raise refusal(layer, f"threshold {theta.min():g}: below 0 snnTorch resets a neuron that has not fired yet, in "
                             "the first step; keep thresholds at 0 or above")


def _no_memory(name: str, leak: np.ndarray, theta: np.ndarray) -> Piece:
    """A membrane that is made anew in every step, or forgotten in one, is what comes in, and no reset reaches it."""
    return Piece({name: nir.Threshold(theta)}, theta.shape)


def _no_leak(name: str, leak: np.ndarray, theta: np.ndarray) -> Piece:
    """The same with a membrane that other nodes can read."""
    return _no_reset(name, 0 * leak, theta)


def _no_reset(name: str, leak: np.ndarray, theta: np.ndarray) -> Piece:
    membrane = f"{name}_membrane"
    return Piece({membrane: integrator(leak), name: nir.Threshold(theta)}, theta.shape, membrane,
                 edges=[(membrane, name)], membrane=(membrane,))


def _subtract(name: str, leak: np.ndarray, theta: np.ndarray, taken: np.ndarray | None = None) -> Piece:
    piece = _no_reset(name, leak, theta)
    reset = f"{name}_reset"
    piece.nodes[reset] = nir.Scale(-theta if taken is None else -taken)
    piece.edges += [(name, reset), (reset, piece.entry)]
    return piece


def _subtract_leaky(name: str, leak: np.ndarray, theta: np.ndarray) -> Piece:
    return _subtract(name, leak, theta, leak * theta) if leak.any() else _no_memory(name, leak, theta)


def _subtract_at_once(name: str, leak: np.ndarray, theta: np.ndarray) -> Piece:
    """With p the membrane before the reset, p' = lambda*p + I - lambda*theta*r.

    Where the membrane that is left, p - theta*r, is above theta itself, snnTorch takes theta off once more before it
    compares (and adds it again afterwards): the node `_above` sees that, a step late.
    """
    piece = _no_reset(name, leak, theta)
    past, reset, before, taken, above, hold = (
        f"{name}_{part}" for part in ("past", "reset", "before", "taken", "above", "hold"))
    step = np.full(theta.shape, DT)
    piece.nodes |= {past: nir.Delay(step), before: nir.Delay(step), above: nir.Threshold(theta),
                    reset: nir.Scale(-leak * theta), taken: nir.Scale(-theta), hold: nir.Scale(-theta)}
    piece.edges += [(name, past), (past, reset), (reset, piece.entry), (past, taken), (taken, above),
                    (piece.entry, before), (before, above), (above, hold), (hold, name)]
    piece.past = past
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


def _add_silence(layer: Layer, piece: Piece) -> None:
    """What the recurrent module gives for the spikes that a neuron is told that it did not fire: its bias."""
    recurrent, shape = layer.module.recurrent, layer.shape
    silent = torch.zeros(1, *shape, dtype=layer.module.threshold.dtype, device=layer.module.threshold.device)
    given = to_array(recurrent(silent))[0]
    if not given.any():
        return
    if isinstance(recurrent, nn.Conv2d) and given.shape == shape:
        same = np.eye(shape[0])[:, :, None, None]
        node = nir.Conv2d(shape[1:], same, 1, 0, 1, 1, to_array(recurrent.bias))
    elif given.shape == shape and len(shape) == 1:
        node = nir.Affine(np.eye(*shape), given)
    else:
        raise refusal(layer, f"its recurrent layer gives {given.shape}, its input is {shape}; use an odd kernel, or "
                             "features alone, (B, features)")
    _before(piece, layer.name, f"{layer.name}_recurrent", node)


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
    (snn.Leaky, Leaky, Recurrent, snn.Lapicque, snn.Synaptic, snn.Alpha, snn.RLeaky, snn.RSynaptic), neuron)
"""`trainer.neurons.leaky.Leaky` is snnTorch's run over all steps at once."""
