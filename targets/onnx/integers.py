"""One time step of an integer graph's layers as ONNX operators: as `targets.loihi.fixed_point`, bit for bit.

All integers are held in float32, which has every one up to 2^24. Where a chip's arithmetic goes further it is taken
apart, so that no intermediate value does:

- D(x) = sgn(x) floor(|x| k / 4096), |x| <= 2^23: with |x| = h + l, h a multiple of 4096 and l < 4096, it is
  sgn(x) (h (k/4096) + floor(l (k/4096))), where k/4096 and both products are exact.
- u = D(u) + a, wrapped into 24 bits: a is compared with +-2^23 - D(u) and wrapped before D(u) is added.
- v = clip(D(v) + u + c): D(v) + u and c are exact, and what the last addition can round lies beyond the clip.
"""

import copy

import nir
import numpy as np
import onnx

from hardspike import HardspikeError
from targets.loihi.fixed_point import SHIFT, STATE, largest_sum
from targets.loihi.layers import DECAY_UNIT, Connection, Layer, Network
from targets.onnx.nodes import OPERATORS, Emitter, Outputs, emit_nodes, late, remember

EXACT = 1 << 24
"""Float32 holds every integer up to here."""


def bounds(network: Network) -> tuple[int, set[str]]:
    """The largest input value for which float32 is exact everywhere, and the layers whose current may wrap.

    Raises:
        HardspikeError: not even inputs of 0 and 1 are exact.
    """
    arriving = {}
    for name, layer in network.layers.items():
        fixed, by_input = (SHIFT * int(sum(largest_sum(network, c) for c in layer.connections
                                           if (c.source == network.plan.input) == is_input))
                           for is_input in (False, True))
        if fixed + by_input > EXACT:
            raise HardspikeError(f"layer '{name}': its input may sum to {(fixed + by_input) // SHIFT} a step; ONNX "
                                 f"holds {EXACT // SHIFT} exactly (float32, in 64ths): use smaller weights")
        arriving[name] = fixed, by_input

    def largest(room: int) -> int:
        return min(((room - fixed) // by_input for fixed, by_input in arriving.values() if by_input), default=room)

    value = largest(STATE - 1) if largest(STATE - 1) >= 1 else largest(EXACT)
    return value, {name for name, (fixed, by_input) in arriving.items()
                   if fixed + value * by_input >= STATE or np.round(network.layers[name].i_decay).min() < DECAY_UNIT}


def emit_integers(e: Emitter, x: str, network: Network, wrapping: set[str], membrane: bool) -> Outputs:
    """One step of the graph for input `x`: whole numbers up to what `bounds` gives, as are the layers `wrapping`."""
    plan, layers = network.plan, network.layers
    values, results = {plan.input: x}, {}
    longest = dict.fromkeys([plan.input, *layers], 0)
    for layer in layers.values():
        longest[layer.name] = max(longest[layer.name], int(layer.reset == "subtract"))
        for c in layer.connections:
            longest[c.source] = max(longest[c.source], c.delay)
    for layer in layers.values():
        weighed = [_weighed(e, network, c, values, longest) for c in layer.connections]
        e.scope = layer.name
        current = e.op("Mul", e.total(weighed), e.constant("shift", np.array(SHIFT)))
        before = late(e, layer.shape, longest[layer.name], 1) if layer.reset == "subtract" else None
        values[layer.name], compared = _neuron(e, layer, current, before, layer.name in wrapping)
        results[f"{layer.name}.spikes"] = values[layer.name], layer.shape
        if membrane:
            results[f"{layer.name}.membrane"] = compared, layer.shape
    for name, steps in longest.items():
        e.scope = name
        remember(e, values[name], steps)
    return emit_nodes(e, plan, network.readout, values, membrane=False) | results


def _weighed(e: Emitter, network: Network, connection: Connection, values: dict[str, str],
             longest: dict[str, int]) -> str:
    """Spikes through a connection; the bias belongs to the neuron."""
    plan, source = network.plan, connection.source
    e.scope = source
    x = (late(e, plan.output_shape[source], longest[source], connection.delay) if connection.delay
         else values[source])
    for name in connection.nodes:
        e.scope, node = name, plan.nodes[name]
        if isinstance(node, nir.Affine):
            node = nir.Linear(node.weight)
        elif hasattr(node, "bias"):
            node = copy.copy(node)
            node.bias = np.zeros(1)
        x = OPERATORS[type(node)](e, x, node, plan.input_shape[name])
    return x


def _neuron(e: Emitter, layer: Layer, current: str, before: str | None, wraps: bool) -> tuple[str, str]:
    """(spikes, membrane) for `current`, in 64ths as all here; `before`: the last spikes, where they count later."""
    keep_i, keep_v = (1 - np.round(decay) / DECAY_UNIT for decay in (layer.i_decay, layer.v_decay))
    threshold, zero = layer.threshold * SHIFT, e.constant("zero", np.zeros(()))
    v = current
    if wraps:
        v = _wrapped_sum(e, current, _decay(e, "leak_syn", e.state("i", layer.shape), keep_i) if keep_i.any() else zero)
    if keep_i.any():
        e.update("i", v)
    if keep_v.any():
        v = e.op("Add", _decay(e, "leak", e.state("v", layer.shape), keep_v), v)
    offset = e.coefficient("bias", layer.bias * SHIFT) if layer.bias.any() else None
    if before:
        taken = e.op("Mul", before, e.coefficient("minus_threshold", -threshold))
        offset = e.op("Add", taken, offset) if offset else taken
    if offset:
        v = e.op("Add", v, offset)
    v = e.op("Clip", v, e.constant("lowest", np.array(1 - STATE)), e.constant("highest", np.array(STATE - 1)))
    fired = e.op("Greater", v, e.coefficient("threshold", threshold))
    if keep_v.any():
        leaky = layer.reset == "subtract_leaky"
        after = e.op("Sub", v, e.coefficient("threshold", threshold)) if leaky else zero
        e.update("v", v if before else e.op("Where", fired, after, v))
    return e.op("Cast", fired, to=onnx.TensorProto.FLOAT), v


def _decay(e: Emitter, key: str, x: str, keep: np.ndarray) -> str:
    """D(x), `keep` = k / 4096."""
    if (keep == 1).all():
        return x
    kept, size = e.coefficient(key, keep), e.op("Abs", x)
    high = e.op("Mul", size, e.constant("shift_down", np.array(1 / DECAY_UNIT)))
    high = e.op("Mul", e.op("Floor", high), e.constant("shift_up", np.array(DECAY_UNIT)))
    low = e.op("Floor", e.op("Mul", e.op("Sub", size, high), kept))
    return e.op("Mul", e.op("Sign", x), e.op("Add", e.op("Mul", high, kept), low))


def _wrapped_sum(e: Emitter, current: str, decayed: str) -> str:
    """`current` + `decayed`, once less 2^24 above 2^23 and once more at -2^23 and below."""
    half, whole = e.constant("half", np.array(STATE)), e.constant("whole", np.array(2 * STATE))
    over = e.op("Cast", e.op("Greater", current, e.op("Sub", half, decayed)), to=onnx.TensorProto.FLOAT)
    minus_half = e.constant("minus_half", np.array(-STATE))
    under = e.op("Cast", e.op("LessOrEqual", current, e.op("Sub", minus_half, decayed)), to=onnx.TensorProto.FLOAT)
    current = e.op("Sub", current, e.op("Mul", over, whole))
    return e.op("Add", e.op("Add", current, e.op("Mul", under, whole)), decayed)
